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
from openvino.passes import ConstantFolding, Manager  # noqa: E402

__all__ = [
    "UNPINNED",
    "ConstantFolding",
    "FrontEndManager",
    "Manager",
    "TorchScriptPythonDecoder",
    "openvino",
    "properties",
]

UNPINNED = {properties.hint.enable_cpu_pinning: False}
"""Lets the system choose the cores of OpenVINO's threads. It pins them to the first ones otherwise, which are the same
for every process: two with a thread each then share one core (MobileNetV2 on two cores: 61 images/s each, unpinned 114;
alone 134 either way)."""
