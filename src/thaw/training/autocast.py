"""The number format of a training step: autocast, except for layers that oneDNN computes slowly in bf16."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from thaw.features.torch_runner import Precision, autocast


@contextmanager
def training_autocast(device: torch.device, precision: Precision) -> Iterator[None]:
    """The context of a step's forward pass; the backward pass uses the formats that are chosen here."""
    with autocast(device, precision):
        if device.type == "cpu" and precision == "bf16":
            with _SlowDepthwiseInFp32():
                yield
        else:
            yield


class _SlowDepthwiseInFp32(TorchFunctionMode):
    """Computes depthwise convolutions with a stride or a kernel above 3 in fp32, and casts their output to bf16.

    oneDNN 3.x takes 51 ms in bf16 and 0.4 ms in fp32 for the input gradient of MobileNetV2's last strided depthwise
    layer (576 channels, 14 x 14, batch 32; EPYC with avx512_bf16), and 25 ms against 8 ms for the weight gradient of a
    5 x 5 one. One such layer took half of the step. All other layers are faster in bf16.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d and not kwargs and _is_slow_in_bf16(*args):
            inputs, weight, bias, *rest = args
            with torch.autocast("cpu", enabled=False):
                outputs = func(inputs.float(), weight.float(), None if bias is None else bias.float(), *rest)
                return outputs.to(torch.bfloat16)
        return func(*args, **(kwargs or {}))


def _is_slow_in_bf16(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    """Whether these arguments of `torch.conv2d` are a depthwise convolution with a stride or a kernel above 3."""
    strides = stride if isinstance(stride, tuple | list) else (stride,)
    return weight.shape[1] == 1 and groups == inputs.shape[1] > 1 and (max(strides) > 1 or max(weight.shape[2:]) > 3)
