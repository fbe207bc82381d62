// The functions of cuBLAS that are called: products of columns, in the order of the handle's stream.
#include <algorithm>

#include "grid.hpp"
#include "memory.hpp"
#include "streams.hpp"

using namespace emulator;

#define CUBLAS(name) extern "C" __attribute__((visibility("default"))) int name

namespace {

enum Status { SUCCESS = 0, INVALID_VALUE = 7, EXECUTION_FAILED = 13 };

struct Handle {
    CUstream stream = nullptr;
    bool has_workspace = false;
};

template <class T>
struct Matrix {                                  // columns beside each other, each `lead` from the next
    const T* first;
    int64_t lead, stride;
    bool turned;

    T at(int64_t number, int64_t row, int64_t column) const {
        return first[number * stride + (turned ? column + row * lead : row + column * lead)];
    }

    // Whether the last of `batch` matrices, of these sizes as they lie, ends within the piece where the first begins.
    bool fits(int64_t rows, int64_t columns, int64_t batch) const {
        if (turned) std::swap(rows, columns);
        return lives(Bits(first), sizeof(T) * ((batch - 1) * stride + (columns - 1) * lead + rows));
    }
};

template <class T>
void multiply(int64_t m, int64_t n, int64_t k, T alpha, const Matrix<T>& a, const Matrix<T>& b, T beta,
              const Matrix<T>& c, int64_t batch) {
    if (!a.fits(m, k, batch) || !b.fits(k, n, batch) || !c.fits(m, n, batch)) {
        throw Fault("a product reaches outside of all memory that is allocated");
    }
    for (int64_t number = 0; number < batch; number++) {
        for (int64_t column = 0; column < n; column++) {
            for (int64_t row = 0; row < m; row++) {
                double sum = 0;
                for (int64_t i = 0; i < k; i++) sum += double(a.at(number, row, i)) * b.at(number, i, column);
                const T kept = beta != 0 ? beta * c.at(number, row, column) : T(0);      // what is not kept is not read
                const_cast<T&>(c.first[number * c.stride + row + column * c.lead]) = alpha * T(sum) + kept;
            }
        }
    }
}

template <class T>
int gemm(Handle* handle, int turn_a, int turn_b, int64_t m, int64_t n, int64_t k, const T* alpha, const Matrix<T>& a,
         const Matrix<T>& b, const T* beta, const Matrix<T>& c, int64_t batch) {
    const std::lock_guard<std::recursive_mutex> held(lock);
    if (!handle->has_workspace) {
        complain(CUDA_ERROR_INVALID_VALUE, "a product by cuBLAS on a stream without a workspace");
        return INVALID_VALUE;
    }
    const bool leads = a.lead >= std::max<int64_t>(1, turn_a ? k : m) &&
                       b.lead >= std::max<int64_t>(1, turn_b ? n : k) && c.lead >= std::max<int64_t>(1, m);
    if (!leads || m < 1 || n < 1 || k < 1 || batch < 1) {
        complain(CUDA_ERROR_INVALID_VALUE, "a product by cuBLAS of sizes that do not fit");
        return INVALID_VALUE;
    }
    counters.products++;
    const T scale = *alpha, keep = *beta;
    const auto work = [=] { multiply(m, n, k, scale, a, b, keep, c, batch); };
    return ask(handle->stream, work) ? EXECUTION_FAILED : SUCCESS;
}

}  // namespace

CUBLAS(cublasCreate_v2)(Handle** handle) {
    const std::lock_guard<std::recursive_mutex> held(lock);
    *handle = new Handle;
    return refuse_while_capturing("cublasCreate") ? EXECUTION_FAILED : SUCCESS;     // it allocates
}

CUBLAS(cublasSetStream_v2)(Handle* handle, CUstream stream) {
    *handle = {stream, false};
    return SUCCESS;
}

CUBLAS(cublasSetWorkspace_v2)(Handle* handle, void* workspace, size_t size) {
    const std::lock_guard<std::recursive_mutex> held(lock);
    if (!lives(Bits(workspace), size)) {
        complain(CUDA_ERROR_INVALID_VALUE, "the workspace for cuBLAS is no memory of the GPU");
        return INVALID_VALUE;
    }
    handle->has_workspace = true;
    return SUCCESS;
}

CUBLAS(cublasSetPointerMode_v2)(Handle*, int mode) { return mode ? INVALID_VALUE : SUCCESS; }     // scalars are the host's

CUBLAS(cublasSetMathMode)(Handle*, int) { return SUCCESS; }                     // all products are exact enough

#define GEMM(letter, T)                                                                                             \
    CUBLAS(cublas##letter##gemmStridedBatched_64)                                                                   \
    (Handle* handle, int turn_a, int turn_b, int64_t m, int64_t n, int64_t k, const T* alpha, const T* a,           \
     int64_t lead_a, int64_t stride_a, const T* b, int64_t lead_b, int64_t stride_b, const T* beta, T* c,           \
     int64_t lead_c, int64_t stride_c, int64_t batch) {                                                             \
        return gemm<T>(handle, turn_a, turn_b, m, n, k, alpha, {a, lead_a, stride_a, turn_a != 0},                  \
                       {b, lead_b, stride_b, turn_b != 0}, beta, {c, lead_c, stride_c, false}, batch);              \
    }

GEMM(S, float)
GEMM(D, double)
