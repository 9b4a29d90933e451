"""What the GPU can do without Thaw: compiled training steps and forward passes on one resident batch of random data.

bf16 autocast and channels_last, as Thaw trains. MFU is three forward passes of the network per image against the
fastest matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import timm
import torch
from torch import Tensor, nn

from bench.gpu.images import CLASSES
from bench.gpu.setup import Setup, Sizes
from bench.gpu.table import Row, speed
from bench.gpu.timing import calls_per_second, forward_flops, peak_flops
from thaw.features.passes import BATCH
from thaw.features.torch_runner import autocast


class TrainingStep:
    """A step of AdamW on random inputs (N, C, H, W) that stay on the device."""

    def __init__(self, network: nn.Module, inputs: Tensor, model: Any = None) -> None:
        self._model, self._inputs = network if model is None else model, inputs
        self._targets = torch.randint(len(CLASSES), (len(inputs),), device=inputs.device)
        self._optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=inputs.is_cuda)

    def __call__(self) -> None:
        with autocast(self._inputs.device, "bf16"):
            logits = self._model(self._inputs)
        self._optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(logits.float(), self._targets).backward()
        self._optimizer.step()


class Top(nn.Module):
    """What lies above the cut `layer4` of a ResNet of timm."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.parts = nn.Sequential(network.layer4, network.global_pool, network.fc)

    def forward(self, maps: Tensor) -> Tensor:
        return self.parts(maps)


def resnet(setup: Setup) -> Any:
    """The ResNet with random weights and a new head, on the device in channels_last."""
    torch.manual_seed(0)
    network: Any = timm.create_model(setup.sizes.network, num_classes=len(CLASSES))
    return network.to(setup.device, memory_format=torch.channels_last).train()


def random_images(setup: Setup, count: int) -> Tensor:
    """Normalised random images (N, 3, S, S) in channels_last."""
    side = setup.sizes.side
    return torch.randn(count, 3, side, side, device=setup.device).contiguous(memory_format=torch.channels_last)


def maps_below_top(setup: Setup, count: int) -> Tensor:
    """Random maps (N, C, h, w) as they lie below `layer4`, in channels_last."""
    network = resnet(setup).eval()
    network.layer4, network.global_pool, network.fc = nn.Identity(), nn.Identity(), nn.Identity()
    with torch.no_grad():
        shape = network(random_images(setup, 1)).shape[1:]
    return torch.rand(count, *shape, device=setup.device).contiguous(memory_format=torch.channels_last)


def whole_steps(setup: Setup) -> Iterator[Row]:
    """Training steps of the whole network."""
    peak, side = peak_flops(setup.device, setup.sizes.seconds / 3), setup.sizes.side
    flops = 3 * forward_flops(resnet(setup).eval(), (3, side, side)) / peak
    yield from _steps(setup, "the whole network", lambda: resnet(setup), random_images, flops)


def top_steps(setup: Setup) -> Iterator[Row]:
    """Training steps of what lies above the cut `layer4`; the input gradient at the cut is not computed."""
    yield from _steps(setup, "layer4 and head", lambda: Top(resnet(setup)), maps_below_top, None)


def _steps(setup: Setup, what: str, make: Any, inputs_of: Any, flops: float | None) -> Iterator[Row]:
    usual, large = setup.sizes.batches
    for batch, compiles in ((usual, False), (large, False), (large, True)):
        network, inputs = make(), inputs_of(setup, batch)
        model = torch.compile(network, dynamic=False, backend=setup.sizes.backend) if compiles else network
        rate = batch * calls_per_second(TrainingStep(network, inputs, model), setup.device, setup.sizes.seconds)
        note = "" if flops is None else f"{rate * flops:.0%} MFU"
        yield speed(f"bare {'compiled' if compiles else 'eager'} step, {what}, batch {batch}", rate, note)
    if setup.device.type == "cuda":
        network, inputs = make(), inputs_of(setup, usual)
        model = torch.compile(network, dynamic=False, mode="reduce-overhead")
        rate = usual * calls_per_second(TrainingStep(network, inputs, model), setup.device, setup.sizes.seconds)
        yield speed(f"bare step in CUDA graphs, {what}, batch {usual}", rate)


def forward_passes(setup: Setup) -> Iterator[Row]:
    """Forward passes of the frozen network up to the pooled features, from uint8 pixels on the device."""
    network = resnet(setup).eval()
    network.fc = nn.Identity()
    for batch in (BATCH, setup.sizes.batches[-1]):
        pixels = _pixels(setup.sizes, batch, setup.device)
        model = torch.compile(network, dynamic=False, backend=setup.sizes.backend)

        def run(pixels: Tensor = pixels, model: Any = model) -> None:
            with torch.no_grad(), autocast(setup.device, "bf16"):
                model((pixels.float() / 127.5 - 1).permute(0, 3, 1, 2))

        rate = batch * calls_per_second(run, setup.device, setup.sizes.seconds)
        yield speed(f"bare compiled forward pass, batch {batch}", rate)


def _pixels(sizes: Sizes, count: int, device: torch.device) -> Tensor:
    return torch.randint(256, (count, sizes.side, sizes.side, 3), dtype=torch.uint8, device=device)
