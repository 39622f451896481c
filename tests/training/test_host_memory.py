"""What the kernel says of this process."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from segdistill.training.host_memory import keep_freed_memory, peak_memory_bytes

CPU = torch.device("cpu")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_the_peak_rises_with_what_was_held_and_stays() -> None:
    before = peak_memory_bytes(CPU)
    assert before
    block = torch.ones(before // 4 + 2**26)  # four bytes each: at least the peak again
    assert (held := peak_memory_bytes(CPU))
    assert held > 0.99 * block.numel() * 4
    del block
    assert (after := peak_memory_bytes(CPU))
    assert after > 0.99 * held  # the kernel counts in batches


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the knob is glibc's")
def test_freed_memory_stays_with_the_process() -> None:
    """In a process of its own: the setting cannot be taken back."""
    script = """
import sys, torch
from segdistill.training.host_memory import keep_freed_memory
def resident():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
assert sys.argv[1] == "plain" or keep_freed_memory()
block = torch.ones(2**26); held = resident(); del block
print(held - resident())
"""
    given_back = {
        how: int(subprocess.run([sys.executable, "-c", script, how], capture_output=True, text=True, check=True,
                                env=os.environ).stdout)
        for how in ("plain", "keep")
    }  # fmt: skip
    assert given_back["plain"] > 2**27, "otherwise this test shows nothing"
    assert given_back["keep"] < 2**24


def test_other_platforms_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
