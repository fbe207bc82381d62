// Kernels as instructions, read from PTX text.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "operations.hpp"

namespace emulator {

enum class Action { Compute, Branch, Return, Barrier, Load, Store, Atomic };
enum class Space { Global, Shared, Constant };

struct Instruction {
    Action action;
    Operation compute = nullptr;
    int to = 0, a = 0, b = 0, c = 0;         // registers; `a` is the address where there is one
    int predicate = -1;                      // a register, or -1
    bool unless = false;                     // the predicate says when not
    int target = 0;                          // of a branch
    Space space = Space::Global;
    int size = 0;                            // bytes that are loaded or stored
    bool is_signed = false;
    int64_t offset = 0;
    int line = 0;
};

enum Special { THREAD, THREADS, BLOCK, BLOCKS, SPECIALS };

struct Kernel {
    std::string name;
    std::vector<Instruction> code;
    int registers = 0;
    std::vector<std::pair<int, Bits>> constants;     // registers and what is always in them
    std::vector<int> parameters;                     // registers, or -1 for what is never read; all have 8 bytes
    int special[SPECIALS] = {-1, -1, -1, -1};        // registers, or -1
};

struct Constant {
    std::unique_ptr<char[]> bytes;
    size_t size;
};

struct Module {
    std::map<std::string, Kernel> kernels;
    std::map<std::string, Bits> shared;              // where arrays of blocks lie
    Bits shared_end;
    std::map<std::string, Constant> constants;
    std::vector<std::string> lines;                  // of the text
};

// Shared memory begins here, so that a pointer of zeros is wrong.
const Bits SHARED_BEGINS = 256;

// The module of a text; std::runtime_error with a sentence where the text has what is not known here.
std::shared_ptr<Module> parse(const char* text);

}  // namespace emulator
