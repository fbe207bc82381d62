// What is found in the library: the driver's functions by their names, and what tests ask of the emulator.
#include <cuda.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "grid.hpp"
#include "memory.hpp"
#include "streams.hpp"

#define EXPORTED extern "C" __attribute__((visibility("default")))
#define NAMED(function) {#function, reinterpret_cast<void*>(function)}       // cuda.h says which version of it

namespace {

const std::map<std::string, void*> FUNCTIONS = {
    NAMED(cuInit), NAMED(cuDriverGetVersion), NAMED(cuDeviceGetCount), NAMED(cuDeviceGet), NAMED(cuDeviceGetName),
    NAMED(cuDeviceGetAttribute), NAMED(cuDevicePrimaryCtxRetain), NAMED(cuDevicePrimaryCtxRelease),
    NAMED(cuCtxGetCurrent), NAMED(cuCtxSetCurrent), NAMED(cuCtxGetStreamPriorityRange), NAMED(cuCtxSynchronize),
    NAMED(cuGetErrorName), NAMED(cuGetErrorString), NAMED(cuMemGetInfo), NAMED(cuDeviceGetMemPool),
    NAMED(cuMemPoolGetAttribute), NAMED(cuMemPoolSetAttribute), NAMED(cuMemAllocFromPoolAsync), NAMED(cuMemFreeAsync),
    NAMED(cuMemHostAlloc), NAMED(cuMemcpyHtoDAsync), NAMED(cuMemcpyDtoHAsync), NAMED(cuMemcpyDtoDAsync), NAMED(cuMemsetD8Async),
    NAMED(cuLibraryLoadData), NAMED(cuLibraryUnload), NAMED(cuLibraryGetKernel), NAMED(cuLaunchKernelEx),
    NAMED(cuStreamCreateWithPriority), NAMED(cuStreamDestroy), NAMED(cuStreamSynchronize), NAMED(cuStreamWaitEvent),
    NAMED(cuEventCreate), NAMED(cuEventDestroy), NAMED(cuEventRecord),
    NAMED(cuEventSynchronize), NAMED(cuStreamBeginCapture),
    NAMED(cuStreamEndCapture), NAMED(cuStreamIsCapturing), NAMED(cuStreamGetCaptureInfo),
    NAMED(cuGraphInstantiateWithParams), NAMED(cuGraphLaunch), NAMED(cuGraphDestroy), NAMED(cuGraphExecDestroy),
    NAMED(cuUserObjectCreate), NAMED(cuGraphRetainUserObject), NAMED(cuGraphReleaseUserObject)};

// Of the others each name gets a function of its own, so that a call can say what is not there.
const size_t MOST_OTHERS = 1024;
std::vector<std::string> others;

CUresult call_other(size_t number) {
    const std::lock_guard<std::recursive_mutex> held(emulator::lock);
    return emulator::complain(CUDA_ERROR_NOT_SUPPORTED, others[number] + " is not emulated");
}

template <size_t number>
CUresult other() {
    return call_other(number);
}

template <size_t... numbers>
void* other_function(size_t number, std::index_sequence<numbers...>) {
    static CUresult (*const functions[])() = {other<numbers>...};
    return reinterpret_cast<void*>(functions[number]);
}

void* function_of(const char* name) {
    const std::lock_guard<std::recursive_mutex> held(emulator::lock);
    const auto known = FUNCTIONS.find(name);
    if (known != FUNCTIONS.end()) return known->second;
    const size_t number = std::find(others.begin(), others.end(), name) - others.begin();
    if (number == MOST_OTHERS) return nullptr;
    if (number == others.size()) others.push_back(name);
    return other_function(number, std::make_index_sequence<MOST_OTHERS>());
}

}  // namespace

// Functions of versions after the header's are not there, as with an older driver.
EXPORTED CUresult cuGetProcAddress(const char* name, void** found, int version, cuuint64_t,
                                   CUdriverProcAddressQueryResult* status) {
    *found = version <= CUDA_VERSION ? function_of(name) : nullptr;
    if (status) *status = *found ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
    return *found ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

// What was done wrong since this was asked last, into so many bytes; its length. After a fault things work again.
EXPORTED size_t emulator_complaints(char* text, size_t size) {
    const std::lock_guard<std::recursive_mutex> held(emulator::lock);
    const std::string said = emulator::complaints();
    snprintf(text, size, "%s", said.c_str());
    return said.size();
}

EXPORTED void emulator_counters(unsigned long long* counts) {
    memcpy(counts, &emulator::counters, sizeof emulator::counters);
}

EXPORTED void emulator_seed(uint64_t number) { emulator::seed(number); }

EXPORTED void emulator_room(size_t bytes) { emulator::set_room(bytes); }
