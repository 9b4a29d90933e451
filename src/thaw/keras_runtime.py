"""Keras 3 on its PyTorch backend; the only module that imports it.

Keras chooses its backend when it is first imported, and then also reads `keras.json` from the user's home folder, or
writes it there. For the length of the import this module chooses PyTorch and an empty folder: what a user has
configured for other programs changes nothing here, and nothing is written to their home folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from thaw.errors import PackageError


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables with these values, and afterwards as they were."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


try:
    import h5py as _h5py  # noqa: F401  # Keras imports it only when it reads or writes weights.

    if "keras" in sys.modules:
        import keras
    else:
        with TemporaryDirectory() as home, _environment({"KERAS_BACKEND": "torch", "KERAS_HOME": home}):
            import keras
except ModuleNotFoundError as error:
    raise PackageError(f'Keras models need {error.name}: pip install "thaw-vision[keras]"') from error

if keras.backend.backend() != "torch":
    raise PackageError(
        f"Keras was imported with the backend {keras.backend.backend()}, but Thaw needs torch: set KERAS_BACKEND=torch "
        "before Keras is imported, or use Thaw in a process of its own"
    )

__all__ = ["keras"]
