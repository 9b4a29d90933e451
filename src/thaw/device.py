"""The device a run computes on: chosen once, with the reason."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from thaw.errors import RecipeError

# The parameters of glibc's mallopt, by their numbers in malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD = 64 << 20


@dataclass(frozen=True)
class DeviceChoice:
    """A device and one sentence that says why."""

    device: torch.device
    reason: str


def choose_device(wanted: str) -> DeviceChoice:
    """Resolve `auto`, or check that the wanted device is here; raises `RecipeError` when it is not."""
    if wanted == "auto":
        return _best_device()
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RecipeError(f"device: {wanted} was asked for, but PyTorch sees {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RecipeError("device: mps was asked for, but PyTorch sees no Apple GPU here; use auto or cpu")
    return DeviceChoice(device, "as asked")


def _best_device() -> DeviceChoice:
    if torch.cuda.is_available():
        return DeviceChoice(torch.device("cuda"), f"found {torch.cuda.get_device_name()}")
    if torch.backends.mps.is_available():
        return DeviceChoice(torch.device("mps"), "found an Apple GPU")
    return DeviceChoice(torch.device("cpu"), f"no GPU found; {worker_count()} cores")


def worker_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine(device: torch.device) -> dict[str, str]:
    """What a run needs to be repeated to the bit: the processor, the accelerator it used, and the versions."""
    accelerator = {"accelerator": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {
        "machine": f"{_processor()}, {worker_count()} cores",
        **accelerator,
        "system": f"{platform.system()} {platform.release()}",
        "versions": f"Python {platform.python_version()}, PyTorch {torch.__version__}",
    }


def _processor() -> str:
    """The name of the processor, as Linux knows it, or what Python makes of it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8", errors="replace").splitlines() if facts.is_file() else []
    names = [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"]
    return names[0] if names else platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Let this process keep memory that it has freed, for its next step: on Linux with glibc, nothing elsewhere.

    glibc hands large blocks back to the kernel at once, and every step then waits for the kernel to clear the same
    pages anew (bench/thawed_step.py has the gain).
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _TOP_PAD)):
        mallopt(parameter, value)
