"""ONNX Runtime without its usage statistics; the only module that imports it.

Since release 1.29 it reports to Microsoft on every system and keeps a device id in the user's cache folder, unless
`ORT_DISABLE_TELEMETRY` is set before it is loaded; on Windows, which ignores that, a call stops it.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime
from onnxruntime import quantization

onnxruntime.disable_telemetry_events()

__all__ = ["onnxruntime", "quantization"]
