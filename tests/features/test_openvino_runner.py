"""How OpenVINO runs the frozen part on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, torch
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from thaw.backbones.timm_backbone import build
from thaw.features.openvino_runner import OpenVinoRunner
from thaw.recipe import PreprocessingSettings

torch.set_num_threads(1)
cores = os.sched_getaffinity(0)
backbone = build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=64), "avg", 0)
runner = OpenVinoRunner(backbone, [backbone.head_position], "fp32", 64)
images, seen = torch.zeros(256, 64, 64, 3, dtype=torch.uint8), set()
with ThreadPoolExecutor(1) as pool:
    for _ in range(4):
        running = pool.submit(runner.run, images)
        while not running.done():
            for thread in os.listdir("/proc/self/task"):
                # A thread may have ended in the meantime.
                with suppress(OSError):
                    seen.add(frozenset(os.sched_getaffinity(int(thread))))
        assert len(running.result()[0].values) == len(images)
assert seen == {frozenset(cores)}, f"threads may run on {seen}, and the process on {cores}"
"""


@pytest.mark.skipif(sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="needs Linux and two cores")
def test_threads_may_run_on_every_core_so_that_processes_do_not_share_the_first() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
