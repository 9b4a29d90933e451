"""How one view's features are encoded on disk: half or single precision, or eight bits with a scale per channel."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

CacheDtype = Literal["float32", "float16", "uint8"]

LEVELS = 255
_FLOAT_TYPES: dict[CacheDtype, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}


def encode(features: Tensor, dtype: CacheDtype) -> memoryview | bytes:
    """The bytes of features (N, H, W, C) or (N, C).

    Pooled features (N, C) are so small that uint8 keeps them in float16.

    Raises:
        OverflowError: `dtype` cannot represent a value.
    """
    if dtype == "uint8" and features.ndim == 4:
        values = features.float().cpu().numpy()
        if not np.isfinite(values).all():
            raise OverflowError("features are not finite")
        return quantise(values).tobytes()
    stored = features.to(_FLOAT_TYPES.get(dtype, torch.float16)).cpu().contiguous()
    if not torch.isfinite(stored).all():
        raise OverflowError(f"features exceed {dtype}")
    return stored.numpy().data.cast("B")


def decode(items: np.ndarray) -> Tensor:
    """Features (N, H, W, C) or (N, C), float16 or float32, of items (N, ...) as `item_type` describes them."""
    return torch.from_numpy(items) if items.dtype.names is None else dequantise(items)


def item_type(dtype: CacheDtype, shape: tuple[int, ...]) -> tuple[np.dtype, tuple[int, ...]]:
    """NumPy dtype and shape of one encoded view of features (H, W, C) or (C,)."""
    if dtype == "uint8" and len(shape) == 3:
        return quantised_type(shape), ()
    return np.dtype("float16" if dtype == "uint8" else dtype), shape


def encoded_bytes(shape: tuple[int, ...], dtype: CacheDtype) -> int:
    """Bytes of one view of features (C, H, W) or (C,)."""
    if dtype == "uint8" and len(shape) == 3:
        return int(np.prod(shape)) + 8 * shape[0]
    return int(np.prod(shape)) * (4 if dtype == "float32" else 2)


def quantised_type(shape: tuple[int, ...]) -> np.dtype:
    """One view in eight bits: levels (H, W, C) uint8, and per channel the minimum and the step, float32."""
    return np.dtype([("levels", "u1", shape), ("least", "f4", shape[-1:]), ("step", "f4", shape[-1:])])


def quantise(values: np.ndarray) -> np.ndarray:
    """Features (N, H, W, C) float32 as (N,) of `quantised_type`; the error is at most half a step of the channel."""
    least = values.min(axis=(1, 2))
    step = (values.max(axis=(1, 2)) - least) / LEVELS
    scaled = (values - least[:, None, None]) / np.where(step > 0, step, 1)[:, None, None]
    items = np.empty(len(values), quantised_type(values.shape[1:]))
    items["levels"], items["least"], items["step"] = np.rint(scaled), least, step
    return items


def dequantise(items: np.ndarray) -> Tensor:
    """Features (N, H, W, C) float32 of (N,) of `quantised_type`."""
    levels = torch.from_numpy(np.ascontiguousarray(items["levels"])).float()
    step, least = (torch.from_numpy(items[name].copy())[:, None, None] for name in ("step", "least"))
    return levels.mul_(step).add_(least)
