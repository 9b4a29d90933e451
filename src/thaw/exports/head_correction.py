"""The last layer of an int8 model, corrected so that its logits are those of the fp32 model on some images.

No labels are used: with a hundred images they would say less than the fp32 model does, and calibrated probabilities
stay calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from thaw.exports.onnx_graph import last_layer, replace_values, stored_tensors

PENALTIES = tuple(10.0 ** (half / 2) for half in range(-6, 7))
"""The L2 penalties that are tried, in units of the mean variance of the features."""


@dataclass(frozen=True)
class Linear:
    """Weights (outputs, width) and bias (outputs,) of a linear layer."""

    weights: np.ndarray
    bias: np.ndarray


def correct_head(model: Any, features: np.ndarray, logits: np.ndarray) -> None:
    """Correct the last layer in place.

    Args:
        model: The int8 model as `onnx.ModelProto`, whose last layer is in float32.
        features: What the last layer takes in the int8 model, (N, width).
        logits: What the fp32 model gives for the same images, (N, outputs).
    """
    from onnx import numpy_helper

    tensors = stored_tensors(model)
    # PyTorch stores the weights of a linear layer as (outputs, width), and the exporter leaves them as they are.
    weights, bias = (tensors[name] for name in last_layer(model).input[1:])
    layer = Linear(*(numpy_helper.to_array(tensor).astype(np.float64) for tensor in (weights, bias)))
    corrected = corrected_layer(layer, features.astype(np.float64), logits.astype(np.float64))
    for tensor, values in ((weights, corrected.weights), (bias, corrected.bias)):
        replace_values(tensor, values)


def corrected_layer(layer: Linear, features: np.ndarray, logits: np.ndarray) -> Linear:
    """The layer plus a ridge regression of what is missing from the logits.

    The penalty is that with the lowest leave-one-out error, which has a closed form; one that shrinks the weights to
    nothing, and so corrects the bias alone, is among them.

    Args:
        layer: The layer to correct.
        features: (N, width).
        logits: What the layer should give, (N, outputs).
    """
    missing = logits - features @ layer.weights.T - layer.bias
    mean, offset = features.mean(axis=0), missing.mean(axis=0)
    centred, rest = features - mean, missing - offset
    eigenvalues, vectors = np.linalg.eigh(centred @ centred.T)
    eigenvalues, projected = eigenvalues.clip(0.0), vectors.T @ rest
    unit = eigenvalues.mean()
    change, lowest = np.zeros_like(layer.weights), np.inf
    for penalty in (np.inf, *PENALTIES) if unit > 0.0 else ():
        inverse = 1.0 / (eigenvalues + penalty * unit)
        leverage = np.square(vectors) @ (eigenvalues * inverse) + 1.0 / len(features)
        left_out = (rest - vectors @ ((eigenvalues * inverse)[:, None] * projected)) / (1.0 - leverage)[:, None]
        if (error := float(np.square(left_out).mean())) < lowest:
            lowest, change = error, (centred.T @ (vectors @ (inverse[:, None] * projected))).T
    return Linear(layer.weights + change, layer.bias + offset - change @ mean)
