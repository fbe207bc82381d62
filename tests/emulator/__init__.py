"""A stand-in for NVIDIA's driver and cuBLAS, which interprets kernels' PTX: all of the CUDA path runs where no GPU is.

``python tests/emulator -m cuda tests`` is ``pytest -m cuda tests`` in it. It finds accesses beside what is allocated
and after it was freed, threads that share bytes without a barrier, calls that may not be made while a graph is
recorded, host code that forgets to wait; all of them fail the test. How long anything takes on a GPU it cannot say.
"""
