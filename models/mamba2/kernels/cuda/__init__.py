"""CUDA kernels of whole stacks: `.cu` text, compiled at run time by NVRTC to cached cubins, and their host side.

`portability.cuh` is all that the kernels know of the hardware; the tests run the same sources on the CPU. Importing
this package needs neither a GPU nor a driver nor NVRTC.
"""
