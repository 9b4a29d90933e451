"""What the machine is: the facts above every other row."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

from bench.gpu.setup import Setup
from bench.gpu.table import Row
from bench.gpu.timing import peak_flops
from thaw.device import device_name
from thaw.version import __version__

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "openvino")


def describe(setup: Setup) -> Iterator[Row]:
    """Device, driver, versions, and the fastest matrix product."""
    device = setup.device
    yield Row("device", device_name(device), _driver() if device.type == "cuda" else "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    yield Row("machine", f"{os.cpu_count()} cores, {memory:.0f} GB", f"{platform.system()} {platform.release()}")
    versions = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    yield Row("versions", f"Thaw {__version__}, Python {platform.python_version()}", versions)
    peak = peak_flops(device, setup.sizes.seconds / 3)
    yield Row("matrix product in bf16", f"{peak / 1e12:,.2f} TFLOP/s", "8192 x 8192 x 8192 on random data")
    yield Row("convolutions in fp32", "TF32" if torch.backends.cudnn.allow_tf32 else "fp32", "before Thaw is used")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _driver() -> str:
    """Driver and memory, as the tool of the driver says."""
    query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    try:
        return "driver " + subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "nvidia-smi is not there"
