"""Engine ``native``: populations trained by kernels that are written in Python.

======================= ======================================================================
``engine``, ``training`` the engine; members in threads; ``member`` is one of them
``lowering``, ``layout`` from a network's graph to rows, and where everything lies in memory
``table``               what rows and planes are, for those two and for the kernels
``network``             one member in memory: the checked way to the kernels
``kernels``, ``passes`` batches through a network; samples through its rows
``products``            linear layers and convolutions, on the register ``tile``
``planes``, ``pools``, ``norms``, ``activations``, ``losses``, ``updates``, ``lines`` the rest
``jit``                 how kernels are compiled and kept
======================= ======================================================================
"""

from data_gen.engines.native.engine import NativeEngine, load_kernels, obstacle_of
from data_gen.engines.native.rows import NoKernelError

__all__ = ["NativeEngine", "NoKernelError", "load_kernels", "obstacle_of"]
