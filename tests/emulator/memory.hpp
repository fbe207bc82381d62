// Memory of the GPU: pieces of the host's, each with its bounds, so that an access beside or after its life is found.
#pragma once

#include <cstddef>

#include "operations.hpp"

namespace emulator {

// Room for so many bytes, full of junk; 0 where the limit is reached.
Bits allocate(size_t size);

// Whether there was such a piece. What lay in it is overwritten, and others get its addresses only much later.
bool release(Bits address);

// Whether all these bytes lie within one living piece.
bool lives(Bits address, size_t size);

// From now on there is room for so many bytes more.
void set_room(size_t bytes);

size_t memory_limit();
size_t memory_used();

}  // namespace emulator
