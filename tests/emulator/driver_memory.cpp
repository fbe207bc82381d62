// The driver's functions for the device, contexts and memory.
#include <cstdlib>
#include <cstring>
#include <map>

#include "driver.hpp"
#include "grid.hpp"

using namespace emulator;

namespace {

const CUcontext PRIMARY = reinterpret_cast<CUcontext>(0x1000);
const CUmemoryPool POOL = reinterpret_cast<CUmemoryPool>(0x2000);

char* bytes(CUdeviceptr address) { return reinterpret_cast<char*>(address); }

void require(CUdeviceptr address, size_t size, const char* what) {
    if (!lives(address, size)) throw Fault(std::string(what) + " outside of all memory that is allocated");
}

}  // namespace

// ---- the device and its context ---------------------------------------------------------------------------

CUresult cuInit(unsigned) { return CUDA_SUCCESS; }

CUresult cuDriverGetVersion(int* version) {
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
    *count = 1;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice* device, int number) {
    NEED(number == 0, CUDA_ERROR_INVALID_DEVICE, "there is one device");
    *device = 0;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char* name, int size, CUdevice) {
    snprintf(name, size, "Emulated GPU");
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    static const std::map<int, int> known = {
        {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 9}, {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0},
        {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, 1024}, {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
        {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 132},   {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1}};
    const auto found = known.find(attribute);
    NEED(found != known.end(), CUDA_ERROR_INVALID_VALUE, "attribute " + std::to_string(attribute) + " is not known");
    *value = found->second;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* made, CUdevice) {
    *made = PRIMARY;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice) { return CUDA_SUCCESS; }

CUresult cuCtxGetCurrent(CUcontext* found) {
    *found = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext chosen) {
    context = chosen;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    *least = *greatest = 0;
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize() {
    NEED_CONTEXT;
    counters.syncs++;
    if (const CUresult status = refuse_while_anybody_captures(called(__func__))) return status;
    return finish_all();
}

CUresult cuGetErrorName(CUresult status, const char** name) {
    static std::map<CUresult, std::string> names = {{CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"}};
    HOLD;
    std::string& found = names[status];
    if (found.empty()) found = "CUDA_ERROR_" + std::to_string(status);
    *name = found.c_str();
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult, const char** text) {
    *text = "see what the emulator complains of";
    return CUDA_SUCCESS;
}

// ---- memory -----------------------------------------------------------------------------------------------

CUresult cuMemGetInfo(size_t* available, size_t* total) {
    NEED_CONTEXT;
    *total = memory_limit();
    *available = memory_limit() - memory_used();
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetMemPool(CUmemoryPool* pool, CUdevice) {
    *pool = POOL;
    return CUDA_SUCCESS;
}

CUresult cuMemPoolGetAttribute(CUmemoryPool, CUmemPool_attribute, void* value) {
    memset(value, 0, sizeof(cuuint64_t));
    return CUDA_SUCCESS;
}

CUresult cuMemPoolSetAttribute(CUmemoryPool, CUmemPool_attribute, void*) { return CUDA_SUCCESS; }

CUresult cuMemAllocFromPoolAsync(CUdeviceptr* made, size_t size, CUmemoryPool, CUstream handle) {
    NEED_CONTEXT;
    const Stream* stream = stream_of(handle);
    NEED(stream, CUDA_ERROR_INVALID_HANDLE, "there is no such stream");
    NEED(!stream->captured, CUDA_ERROR_NOT_SUPPORTED, "a graph that allocates is not emulated");
    *made = allocate(size);
    if (!*made) {
        finish_all();                            // what was freed in the order of a stream counts from now on
        *made = allocate(size);
    }
    return *made ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream handle) {
    HOLD;                                        // whatever the thread: memory is freed by whom Python wants
    const Stream* stream = stream_of(handle);
    NEED(stream, CUDA_ERROR_INVALID_HANDLE, "there is no such stream");
    NEED(!stream->captured, CUDA_ERROR_NOT_SUPPORTED, "a graph that frees is not emulated");
    return ask(handle, [=] {
        if (!release(address)) throw Fault("memory is freed that is not allocated");
    });
}

// Pinned memory of the host. It lives as long as the process.
CUresult cuMemHostAlloc(void** made, size_t size, unsigned) {
    NEED_CONTEXT;
    NEED_NO_CAPTURE;
    *made = malloc(size);
    return *made ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

// Pinned memory is read when the copy's turn comes, and of other memory nobody says when: all is read as late as can be.
CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void* from, size_t size, CUstream stream) {
    NEED_CONTEXT;
    counters.uploads++;
    NEED_NO_CAPTURE;
    return ask(stream, [=] {
        require(to, size, "an upload");
        memcpy(bytes(to), from, size);
    });
}

CUresult cuMemcpyDtoHAsync(void* to, CUdeviceptr from, size_t size, CUstream stream) {
    NEED_CONTEXT;
    counters.downloads++;
    NEED_NO_CAPTURE;
    return ask(stream, [=] {
        require(from, size, "a download");
        memcpy(to, bytes(from), size);
    });
}

CUresult cuMemcpyDtoDAsync(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream) {
    NEED_CONTEXT;
    NEED(size > 0, CUDA_ERROR_INVALID_VALUE, "a copy of nothing");
    return ask(stream, [=] {
        require(from, size, "a copy from");
        require(to, size, "a copy to");
        if (to < from + size && from < to + size) throw Fault("a copy whose ends overlap");
        memcpy(bytes(to), bytes(from), size);
    });
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char byte, size_t size, CUstream stream) {
    NEED_CONTEXT;
    NEED(size > 0, CUDA_ERROR_INVALID_VALUE, "a filling of nothing");
    return ask(stream, [=] {
        require(to, size, "a filling");
        memset(bytes(to), byte, size);
    });
}
