"""One view of all images as features: what is read of the cache, and what stays in it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from thaw.backbones.timm_backbone import build
from thaw.data.augment import Augmentation
from thaw.features.cache import CachedFeatures, FeatureCache
from thaw.features.engines import FrozenPart
from thaw.features.pooled import features_of_view
from thaw.features.view_request import ViewRequest
from thaw.recipe import PreprocessingSettings

IMAGES, SIZE = 5, 32


@pytest.fixture(scope="module")
def frozen() -> FrozenPart:
    backbone = build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=SIZE), "avg", 0)
    return FrozenPart(backbone, torch.device("cpu"), "pytorch-fp32")


def features(frozen: FrozenPart, cache: FeatureCache, chosen: np.ndarray | None = None) -> np.ndarray:
    stored = np.random.default_rng(0).integers(0, 256, size=(IMAGES, 40, 40, 3), dtype=np.uint8)
    pixels: Any = SimpleNamespace(key="pixels", spec=frozen.backbone.facts.pixels, read=stored.__getitem__)
    request = ViewRequest(pixels, np.arange(IMAGES), 1, Augmentation(), seed=3)
    return features_of_view(request, frozen, cache, lambda *_: None, chosen)


def test_only_the_chosen_rows_are_read(frozen: FrozenPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, read = FeatureCache(tmp_path, "float16"), []
    whole, batch = features(frozen, cache), CachedFeatures.batch
    monkeypatch.setattr(
        CachedFeatures, "batch", lambda self, rows, views: read.append(rows) or batch(self, rows, views)
    )
    np.testing.assert_array_equal(features(frozen, cache, np.array([1, 4])), whole[[1, 4]])
    assert [rows.tolist() for rows in read] == [[1, 4]]


def test_features_make_room_in_the_budget_of_the_cache(frozen: FrozenPart, tmp_path: Path) -> None:
    old = tmp_path / "features" / "old"
    old.mkdir(parents=True)
    (old / "features.bin").write_bytes(bytes(10_000))
    (old / "seal.json").write_text("{}")
    features(frozen, FeatureCache(tmp_path, "float16", budget=10_000))
    assert not old.exists()


def test_a_budget_of_nothing_leaves_nothing_in_the_cache(frozen: FrozenPart, tmp_path: Path) -> None:
    found = features(frozen, FeatureCache(tmp_path / "none", "float16", budget=0))
    np.testing.assert_array_equal(found, features(frozen, FeatureCache(tmp_path / "some", "float16")))
    assert not any((tmp_path / "none" / "features").iterdir())
