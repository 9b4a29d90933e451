"""What the machine is and what it can do: the facts above every table. Needs torch.

python -m bench.versus.machine
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import torch

SIZE, SECONDS = 2048, 2.0


def cpu_name() -> str:
    """The model name from /proc/cpuinfo."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def cpu_flags() -> list[str]:
    """The vector and low-precision instruction sets of the CPU."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
            return [flag for flag in wanted if flag in line.split()]
    return []


def teraflops(dtype: torch.dtype) -> float:
    """Peak throughput of a square matrix product."""
    left, right = torch.randn(SIZE, SIZE).to(dtype), torch.randn(SIZE, SIZE).to(dtype)
    torch.mm(left, right)
    best, over = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < over:
        started = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - started)
    return 2 * SIZE**3 / best / 1e12


def facts() -> dict[str, object]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu_name(),
        "flags": cpu_flags(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "fp32_tflops": round(teraflops(torch.float32), 3),
        "bf16_tflops": round(teraflops(torch.bfloat16), 3),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 2),
    }


if __name__ == "__main__":
    print(json.dumps(facts()))
