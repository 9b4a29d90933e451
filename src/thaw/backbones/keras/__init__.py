"""Networks of Keras as data: their graph, rebuilt from native PyTorch modules; Keras itself does not run them."""

from __future__ import annotations

PREFIX = "keras:"
"""How the names of networks of `keras.applications` begin."""

_SUFFIXES = (".keras", ".h5", ".hdf5")


def is_application(backbone: str) -> bool:
    """Whether the name of a backbone is that of a network of `keras.applications`."""
    return backbone.lower().startswith(PREFIX)


def is_of_keras(backbone: str) -> bool:
    """Whether the name of a backbone is that of a network of `keras.applications` or of a file with a Keras model."""
    return is_application(backbone) or backbone.lower().endswith(_SUFFIXES)
