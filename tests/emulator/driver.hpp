// What all functions of the driver begin with.
#pragma once

#include <cuda.h>

#include "memory.hpp"
#include "streams.hpp"

namespace emulator {

// As in CUDA a thread has no context until it sets one.
inline thread_local CUcontext context = nullptr;

// A function's name without the version that cuda.h gives it.
inline std::string called(const std::string& name) { return name.substr(0, name.find("_v")); }

}  // namespace emulator

#define HOLD const std::lock_guard<std::recursive_mutex> held_(emulator::lock)
#define NEED(condition, status, what) \
    if (!(condition)) return emulator::complain(status, emulator::called(__func__) + ": " + what)
#define NEED_CONTEXT \
    HOLD;            \
    NEED(emulator::context, CUDA_ERROR_INVALID_CONTEXT, "its thread has set no context")
#define NEED_NO_CAPTURE \
    if (const CUresult status_ = emulator::refuse_while_capturing(emulator::called(__func__))) return status_
