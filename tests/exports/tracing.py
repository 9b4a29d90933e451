"""Exports of one bundle that share what does not depend on the target."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from thaw.classifier.classifier import Classifier
from thaw.exports import export, onnx_target
from thaw.exports.deployment import Deployment, deployment_of


@contextmanager
def traced_once() -> Iterator[None]:
    """Every bundle is traced once with branches and once without, and each graph converted to ONNX once.

    Both take seconds even for the smallest network, and give the same for every target.
    """
    graphs: dict[tuple[Path, bool], Deployment] = {}
    models: dict[int, Any] = {}
    convert = onnx_target.model_of

    def traced(classifier: Classifier, bundle: Path, supports_branches: bool) -> Deployment:
        key = (bundle, supports_branches)
        if key not in graphs:
            graphs[key] = deployment_of(classifier, bundle, supports_branches)
        return graphs[key]

    def converted(deployment: Deployment) -> Any:
        if id(deployment) not in models:
            models[id(deployment)] = convert(deployment)
        return models[id(deployment)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "deployment_of", traced)
        patch.setattr(onnx_target, "model_of", converted)
        yield
