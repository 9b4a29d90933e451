"""Cached features on a device; the CPU is a device too."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.features.test_cache import KEY, fill, keys_of
from tests.features.test_cache import cache as cache
from thaw import device
from thaw.device import CPU
from thaw.features import device_features as module
from thaw.features.cache import CachedFeatures, FeatureCache
from thaw.features.device_features import DeviceFeatures, device_features
from thaw.features.encoding import CacheDtype

ROWS, VIEWS = 5, 3


def cached(cache: FeatureCache, shape: tuple[int, ...], stages: int, dtype: CacheDtype = "float16") -> CachedFeatures:
    """The first two of three views of five images."""
    draws = torch.Generator().manual_seed(0)
    values = torch.randn(ROWS * VIEWS, *shape, generator=draws)
    key = replace(KEY, dtype=dtype)
    fill(cache, values, key, VIEWS, torch.randn(ROWS * VIEWS, stages, generator=draws))
    found = cache.open(keys_of(key, VIEWS - 1))
    assert found is not None
    return found


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("shape", "stages"), [((6,), 0), ((6,), 4), ((6, 2, 3), 4)])
@pytest.mark.parametrize("chunk", [1, module._CHUNK])
def test_features_on_the_device_are_those_that_are_read_batch_by_batch(
    dtype: CacheDtype,
    shape: tuple[int, ...],
    stages: int,
    chunk: int,
    cache: FeatureCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    features = cached(cache, shape, stages, dtype).part(1, 4)
    rows, views = np.array([2, 0, 1, 2]), np.array([1, 0, 1, 0])
    expected = features.batch(rows, views).to(CPU)
    on_device = DeviceFeatures.of(features, CPU)
    assert on_device.values.shape[:2] == (3, VIEWS - 1)
    for found, part in zip(on_device.batch(rows, views), expected, strict=True):
        assert torch.equal(found, part) and found.dtype == torch.float32


def test_features_stay_on_an_accelerator_where_they_fit(cache: FeatureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    features, accelerator = cached(cache, (6, 2, 3), 4), torch.device("meta")
    needed = ROWS * (VIEWS - 1) * (36 + 4) * 2
    for free, fits in ((needed / device.SHARE, True), (needed / device.SHARE - 10, False), (0, False)):
        monkeypatch.setattr(device, "free_bytes", lambda _, free=free: free)
        assert (device_features(features, accelerator) is not None) == fits
    monkeypatch.setattr(device, "free_bytes", lambda _: 1 << 40)
    assert device_features(features, CPU) is None
    assert device_features(cached(cache, (6, 2, 3), 4, "uint8"), accelerator) is None
