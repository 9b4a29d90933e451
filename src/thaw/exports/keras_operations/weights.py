"""Layers with weights: convolutions, linear layers and norms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from thaw.exports.keras_graph import CHANNELS_LAST, MAPS_LAST, Call, Constant, Ints, Value, pair


def _tensor(constant: Constant | None) -> Tensor | None:
    return None if constant is None else constant.tensor


def _required(constant: Any) -> Tensor:
    if not isinstance(constant, Constant):
        raise NotImplementedError("its weights depend on the images")
    return constant.tensor


def _conv2d(
    call: Call,
    x: Value,
    weight: Constant,
    bias: Constant | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> Value:
    x, kernel = call.maps(x), _required(weight)
    strides, dilations, size = pair(stride), pair(dilation), (int(kernel.shape[2]), int(kernel.shape[3]))
    reach = [d * (k - 1) for d, k in zip(dilations, size, strict=True)]
    if padding == "same":
        pads = [(total // 2, total - total // 2) for total in reach]
    else:
        pads = [(side, side) for side in ((0, 0) if padding == "valid" else pair(padding))]  # type: ignore[arg-type]
    is_same = strides == (1, 1) and all((r // 2, r - r // 2) == pad for r, pad in zip(reach, pads, strict=True))
    inputs = x.tensor if is_same else call.zero_padded(x.tensor, pads)
    settings: Any = {
        "kernel_size": size,
        "strides": strides,
        "dilation_rate": dilations,
        "padding": "same" if is_same and any(reach) else "valid",
        "use_bias": bias is not None,
        **CHANNELS_LAST,
    }
    outputs, inputs_per_group = int(kernel.shape[0]), int(kernel.shape[1])
    if groups > 1 and inputs_per_group == 1 and strides[0] == strides[1]:
        # The outputs of one input channel are neighbours in PyTorch, and the last axis of the kernel in Keras.
        depthwise = kernel.unflatten(0, (groups, -1))[:, :, 0].permute(2, 3, 0, 1)
        weights = [depthwise, _tensor(bias)]
        tensor = call.layer("DepthwiseConv2D", inputs, weights, depth_multiplier=outputs // groups, **settings)
    else:
        weights = [kernel.permute(2, 3, 1, 0), _tensor(bias)]
        tensor = call.layer("Conv2D", inputs, weights, filters=outputs, groups=groups, **settings)
    return Value(tensor, MAPS_LAST)


def _linear(call: Call, x: Value, weight: Constant, bias: Constant | None = None) -> Value:
    x, kernel = _last_dim_last(call, x), _required(weight)
    weights = [kernel.T, _tensor(bias)]
    tensor = call.layer("Dense", x.tensor, weights, units=int(kernel.shape[0]), use_bias=bias is not None)
    return Value(tensor, x.axes)


def _last_dim_last(call: Call, x: Value) -> Value:
    """A value whose last axis of PyTorch is also Keras' last."""
    return x if x.axes[-1] == len(x.axes) - 1 else call.in_order(x)


def _batch_norm(
    call: Call,
    x: Value,
    weight: Constant | None,
    bias: Constant | None,
    mean: Constant | None,
    variance: Constant | None,
    training: bool,
    momentum: float | None,
    eps: float,
    cudnn_enabled: bool = True,
) -> Value:
    if training:
        raise NotImplementedError("it normalises with the statistics of the batch")
    tensor = call.layer(
        "BatchNormalization",
        x.tensor,
        [_tensor(weight), _tensor(bias), _required(mean), _required(variance)],
        momentum=1.0 - momentum if momentum is not None else 0.99,
        **_norm_settings(x.axes[1], weight, bias, eps),
    )
    return Value(tensor, x.axes)


def _norm_settings(axis: int, weight: Constant | None, bias: Constant | None, eps: float) -> dict[str, Any]:
    return {"axis": axis, "epsilon": eps, "scale": weight is not None, "center": bias is not None}


def _layer_norm(
    call: Call,
    x: Value,
    shape: Sequence[int],
    weight: Constant | None = None,
    bias: Constant | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Value:
    if len(shape) != 1:
        raise NotImplementedError("it normalises over several axes")
    weights = [_tensor(weight), _tensor(bias)]
    settings = _norm_settings(x.axes[-1], weight, bias, eps)
    return Value(call.layer("LayerNormalization", x.tensor, weights, **settings), x.axes)


def _group_norm(
    call: Call,
    x: Value,
    groups: int,
    weight: Constant | None = None,
    bias: Constant | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Value:
    weights = [_tensor(weight), _tensor(bias)]
    settings = _norm_settings(x.axes[1], weight, bias, eps)
    return Value(call.layer("GroupNormalization", x.tensor, weights, groups=groups, **settings), x.axes)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "batch_norm": _batch_norm,
    "conv2d": _conv2d,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "linear": _linear,
}
