"""The same Programs on an NVIDIA GPU: kernels from the same bodies, through Numba's CUDA target."""
