"""The memory of this process: how much it took, and not giving it back between steps."""

import ctypes
import platform
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Ask glibc to reuse large freed blocks instead of returning them to the kernel.

    By default every activation map is mapped, zeroed page by page by the kernel, and unmapped again, in every
    step: training on a CPU took about a third longer with it.

    Returns:
        Whether this platform has the knob.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, -1))


def peak_memory_bytes(device: torch.device) -> int | None:
    """The most memory this process has held so far, whatever it did: tensors on a GPU, everything resident on a CPU.

    None where the platform does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return None
