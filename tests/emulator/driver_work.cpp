// The driver's functions for kernels, streams, events and graphs.
#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "driver.hpp"
#include "grid.hpp"

using namespace emulator;

namespace {

struct Loaded {
    std::shared_ptr<Module> module;
    std::map<const Kernel*, std::pair<Loaded*, const Kernel*>> kernels;      // what handles of kernels point to
};
typedef std::pair<Loaded*, const Kernel*> Named;

std::set<Loaded*> libraries;
std::map<CUevent, std::shared_ptr<Event>> events;
std::set<CUgraph> graphs;
std::set<CUgraphExec> executables;

Graph* graph_of(void* handle) { return static_cast<Graph*>(handle); }

const size_t MOST_SHARED = 48 << 10;             // bytes of arrays of a block

}  // namespace

// ---- kernels ----------------------------------------------------------------------------------------------

CUresult cuLibraryLoadData(CUlibrary* made, const void* code, CUjit_option*, void**, unsigned, CUlibraryOption*, void**,
                           unsigned) {
    NEED_CONTEXT;
    NEED_NO_CAPTURE;
    try {
        auto module = parse(static_cast<const char*>(code));
        NEED(module->shared_end <= SHARED_BEGINS + MOST_SHARED, CUDA_ERROR_INVALID_PTX, "too much shared memory");
        *made = reinterpret_cast<CUlibrary>(*libraries.insert(new Loaded{module, {}}).first);
    } catch (const std::runtime_error& why) {
        return complain(CUDA_ERROR_INVALID_PTX, why.what());
    }
    return CUDA_SUCCESS;
}

CUresult cuLibraryUnload(CUlibrary handle) {
    HOLD;
    auto* library = reinterpret_cast<Loaded*>(handle);
    NEED(libraries.erase(library), CUDA_ERROR_INVALID_HANDLE, "there is no such library");
    delete library;
    return CUDA_SUCCESS;
}

CUresult cuLibraryGetKernel(CUkernel* found, CUlibrary handle, const char* name) {
    NEED_CONTEXT;
    auto* library = reinterpret_cast<Loaded*>(handle);
    NEED(libraries.count(library), CUDA_ERROR_INVALID_HANDLE, "there is no such library");
    const auto kernel = library->module->kernels.find(name);
    NEED(kernel != library->module->kernels.end(), CUDA_ERROR_NOT_FOUND, std::string("there is no kernel ") + name);
    Named& named = library->kernels[&kernel->second];
    named = {library, &kernel->second};
    *found = reinterpret_cast<CUkernel>(&named);
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** parameters, void** extra) {
    NEED_CONTEXT;
    counters.launches++;
    const auto [library, kernel] = *reinterpret_cast<const Named*>(function);
    NEED(libraries.count(library), CUDA_ERROR_INVALID_HANDLE, "the kernel's library is not loaded");
    const Shape shape = {config->gridDimX, config->blockDimX};
    const bool flat = config->gridDimY * config->gridDimZ * config->blockDimY * config->blockDimZ == 1;
    NEED(flat && !extra && !config->sharedMemBytes && !config->numAttrs, CUDA_ERROR_NOT_SUPPORTED,
         "a launch of this kind is not emulated");
    NEED(shape.blocks >= 1 && shape.blocks < 1u << 31 && shape.threads >= 1 && shape.threads <= 1024,
         CUDA_ERROR_INVALID_VALUE, "a launch of as many blocks or threads cannot be");
    std::vector<Bits> arguments(kernel->parameters.size());
    for (size_t i = 0; i < arguments.size(); i++) memcpy(&arguments[i], parameters[i], sizeof(Bits));
    const std::weak_ptr<Module> module = library->module;
    return ask(config->hStream, [=, kernel = kernel] {
        const std::shared_ptr<Module> loaded = module.lock();
        if (!loaded) throw Fault("a kernel is run whose library was unloaded");
        run(*loaded, *kernel, shape, arguments);
    });
}

// ---- streams and events -----------------------------------------------------------------------------------

CUresult cuStreamCreateWithPriority(CUstream* made, unsigned, int) {
    NEED_CONTEXT;
    *made = reinterpret_cast<CUstream>(new_stream());
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy(CUstream handle) {
    HOLD;
    Stream* stream = stream_of(handle);
    NEED(stream && handle, CUDA_ERROR_INVALID_HANDLE, "there is no such stream");
    return destroy(stream);
}

CUresult cuStreamSynchronize(CUstream handle) {
    NEED_CONTEXT;
    counters.syncs++;
    Stream* stream = stream_of(handle);
    NEED(stream, CUDA_ERROR_INVALID_HANDLE, "there is no such stream");
    return finish(stream);
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent handle, unsigned) {
    NEED_CONTEXT;
    NEED(events.count(handle), CUDA_ERROR_INVALID_HANDLE, "there is no such event");
    const std::shared_ptr<Event> event = events[handle];
    const size_t record = event->asked;
    return ask(stream, [=] { finish(*event, record); });
}

CUresult cuEventCreate(CUevent* made, unsigned) {
    NEED_CONTEXT;
    const auto event = std::make_shared<Event>();
    *made = reinterpret_cast<CUevent>(event.get());
    events[*made] = event;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent handle) {
    HOLD;
    NEED(events.erase(handle), CUDA_ERROR_INVALID_HANDLE, "there is no such event");
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent handle, CUstream stream) {
    NEED_CONTEXT;
    NEED(events.count(handle), CUDA_ERROR_INVALID_HANDLE, "there is no such event");
    const std::shared_ptr<Event> event = events[handle];
    const size_t record = ++event->asked;
    event->stream = stream_of(stream);
    return ask(stream, [=] { event->done = record; });
}

CUresult cuEventSynchronize(CUevent handle) {
    NEED_CONTEXT;
    counters.syncs++;
    NEED_NO_CAPTURE;
    NEED(events.count(handle), CUDA_ERROR_INVALID_HANDLE, "there is no such event");
    const std::shared_ptr<Event> event = events[handle];
    return finish(*event, event->asked);
}

// ---- graphs -----------------------------------------------------------------------------------------------

CUresult cuStreamBeginCapture(CUstream handle, CUstreamCaptureMode mode) {
    NEED_CONTEXT;
    Stream* stream = stream_of(handle);
    NEED(stream, CUDA_ERROR_INVALID_HANDLE, "there is no such stream");
    return begin_capture(stream, mode);
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph* made) {
    HOLD;
    Stream* stream = stream_of(handle);
    NEED(stream, CUDA_ERROR_INVALID_HANDLE, "there is no such stream");
    Graph* graph;
    const CUresult status = end_capture(stream, &graph);
    *made = reinterpret_cast<CUgraph>(graph);
    if (graph) graphs.insert(*made);
    return status;
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
    HOLD;
    const Stream* stream = stream_of(handle);
    NEED(stream, CUDA_ERROR_INVALID_HANDLE, "there is no such stream");
    *status = !stream->captured ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->broken  ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetCaptureInfo(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* number, CUgraph* graph,
                                const CUgraphNode** last, const CUgraphEdgeData** edges, size_t* count) {
    HOLD;
    const CUresult found = cuStreamIsCapturing(handle, status);
    if (found) return found;
    if (number) *number = cuuint64_t(handle);
    if (graph) *graph = reinterpret_cast<CUgraph>(stream_of(handle)->captured);
    if (last) *last = nullptr;
    if (edges) *edges = nullptr;
    if (count) *count = 0;
    return CUDA_SUCCESS;
}

CUresult cuGraphInstantiateWithParams(CUgraphExec* made, CUgraph handle, CUDA_GRAPH_INSTANTIATE_PARAMS* parameters) {
    NEED_CONTEXT;
    NEED(graphs.count(handle), CUDA_ERROR_INVALID_HANDLE, "there is no such graph");
    *made = reinterpret_cast<CUgraphExec>(new Graph(*graph_of(handle)));
    executables.insert(*made);
    parameters->result_out = CUDA_GRAPH_INSTANTIATE_SUCCESS;
    return CUDA_SUCCESS;
}

CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream) {
    NEED_CONTEXT;
    counters.graph_launches++;
    NEED(executables.count(handle), CUDA_ERROR_INVALID_HANDLE, "there is no such graph");
    for (const Work& node : graph_of(handle)->nodes) {
        if (const CUresult status = ask(stream, node)) return status;
    }
    return CUDA_SUCCESS;
}

// What a graph kept is let go without the lock: its end may wait for Python, and so for threads that wait for the lock.
CUresult cuGraphDestroy(CUgraph handle) {
    std::unique_ptr<Graph> gone;
    HOLD;
    if (!graphs.erase(handle)) return CUDA_ERROR_INVALID_VALUE;      // cuda.core asks for it after a capture that failed
    gone.reset(graph_of(handle));
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec handle) {
    std::unique_ptr<Graph> gone;
    HOLD;
    NEED(executables.erase(handle), CUDA_ERROR_INVALID_HANDLE, "there is no such graph");
    gone.reset(graph_of(handle));
    return CUDA_SUCCESS;
}

CUresult cuUserObjectCreate(CUuserObject* made, void* object, CUhostFn end, unsigned references, unsigned) {
    HOLD;
    NEED(references == 1, CUDA_ERROR_NOT_SUPPORTED, "more than one reference is not emulated");
    *made = reinterpret_cast<CUuserObject>(new Kept{object, end});
    return CUDA_SUCCESS;
}

CUresult cuGraphRetainUserObject(CUgraph graph, CUuserObject object, unsigned count, unsigned flags) {
    HOLD;
    NEED(count == 1 && flags == CU_GRAPH_USER_OBJECT_MOVE, CUDA_ERROR_NOT_SUPPORTED,
         "only the caller's one reference may be handed on");
    graph_of(graph)->kept.emplace_back(reinterpret_cast<Kept*>(object));
    return CUDA_SUCCESS;
}

CUresult cuGraphReleaseUserObject(CUgraph graph, CUuserObject object, unsigned count) {
    std::shared_ptr<Kept> gone;
    HOLD;
    auto& kept = graph_of(graph)->kept;
    const auto found = std::find_if(kept.begin(), kept.end(), [=](const auto& k) {
        return k.get() == reinterpret_cast<Kept*>(object);
    });
    NEED(count == 1 && found != kept.end(), CUDA_ERROR_INVALID_VALUE, "the graph does not keep this object");
    gone = *found;
    kept.erase(found);
    return CUDA_SUCCESS;
}
