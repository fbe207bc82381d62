#include "memory.hpp"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>

namespace emulator {
namespace {

const int JUNK = 0xC5, DEAD = 0xDD;              // as floats and as indices both are far from what a kernel expects
const size_t ALIGNED = 512;                      // as CUDA's; also the least distance between two pieces
const size_t MOST = size_t(4) << 30;             // bytes, until a test says less
const size_t BURIED = 64 << 20;                  // bytes that are kept from being used again

std::map<Bits, size_t> pieces;
std::deque<std::pair<Bits, size_t>> dead;
size_t used = 0, buried = 0, limit = MOST;

struct {                                         // the piece that was asked for last: most accesses are to it
    Bits begins, ends;
} last = {0, 0};

size_t room(size_t size) { return (size + ALIGNED - 1) / ALIGNED * ALIGNED; }

}  // namespace

Bits allocate(size_t size) {
    if (size > limit - used) return 0;
    void* made = aligned_alloc(ALIGNED, room(size) + ALIGNED);
    if (!made) return 0;
    memset(made, JUNK, room(size) + ALIGNED);
    pieces[Bits(made)] = size;
    used += size;
    return Bits(made);
}

bool release(Bits address) {
    const auto found = pieces.find(address);
    if (found == pieces.end()) return false;
    const size_t size = found->second;
    memset(reinterpret_cast<void*>(address), DEAD, size);
    pieces.erase(found);
    last = {0, 0};
    used -= size;
    buried += size;
    dead.push_back({address, size});
    while (buried > BURIED) {
        buried -= dead.front().second;
        free(reinterpret_cast<void*>(dead.front().first));
        dead.pop_front();
    }
    return true;
}

bool lives(Bits address, size_t size) {
    if (address >= last.begins && address < last.ends && size <= last.ends - address) return true;
    auto piece = pieces.upper_bound(address);
    if (piece == pieces.begin()) return false;
    --piece;
    const Bits ends = piece->first + piece->second;
    if (address >= ends || size > ends - address) return false;
    last = {piece->first, ends};
    return true;
}

void set_room(size_t bytes) { limit = used + bytes; }
size_t memory_limit() { return limit; }
size_t memory_used() { return used; }

}  // namespace emulator
