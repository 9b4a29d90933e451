"""Speeds: how often something runs in a second, what the device could do, and what a network costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from thaw.device import synchronize

_WARM_UP, _GROUP = 3, 5


def calls_per_second(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Calls per second, the median of groups of calls that take `seconds` together; the first calls do not count."""
    for _ in range(_WARM_UP):
        call()
    synchronize(device)
    rates: list[float] = []
    ends = perf_counter() + seconds
    while perf_counter() < ends or not rates:
        started = perf_counter()
        for _ in range(_GROUP):
            call()
        synchronize(device)
        rates.append(_GROUP / (perf_counter() - started))
    return sorted(rates)[len(rates) // 2]


def peak_flops(device: torch.device, seconds: float) -> float:
    """FLOP/s of one large matrix product in bf16 on random data."""
    side = 8192 if device.type != "cpu" else 512
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 * calls_per_second(partial(torch.mm, left, right), device, seconds)


def forward_flops(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiplications and additions of one forward pass of one input of this shape, on the network's device."""
    parameter = next(network.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *shape, device=parameter.device))
    return counter.get_total_flops()
