"""OpenVINO without its usage statistics; the only module that imports it.

Importing `openvino` starts a process that reports to Google Analytics and leaves a client id in the home folder.
It does neither where its package `openvino_telemetry` cannot be imported.
"""

from __future__ import annotations

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import properties  # noqa: E402
from openvino.frontend import FrontEndManager  # noqa: E402
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: E402

__all__ = ["FrontEndManager", "TorchScriptPythonDecoder", "openvino", "properties"]
