"""The bundled pre-trained backbone, which needs no download.

Created by `pretraining/`; see MODEL_CARD.md in this folder for its training data and results.
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
    """The weights file, after checking its SHA-256; raises `WeightsError`."""
    try:
        content = FILE.read_bytes()
    except OSError as error:
        raise WeightsError(f"{FILE}: the weights bundled with Thaw are missing; reinstall Thaw") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise WeightsError(f"{FILE}: the weights bundled with Thaw are damaged; reinstall Thaw")
    return FILE
