"""Where a population was made: kept beside it, no part of its identity."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

_COMPILERS = ("numba", "llvmlite")
"""What makes the native engine's kernels: other versions may round otherwise."""


def environment(*, engine: str, reason: str, device: str, workers: int) -> dict[str, str]:
    """Describe engine (and why it was taken), versions and processor."""
    return {
        "engine": engine,
        "engine_reason": reason,
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "workers": str(workers),
        "threads_per_worker": "1",
        "weight-zoo": _own_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "processor": _processor(),
        "processors": str(os.cpu_count() or 1),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        **({name: version(name) for name in _COMPILERS} if engine == "native" else {}),
    }


def _own_version() -> str:
    try:
        return version("weight-zoo")
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """Return the processor's name, from Linux' own list where there is one."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
