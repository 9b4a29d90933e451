"""The device a run computes on, chosen once with its reason; and what describes or tunes the machine."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thaw.cores import worker_count
from thaw.errors import RecipeError
from thaw.formats import count

CPU = torch.device("cpu")

SHARE = 0.3
"""Fraction of the free memory of an accelerator that one set of decoded images, or of cached features, may take."""

_OUT_OF_MEMORY = ("allocate memory", "out of memory", "ALLOC_FAILED")
"""In errors of PyTorch's CPU allocator, of other devices, and of libraries of CUDA."""

# The parameters of glibc's mallopt, by their numbers in malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD = 64 << 20


@dataclass(frozen=True)
class DeviceChoice:
    """A device, and one sentence that says why it was chosen."""

    device: torch.device
    reason: str


def choose_device(wanted: str) -> DeviceChoice:
    """The device that a recipe names, or for `auto` the accelerator of this machine where it has one.

    Of several accelerators the one that is named becomes the current one, and fp32 is exact on all of them.

    Args:
        wanted: `auto`, or a device as PyTorch writes it: `cpu`, `cuda`, `cuda:1`, `xpu`, `mps`.

    Raises:
        RecipeError: PyTorch does not know the device, or this machine does not have it.
    """
    compute_fp32_exactly()
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if wanted == "auto":
        if accelerator is None:
            return DeviceChoice(CPU, f"no accelerator found; {count(worker_count(), 'core')}")
        return DeviceChoice(accelerator, f"found {device_name(accelerator)}")
    found = ["cpu:0"]
    if accelerator is not None:
        found += [f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count())]
    refused = RecipeError(f"device: {wanted} is not here; choose auto or one of {', '.join(found)}")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise refused from error
    if f"{device.type}:{device.index or 0}" not in found:
        raise refused
    if device.type != "cpu" and device.index is not None:
        torch.accelerator.set_device_index(device.index)
    return DeviceChoice(device, "as requested")


@contextmanager
def current_on(device: torch.device) -> Iterator[None]:
    """Within the block a CUDA device is the current one of this thread; its stream is the same before and after.

    Each thread has a current device of its own, to which graphs and kernels of Triton go wherever their tensors are.
    A graph whose capture fails leaves the stream of the capture current.
    """
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        before = torch.cuda.current_stream()
        try:
            yield
        finally:
            torch.cuda.set_stream(before)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory of the CPU or of an accelerator ran out; only CUDA has a type of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in _OUT_OF_MEMORY)


def free_unused(device: torch.device) -> None:
    """Give back memory of an accelerator that nothing uses; what captured graphs held waits for Python to find it."""
    if device.type != "cpu":
        gc.collect()
        torch.accelerator.empty_cache()


def compute_fp32_exactly() -> None:
    """Make convolutions and products of matrices in fp32 compute in fp32 on NVIDIA GPUs, from now on in this process.

    By default PyTorch lets cuDNN round the inputs of convolutions to the 10 bits of TF32, and users may allow it for
    the rest. On an H200 the probabilities of a bundle then differed from those of a CPU by up to 0.025; in fp32 by
    6e-6, of the 1e-4 that a bundle accepts. On a CPU nothing changes where there is no such GPU.
    """
    if torch.compiler.is_compiling():
        # A compiled step cannot contain it; choosing the device came before.
        return
    cudnn: Any = torch.backends.cudnn
    cudnn.allow_tf32 = False
    # Without a precision of their own they would have that of all backends.
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "ieee"
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("highest")


def device_name(device: torch.device) -> str:
    """The name of the processor or accelerator, such as `NVIDIA H100 80GB HBM3`; its type where it has no name."""
    if device.type == "cpu":
        return platform.processor() or platform.machine()
    # Not every backend has the function: MPS does not.
    get_name = getattr(torch.get_device_module(device), "get_device_name", None)
    return get_name(device) if get_name else f"{device.type} device"


def free_bytes(device: torch.device) -> int:
    """Memory of an accelerator that is free, in bytes; 0 where it does not say, and for the CPU."""
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    get_memory = None if device.type == "cpu" else getattr(torch.get_device_module(device), "mem_get_info", None)
    try:
        return int(get_memory(device)[0]) if get_memory else 0
    except RuntimeError:
        # As of some Intel GPUs.
        return 0


def fits(needed: int, free: int) -> bool:
    """Whether so many bytes may stay in the memory of an accelerator, of which so many are free: at most `SHARE`."""
    return needed <= SHARE * free


def has_room_for(needed: int, device: torch.device) -> bool:
    """Whether so many bytes may stay in the memory of an accelerator now."""
    return fits(needed, free_bytes(device))


def to_device(values: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Values on a device, without waiting for what the device is still doing."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def addresses_of(parameters: Iterable[torch.nn.Parameter]) -> tuple[int, ...]:
    """Where parameters lie; a captured CUDA graph reads them there, whatever has become of them.

    What gives a network other places, moving or converting it or another layout, gives them to its parameters too.
    """
    return tuple(parameter.data_ptr() for parameter in parameters)


def synchronize(device: torch.device) -> None:
    """Wait until everything that was started on a device is done, for timings; the CPU is never behind."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def use_threads(count: int | None) -> int:
    """Make PyTorch compute with this many threads from now on, or with as many as it does; gives their number."""
    if count is not None and count != torch.get_num_threads():
        torch.set_num_threads(count)
    return torch.get_num_threads()


@contextmanager
def threads_restored() -> Iterator[None]:
    """The number of threads after the block is that before it."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        use_threads(before)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed PyTorch's generators of the CPU and of a device; `torch.manual_seed` seeds those of all devices."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        with current_on(device):
            torch.get_device_module(device).manual_seed(seed)


@contextmanager
def generators_restored(device: torch.device) -> Iterator[None]:
    """PyTorch's generators of the CPU and of a device are after the block as before it."""
    with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=device.type):
        yield


def describe_machine(device: torch.device) -> dict[str, str]:
    """What a bit-identical repetition of a run needs: processor, accelerator, operating system and versions."""
    accelerator = {} if device.type == "cpu" else {"accelerator": device_name(device)}
    openvino = f", OpenVINO {version('openvino')}" if find_spec("openvino") else ""
    return {
        "machine": f"{_processor()}, {count(worker_count(), 'core')}",
        **accelerator,
        "system": f"{platform.system()} {platform.release()}",
        "versions": f"Python {platform.python_version()}, PyTorch {torch.__version__}{openvino}",
    }


def _processor() -> str:
    """The model name of the processor, which Python does not know on Linux."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8", errors="replace").splitlines() if facts.is_file() else []
    names = [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"]
    return names[0] if names else device_name(CPU)


def keep_freed_memory() -> None:
    """Make this process keep memory that it has freed, for the next step; does nothing but on Linux with glibc.

    glibc returns large blocks to the kernel at once, and every step then waits for the kernel to clear the same pages
    again (bench/thawed_step.py measures the gain).
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _TOP_PAD)):
        mallopt(parameter, value)
