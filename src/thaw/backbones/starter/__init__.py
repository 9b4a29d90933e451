"""The backbone that travels with the package: pre-trained features with nothing to download.

Made by `pretraining/`; MODEL_CARD.md beside this file says from what, and how good it is.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from thaw.errors import WeightsError

NAME = "starter"
ARCHITECTURE = "mobilenetv2_100"
LICENSE = "apache-2.0"
SOURCE = "bundled"
SHA256 = "f828aba4b26ceac1ac1cbe514227952f3b8ff21c8c74de75f04f78222518f072"

FILE = Path(__file__).with_name("starter.safetensors")


def bundled_weights() -> Path:
    """The weights file, once its SHA-256 is the one that belongs to this version; raises `WeightsError`."""
    try:
        content = FILE.read_bytes()
    except OSError as error:
        raise WeightsError(f"{FILE}: the weights that come with Thaw are not there; install Thaw again") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise WeightsError(f"{FILE}: the weights that come with Thaw are damaged; install Thaw again")
    return FILE
