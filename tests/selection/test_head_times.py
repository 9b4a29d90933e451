"""Whether there is time for heads, which is asked of many classes only."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from thaw.selection import head_times
from thaw.selection.head_times import HeadTimes
from thaw.selection.sample import Sample


def times(classes: int, seconds: float) -> HeadTimes:
    rows = np.arange(5 * classes)
    return HeadTimes.of(Sample(rows, rows % classes, rows), 1280, "multiclass", seconds)


def test_heads_of_up_to_200_classes_are_fitted_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(head_times, "predicted_seconds")
    found = times(200, seconds=0.0)
    assert found.budget.seconds == inf and found.seconds(5, 1280) == 0.0
    assert found.allow("head.features", found.seconds(5, 1280)) and not found.left_out


def test_heads_of_many_classes_need_time_by_their_images_features_and_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_times, "predicted_seconds", lambda *shape: 20.0)
    found = times(600, seconds=50.0)
    # There are no more directions than images.
    assert found.seconds(1, 1280) == pytest.approx(20.0)
    assert found.seconds(2, 1280, 9999) == pytest.approx(2 * 20.0 * (1 + 3000 / 1280))
    assert found.allow("head.features", found.seconds(1, 1280, 1280))
    assert not found.allow("class_weights", found.seconds(1, 1280, 2560)) and found.left_out == ["class_weights"]
