// Streams, events and graphs. What is asked of a stream waits until somebody waits for it, so that a program that
// forgets to finds old bytes.
#pragma once

#include <cuda.h>

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace emulator {

// All of the emulator's state is used with it held.
extern std::recursive_mutex lock;

// What is done when its turn comes; it throws Fault where it cannot be.
typedef std::function<void()> Work;

// An object of the caller's that a graph uses.
struct Kept {
    void* object;
    CUhostFn end;

    ~Kept() { end(object); }
};

struct Graph {
    std::vector<Work> nodes;
    std::vector<std::shared_ptr<Kept>> kept;
};

struct Stream {
    std::deque<Work> queue;
    Graph* captured = nullptr;                   // while it captures
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
    std::thread::id by;                          // the thread that began to
    bool broken = false;                         // something was called that may not be during a capture
};

struct Event {
    Stream* stream = nullptr;                    // where it was recorded last
    size_t asked = 0, done = 0;                  // records
};

// For tests: how often what was done, in the order of `COUNTS` in plugin.py.
struct Counters {
    unsigned long long launches, graph_launches, nodes, uploads, downloads, syncs, products;
};
extern Counters counters;

// Say what was done wrong, and answer with the status for it.
CUresult complain(CUresult status, const std::string& what);

// What was said since it was asked for, which ends it, and the state in which nothing works after a fault.
std::string complaints();

// The stream of a handle, or null where there is none.
Stream* stream_of(CUstream handle);
Stream* new_stream();
CUresult destroy(Stream* stream);

// Ask for work: it waits in the stream's queue, or becomes a node of the graph that the stream captures.
CUresult ask(CUstream handle, Work work);

// Do all that was asked of a stream, which may not capture, or of all.
CUresult finish(Stream* stream);
CUresult finish_all();

// Do what stands before a record of an event.
CUresult finish(const Event& event, size_t record);

// Calls that may not be made while somebody captures: by this thread, or by any.
CUresult refuse_while_capturing(const std::string& call);
CUresult refuse_while_anybody_captures(const std::string& call);

CUresult begin_capture(Stream* stream, CUstreamCaptureMode mode);
CUresult end_capture(Stream* stream, Graph** made);

}  // namespace emulator
