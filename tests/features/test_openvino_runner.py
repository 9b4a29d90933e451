"""How OpenVINO runs the frozen part on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, torch
from thaw.backbones.timm_backbone import build
from thaw.features.openvino_runner import OpenVinoRunner
from thaw.recipe import PreprocessingSettings

torch.set_num_threads(1)
cores = os.sched_getaffinity(0)
backbone = build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=64), "avg", 0)
runner = OpenVinoRunner(backbone, [backbone.head_position], "fp32", 64)
assert len(runner.run(torch.zeros(9, 64, 64, 3, dtype=torch.uint8))[0].values) == 9
threads = [int(thread) for thread in os.listdir("/proc/self/task")]
assert len(threads) > 1
pinned = [thread for thread in threads if os.sched_getaffinity(thread) != cores]
assert not pinned, f"{len(pinned)} of {len(threads)} threads may not run on every core"
"""


@pytest.mark.skipif(sys.platform != "linux" or (os.cpu_count() or 1) < 2, reason="needs Linux and two cores")
def test_threads_may_run_on_every_core_so_that_processes_do_not_share_the_first() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
