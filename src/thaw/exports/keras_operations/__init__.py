"""For each ATen operation of a network, the Keras layer that does the same.

Functions of `keras.ops` are used only where there is no layer. Settings that Keras cannot express are refused with a
`NotImplementedError`, which becomes an `ExportError` that names the operation.
"""

from __future__ import annotations

from thaw.exports.keras_operations import activations, arithmetic, pooling, shapes, weights

OPERATIONS = {
    **weights.OPERATIONS,
    **activations.OPERATIONS,
    **arithmetic.OPERATIONS,
    **pooling.OPERATIONS,
    **shapes.OPERATIONS,
}
"""For each ATen operation, also where it works in place, the function that builds its counterpart."""
