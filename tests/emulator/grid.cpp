#include "grid.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "memory.hpp"

namespace emulator {
namespace {

const char JUNK = char(0xA5);                    // in shared memory and in registers that nothing was written to
const unsigned LONGEST_TURN = 64;                // instructions

uint64_t drawn = 1;

uint64_t draw() {                                // xorshift: quick, and the same everywhere
    drawn ^= drawn << 13;
    drawn ^= drawn >> 7;
    return drawn ^= drawn << 17;
}

enum class State { Runs, Waits, Ended };

struct Thread {
    State state;
    int next;                                    // instruction
};

// A byte of shared memory since the last barrier: who wrote it and who read it.
struct Touched {
    int writer = NOBODY, reader = NOBODY;
    static const int NOBODY = -1, MANY = -2;
};

class Launch {
public:
    Launch(const Module& module, const Kernel& kernel, Shape shape, const std::vector<Bits>& arguments)
        : module(module), kernel(kernel), shape(shape), threads(shape.threads), first(kernel.registers),
          registers(size_t(shape.threads) * kernel.registers), shared(module.shared_end), touched(module.shared_end) {
        memset(first.data(), JUNK, first.size() * sizeof(Bits));
        for (const auto& [place, value] : kernel.constants) first[place] = value;
        for (size_t i = 0; i < arguments.size(); i++) set(first.data(), kernel.parameters[i], arguments[i]);
        set(first.data(), kernel.special[THREADS], shape.threads);
        set(first.data(), kernel.special[BLOCKS], shape.blocks);
    }

    void run() {
        std::vector<unsigned> order(shape.blocks);
        std::iota(order.begin(), order.end(), 0);
        for (unsigned i = shape.blocks; i > 1; i--) std::swap(order[i - 1], order[draw() % i]);
        for (unsigned number : order) run_block(number);
    }

private:
    const Module& module;
    const Kernel& kernel;
    const Shape shape;
    std::vector<Thread> threads;
    std::vector<Bits> first;                     // what is in the registers of each thread when it starts
    std::vector<Bits> registers;                 // of all threads of a block
    std::vector<char> shared;
    std::vector<Touched> touched;
    unsigned block = 0, current = 0;             // the thread whose turn it is

    static void set(Bits* held, int place, Bits value) {
        if (place >= 0) held[place] = value;
    }

    const Instruction& now() const { return kernel.code[threads[current].next]; }

    [[noreturn]] void fault(const std::string& what) const {
        const int line = now().line;
        throw Fault("kernel " + kernel.name + ", block " + std::to_string(block) + " of " +
                    std::to_string(shape.blocks) + ", thread " + std::to_string(current) + " of " +
                    std::to_string(shape.threads) + ": " + what + " (PTX line " + std::to_string(line) + ": " +
                    (line ? module.lines[line - 1] : "") + ")");
    }

    // ---- turns

    void run_block(unsigned number) {
        block = number;
        std::fill(shared.begin(), shared.end(), JUNK);
        for (current = 0; current < shape.threads; current++) {
            Bits* held = &registers[size_t(current) * kernel.registers];
            memcpy(held, first.data(), first.size() * sizeof(Bits));
            set(held, kernel.special[THREAD], current);
            set(held, kernel.special[BLOCK], block);
            threads[current] = {State::Runs, 0};
        }
        do run_to_barrier();
        while (passes_barrier());
    }

    void run_to_barrier() {
        std::vector<unsigned> running(shape.threads);
        std::iota(running.begin(), running.end(), 0);
        while (!running.empty()) {
            const uint64_t number = draw();
            unsigned& chosen = running[(number >> 32) % running.size()];
            current = chosen;
            take_turn(1 + number % LONGEST_TURN);
            if (threads[current].state != State::Runs) {
                chosen = running.back();
                running.pop_back();
            }
        }
    }

    // Whether the block goes on: its threads are all at one barrier, or all at their end.
    bool passes_barrier() {
        for (current = 1; current < shape.threads; current++) {
            if (threads[current].state != threads[0].state) fault("it ended, or waits, where others do not");
            if (threads[0].state == State::Waits && threads[current].next != threads[0].next) {
                fault("it waits at another barrier than thread 0");
            }
        }
        if (threads[0].state == State::Ended) return false;
        for (Thread& thread : threads) thread = {State::Runs, thread.next + 1};
        std::fill(touched.begin(), touched.end(), Touched());
        return true;
    }

    void take_turn(unsigned instructions) {
        Bits* held = &registers[size_t(current) * kernel.registers];
        Thread& thread = threads[current];
        while (instructions--) {
            const Instruction& i = kernel.code[thread.next];
            if (i.predicate >= 0 && bool(held[i.predicate] & 1) == i.unless) {
                thread.next++;
                continue;
            }
            switch (i.action) {
                case Action::Compute:
                    held[i.to] = computed(i, held[i.a], held[i.b], held[i.c]);
                    break;
                case Action::Branch:
                    thread.next = i.target;
                    continue;
                case Action::Return:
                    thread.state = State::Ended;
                    return;
                case Action::Barrier:
                    thread.state = State::Waits;
                    return;
                case Action::Load:
                    held[i.to] = loaded(i, place(i, held[i.a] + i.offset));
                    break;
                case Action::Store:
                    memcpy(place(i, held[i.a] + i.offset), &held[i.b], i.size);
                    break;
                case Action::Atomic: {
                    char* at = place(i, held[i.a] + i.offset);
                    const Bits before = loaded(i, at), after = computed(i, before, held[i.b], 0);
                    memcpy(at, &after, i.size);
                    held[i.to] = before;
                    break;
                }
            }
            thread.next++;
        }
    }

    Bits computed(const Instruction& i, Bits a, Bits b, Bits c) const {
        try {
            return i.compute(a, b, c);
        } catch (const Undefined& why) {
            fault(why.what());
        }
    }

    static Bits loaded(const Instruction& i, const char* at) {
        Bits value = 0;
        memcpy(&value, at, i.size);
        const int unused = 64 - 8 * i.size;
        return i.is_signed ? Bits(int64_t(value << unused) >> unused) : value;
    }

    // ---- memory

    // Where an access goes, if it may.
    char* place(const Instruction& i, Bits address) {
        if (address % i.size) fault("an access of " + std::to_string(i.size) + " bytes that is not aligned");
        switch (i.space) {
            case Space::Global:
                if (!lives(address, i.size)) fault(outside("all memory that is allocated", address, i));
                return reinterpret_cast<char*>(address);
            case Space::Shared:
                if (address < SHARED_BEGINS || address + i.size > shared.size()) {
                    fault(outside("the block's shared memory", address, i));
                }
                note(i, address);
                return &shared[address];
            case Space::Constant:
                for (const auto& [name, constant] : module.constants) {
                    const Bits begins = Bits(constant.bytes.get());
                    if (address >= begins && address + i.size <= begins + constant.size) {
                        return reinterpret_cast<char*>(address);
                    }
                }
                fault(outside("the constants", address, i));
        }
        fault("memory of no kind");
    }

    static std::string outside(const char* what, Bits address, const Instruction& i) {
        char text[120];
        snprintf(text, sizeof text, "an access of %d bytes at %#lx, outside of %s", i.size, address, what);
        return text;
    }

    // Two threads share bytes, and one of them writes, only with a barrier in between; whatever turns were drawn.
    void note(const Instruction& i, Bits address) {
        const int mine = current;
        for (Touched* byte = &touched[address]; byte < &touched[address] + i.size; byte++) {
            if (byte->writer != Touched::NOBODY && byte->writer != mine) {
                fault("no barrier is between this access to shared memory and what thread " +
                      std::to_string(byte->writer) + " wrote there");
            }
            if (i.action == Action::Load) {
                byte->reader = byte->reader == Touched::NOBODY || byte->reader == mine ? mine : Touched::MANY;
            } else if (byte->reader != Touched::NOBODY && byte->reader != mine) {
                fault("no barrier is between this access to shared memory and what others read there");
            } else {
                byte->writer = mine;
            }
        }
    }
};

}  // namespace

void run(const Module& module, const Kernel& kernel, Shape shape, const std::vector<Bits>& arguments) {
    Launch(module, kernel, shape, arguments).run();
}

void seed(uint64_t number) { drawn = number | 1; }

}  // namespace emulator
