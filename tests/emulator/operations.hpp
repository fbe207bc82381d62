// What instructions of PTX compute. A register holds 64 bits, of which an instruction reads as many as its type has.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace emulator {

typedef uint64_t Bits;
typedef Bits (*Operation)(Bits a, Bits b, Bits c);

// The PTX ISA leaves open what comes of it, so no kernel may do it.
struct Undefined : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The operation of an instruction such as "add.s32", or null where there is none here.
Operation operation(const std::string& name);

}  // namespace emulator
