"""What of its machine one of several processes uses: its own GPU, or its own cores."""

from __future__ import annotations

import os
import sys

import numpy as np
import torch

from thaw.cores import worker_count
from thaw.device import use_threads
from thaw.errors import RecipeError
from thaw.processes import Process


def use_own_part(process: Process, device: str) -> None:
    """Compute on this process's own GPU where the device of a recipe is one, and with its own cores and threads.

    Raises:
        RecipeError: The machine has fewer GPUs than processes.
    """
    if process.count == 1:
        return
    # Without torchrun nobody says how many of the processes are on this machine.
    here = int(os.environ.get("LOCAL_WORLD_SIZE", process.count))
    index = int(os.environ.get("LOCAL_RANK", process.rank))
    _use_own_gpu(index, here, device)
    use_own_cores(index, here)


def more_devices(device: str) -> str:
    """How to use all GPUs of this machine, where there are several and one process would use one; else empty."""
    gpus = torch.accelerator.device_count()
    if gpus < 2 or device == "cpu" or ":" in device:
        return ""
    return f"this machine has {gpus} GPUs, and one process uses one of them: --processes auto uses all"


def _use_own_gpu(index: int, here: int, device: str) -> None:
    gpus = torch.accelerator.device_count()
    if device == "cpu" or (device == "auto" and not gpus):
        return
    if ":" in device:
        kind = device.partition(":")[0]
        raise RecipeError(f"device: {device} is a single one, but each of {here} processes needs its own; set {kind}")
    if here > gpus:
        found, remedy = (f"{gpus}", f"start {gpus}, or set") if gpus else ("none", "set")
        raise RecipeError(f"{here} processes need as many GPUs, but this machine has {found}; {remedy} device: cpu")
    torch.accelerator.set_device_index(index)


def use_own_cores(index: int, here: int) -> None:
    """Stay on the cores of process `index` of the `here` processes of this machine.

    Engines that bind their threads to cores would all choose the same ones.
    """
    if sys.platform != "linux":
        use_threads(max(1, worker_count() // here))
        return
    cores = sorted(os.sched_getaffinity(0))
    own = np.array_split(cores, here)[index].tolist() if here <= len(cores) else [cores[index % len(cores)]]
    os.sched_setaffinity(0, own)
    use_threads(min(len(own), worker_count()))
