// A launch: blocks one after the other in an order drawn at random, the threads of each in turns drawn at random.
#pragma once

#include <vector>

#include "module.hpp"

namespace emulator {

// What a kernel may not do: a sentence that says which kernel, block, thread and line of PTX.
struct Fault : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Shape {
    unsigned blocks, threads;
};

void run(const Module& module, const Kernel& kernel, Shape shape, const std::vector<Bits>& arguments);

// Where the drawing of turns begins.
void seed(uint64_t number);

}  // namespace emulator
