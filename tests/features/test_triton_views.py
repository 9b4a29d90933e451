"""The kernels that draw views on a CUDA device, interpreted on the CPU, and compiled for a GPU."""

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tests.data.test_augment import smooth
from tests.features.test_device_views import CropMode, store
from thaw.data.augment import PRESETS
from thaw.device import CPU
from thaw.features import device_views
from thaw.features.device_views import DevicePixels, drawn_by_pytorch

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")

CROP_MODES: tuple[CropMode, ...] = ("center", "squash", "border")


def draw_everything_by_both() -> None:
    """Views of all presets, drawn by the kernels and by PyTorch."""
    from thaw.features.triton_views import drawn_by_triton

    noise = np.random.default_rng(0).integers(0, 256, (20, 70, 3), dtype=np.uint8)
    items = [(image, view) for image in range(3) for view in range(3)]
    for crop_mode in CROP_MODES:
        pixels = DevicePixels.of(store([smooth(40, 36), noise, smooth(1, 5)], crop_mode), CPU)
        for preset, augmentation in PRESETS.items():
            expected = pixels.render(items, augmentation, 3)
            device_views.fastest = lambda device: drawn_by_triton
            found = pixels.render(items, augmentation, 3)
            device_views.fastest = lambda device: drawn_by_pytorch
            assert torch.equal(found, expected), (crop_mode, preset)


def compile_for_a_gpu() -> None:
    """Machine code for compute capability 9.0."""
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from thaw.features import triton_views

    types = {"pixels": "*i32", "starts": "*i64", "sides": "*i32", "numbers": "*fp32", "fill": "*i32", "out": "*u8"}
    types |= {"sums": "*i32", "size": "constexpr", "block": "constexpr"}
    for kernel in (triton_views._warp, triton_views._tone):
        signature = {name: types[name] for name in kernel.arg_names}
        source = ASTSource(kernel, signature, constexprs={"size": 224, "block": 1024})
        assert compile_kernel(source, target=GPUTarget("cuda", 90, 32)).asm["cubin"]


def in_a_process(function: str, **environment: str) -> None:
    """Triton reads its environment when it is imported."""
    code = f"from tests.features.test_triton_views import {function}; {function}()"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, check=True)


def test_views_are_those_that_pytorch_draws() -> None:
    in_a_process("draw_everything_by_both", TRITON_INTERPRET="1")


@pytest.mark.slow
@pytest.mark.ci
def test_the_kernels_compile_for_a_gpu() -> None:
    in_a_process("compile_for_a_gpu")
