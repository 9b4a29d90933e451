"""Weights of convolutions rounded for int8 so that their outputs change least, given what the convolutions see.

Rounding each weight to the nearest of 255 values is not best for the sum that a convolution computes. Neighbouring
pixels are alike, so the errors of the nine weights of a depthwise convolution should cancel; rounded to nearest, they
add up. In Thaw's starter, nearest rounding of these weights alone changes the features by 6.1 % of their variance, and
rounding here by 0.04 % (80 images). The objective is that of Nagel et al., "Up or Down? Adaptive Rounding for
Post-Training Quantization", 2020; for a kernel this small it can be lowered directly. The mean by which rounding shifts
an output is subtracted from the bias, in every convolution (Nagel et al., "Data-Free Quantization through Weight
Equalization and Bias Correction", 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEVELS = 127
"""The largest absolute value of a weight in int8."""

SEVEN_BIT_LEVELS = 64
"""The same where products are summed over inputs: x86 CPUs without VNNI add two of them in 16 bits and clip the sum,
and 2 * 64 * 255 fits."""


MAX_PATCHES = 1_000
"""About how many patches of an image are looked at, evenly spaced: neighbouring ones are alike."""


@dataclass(frozen=True)
class InputStatistics:
    """What a convolution sees: for each of its G groups, patches of D values.

    mean: (G, D). covariance: (G, D, D); `None` where it is not depthwise.
    """

    mean: np.ndarray
    covariance: np.ndarray | None


@dataclass(frozen=True)
class Convolution:
    """The shape of a convolution.

    Attributes:
        weights: Shape of its weights, (outputs, inputs per group, height, width).
        padding: Added left, right, above and below.
        stride: Vertical and horizontal.
        dilation: Vertical and horizontal.
        groups: Number of groups.
    """

    weights: tuple[int, ...]
    padding: tuple[int, int, int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


class PatchStatistics:
    """Sums over the patches that one convolution sees, batch by batch."""

    def __init__(self, convolution: Convolution) -> None:
        self._convolution = convolution
        self._is_depthwise = is_depthwise(convolution.weights)
        self._patches = 0
        self._sum: Any = 0.0
        self._products: Any = 0.0

    def add(self, inputs: Tensor) -> None:
        """Add the inputs (N, C, H, W) that the convolution has for some images."""
        convolution = self._convolution
        patches = torch.nn.functional.pad(inputs, convolution.padding)
        for axis, kernel, stride, dilation in zip(
            (2, 3), convolution.weights[2:], convolution.stride, convolution.dilation, strict=True
        ):
            patches = patches.unfold(axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
        # A view (N, C, rows, columns, kernel height, kernel width).
        every = max(1, round((patches.shape[2] * patches.shape[3] / MAX_PATCHES) ** 0.5))
        patches = patches[:, :, ::every, ::every]
        self._patches += len(patches) * patches.shape[2] * patches.shape[3]
        self._sum = self._sum + patches.sum(dim=(0, 2, 3)).view(convolution.groups, -1).double()
        if self._is_depthwise:
            columns = patches.permute(1, 4, 5, 0, 2, 3).reshape(*self._sum.shape, -1)
            self._products = self._products + (columns @ columns.transpose(1, 2)).double()

    def statistics(self) -> InputStatistics:
        """Mean and covariance over all patches so far."""
        mean = self._sum / self._patches
        if not self._is_depthwise:
            return InputStatistics(mean.numpy(), None)
        covariance = self._products / self._patches - mean[:, :, None] * mean[:, None, :]
        return InputStatistics(mean.numpy(), covariance.numpy())


def is_depthwise(weights: Sequence[int]) -> bool:
    """Whether a convolution with weights (outputs, inputs per group, height, width) has one input in each group."""
    return weights[1] == 1


def levels_of(weights: Sequence[int]) -> int:
    """The largest absolute value of a weight of a convolution on x86 CPUs."""
    return LEVELS if is_depthwise(weights) else SEVEN_BIT_LEVELS


def scale_of_rows(weights: np.ndarray, levels: int = LEVELS) -> np.ndarray:
    """The scale (O,) with which the largest weight of each row of (O, ...) is `levels`."""
    scale = np.abs(weights).reshape(len(weights), -1).max(axis=1) / levels
    return np.where(scale == 0.0, 1.0, scale)


def rounded_weights(weights: np.ndarray, scale: np.ndarray, seen: InputStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Weights (O, D) rounded to multiples of the scale (O,) of their row, and what that adds to each output's mean."""
    values, group = weights / scale[:, None], np.arange(len(weights)) // (len(weights) // len(seen.mean))
    steps = np.rint(values) if seen.covariance is None else round_together(values, seen.covariance[group])
    rounded = steps * scale[:, None]
    return rounded, ((rounded - weights) * seen.mean[group]).sum(axis=1)


def round_together(values: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Round values up or down so that the variance of the error of each row's weighted sum is small.

    Starts at the nearest integers and moves one value at a time to its other neighbour, in each row the one that lowers
    the variance most, until none does. A value of -127 or 127 stays: the scale of its row follows from it.

    Args:
        values: (O, D), weights in units of the scale, -127..127.
        covariance: (O, D, D), of what each row is multiplied with.

    Returns:
        Integers (O, D) as float.
    """
    lower, rounded = np.floor(values), np.rint(values)
    gradient = np.einsum("oij,oj->oi", covariance, rounded - values)
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    fixed = np.abs(values) > LEVELS - 0.5
    rows = np.arange(len(values))
    # Each move lowers the variance, so this ends; the limit is for rounding errors of equal variances.
    for _ in range(20 * values.shape[1]):
        step = np.where(rounded > lower, -1.0, 1.0)
        change = np.where(fixed, 0.0, 2.0 * step * gradient + variance)
        column = change.argmin(axis=1)
        moves = change[rows, column] < -1e-9 * variance.max(axis=1)
        if not moves.any():
            break
        row, column = rows[moves], column[moves]
        moved = step[row, column]
        rounded[row, column] += moved
        gradient[row] += moved[:, None] * covariance[row, column]
    return rounded
