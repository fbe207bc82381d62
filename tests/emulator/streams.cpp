#include "streams.hpp"

#include <memory>
#include <set>
#include <utility>

#include "grid.hpp"

namespace emulator {

std::recursive_mutex lock;
Counters counters = {};

namespace {

Stream legacy;                                   // the default one, which has no handle of its own
std::set<Stream*> streams;
CUresult failed = CUDA_SUCCESS;                  // since a fault: as with CUDA, all that follows fails as well
std::string said;

void perform(const Work& work) {
    if (failed) return;
    try {
        work();
    } catch (const Fault& fault) {
        failed = complain(CUDA_ERROR_ILLEGAL_ADDRESS, fault.what());
    }
}

void perform_next(Stream* stream) {
    const Work work = std::move(stream->queue.front());
    stream->queue.pop_front();
    perform(work);
}

// A capture of the global mode forbids to every thread what one of the mode "thread local" forbids to its own.
bool forbids(const Stream* stream) {
    if (!stream->captured || stream->mode == CU_STREAM_CAPTURE_MODE_RELAXED) return false;
    return stream->mode == CU_STREAM_CAPTURE_MODE_GLOBAL || stream->by == std::this_thread::get_id();
}

CUresult refuse(const std::string& call, const std::function<bool(const Stream*)>& counts) {
    bool any = false;
    for (Stream* stream : streams) {
        if (counts(stream)) any = stream->broken = true;
    }
    if (!any) return CUDA_SUCCESS;
    return complain(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, call + " while a stream captures");
}

}  // namespace

CUresult complain(CUresult status, const std::string& what) {
    const std::lock_guard<std::recursive_mutex> held(lock);
    said += what + "\n";
    return status;
}

std::string complaints() {
    failed = CUDA_SUCCESS;
    return std::exchange(said, "");
}

Stream* stream_of(CUstream handle) {
    if (!handle || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) return &legacy;
    const auto found = streams.find(reinterpret_cast<Stream*>(handle));
    return found == streams.end() ? nullptr : *found;
}

Stream* new_stream() { return *streams.insert(new Stream).first; }

CUresult destroy(Stream* stream) {
    if (stream->captured) return complain(CUDA_ERROR_ILLEGAL_STATE, "a stream is destroyed while it captures");
    finish(stream);
    streams.erase(stream);
    delete stream;
    return CUDA_SUCCESS;
}

CUresult ask(CUstream handle, Work work) {
    Stream* stream = stream_of(handle);
    if (!stream) return complain(CUDA_ERROR_INVALID_HANDLE, "work is asked of a stream that is not there");
    if (failed) return failed;
    if (stream->broken) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (stream->captured) stream->captured->nodes.push_back(std::move(work));
    else stream->queue.push_back(std::move(work));
    return CUDA_SUCCESS;
}

CUresult finish(Stream* stream) {
    if (stream->captured) {
        stream->broken = true;
        return complain(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a stream is waited for while it captures");
    }
    while (!stream->queue.empty()) perform_next(stream);
    return failed;
}

CUresult finish_all() {
    while (!legacy.queue.empty()) perform_next(&legacy);
    for (Stream* stream : streams) {
        while (!stream->queue.empty()) perform_next(stream);
    }
    return failed;
}

CUresult finish(const Event& event, size_t record) {
    while (event.done < record && !event.stream->queue.empty()) perform_next(event.stream);
    return failed;
}

CUresult refuse_while_capturing(const std::string& call) { return refuse(call, forbids); }

CUresult refuse_while_anybody_captures(const std::string& call) {
    return refuse(call, [](const Stream* stream) { return stream->captured != nullptr; });
}

CUresult begin_capture(Stream* stream, CUstreamCaptureMode mode) {
    if (stream->captured || stream == &legacy) return complain(CUDA_ERROR_ILLEGAL_STATE, "a capture begins twice");
    stream->captured = new Graph;
    stream->mode = mode;
    stream->by = std::this_thread::get_id();
    return CUDA_SUCCESS;
}

CUresult end_capture(Stream* stream, Graph** made) {
    if (!stream->captured) return complain(CUDA_ERROR_ILLEGAL_STATE, "a capture ends that did not begin");
    std::unique_ptr<Graph> graph(stream->captured);
    const bool broken = stream->broken;
    stream->captured = nullptr;
    stream->broken = false;
    *made = nullptr;
    if (stream->mode != CU_STREAM_CAPTURE_MODE_RELAXED && stream->by != std::this_thread::get_id()) {
        return complain(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "a capture is ended by another thread");
    }
    if (broken) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    counters.nodes += graph->nodes.size();
    *made = graph.release();
    return CUDA_SUCCESS;
}

}  // namespace emulator
