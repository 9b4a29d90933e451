"""What is measured on this machine before anything is planned."""

from __future__ import annotations

from math import inf

import pytest

from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier, new_head, outputs_of
from thaw.planning.measuring import solving_rate
from thaw.recipe import DecodeSettings, PreprocessingSettings, Task


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_products_of_a_head_are_timed_for_many_outputs_only(task: Task) -> None:
    backbone = build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=32))

    def rate(classes: int) -> float:
        names = [f"class {number}" for number in range(classes)]
        head = new_head(backbone, outputs_of(task, names))
        return solving_rate(Classifier(backbone, head, names, task, DecodeSettings()))

    assert rate(200) == inf
    assert 1e7 < rate(201) < 1e15
