import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from thaw import atomic
from thaw.backbones.stages import AtCut
from thaw.cache import clear
from thaw.errors import WriteError
from thaw.features.cache import FeatureCache, FeatureKey, bytes_of_view
from thaw.features.encoding import CacheDtype

KEY = FeatureKey("pixels", "rows", "none", 0, "backbone", 3, "engine", "float16", 0)


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path, "float16")


def keys_of(key: FeatureKey = KEY, views: int = 2) -> list[FeatureKey]:
    return [replace(key, view=view) for view in range(views)]


def fill(
    cache: FeatureCache,
    features: torch.Tensor,
    key: FeatureKey = KEY,
    views: int = 2,
    stages: torch.Tensor | None = None,
) -> None:
    """Write features (rows * views, ...), row by row, in two batches per view."""
    whole = AtCut.above_nothing(features) if stages is None else AtCut(features, stages)
    for view, each in enumerate(keys_of(key, views)):
        rows = AtCut(*(part[view::views] for part in whole))
        with cache.writing(each) as writer:
            writer.append(AtCut(*(part[:1] for part in rows)))
            writer.append(AtCut(*(part[1:] for part in rows)))


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 2, 3)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_features_are_read_back_by_row_and_view(shape: tuple[int, ...], dtype: CacheDtype, cache: FeatureCache) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    key = replace(KEY, dtype=dtype)
    fill(cache, features, key)
    cached = cache.open(keys_of(key))
    assert cached is not None and (len(cached.rows), cached.views) == (3, 2)
    read, stages = cached.batch(np.array([2, 0]), np.array([1, 0]))
    assert stages.shape == (2, 0)
    assert torch.equal(read, features[[5, 0]].to(read.dtype))


def test_eight_bits_take_half_the_disk_with_an_error_of_at_most_half_a_step_of_each_channel(
    cache: FeatureCache,
) -> None:
    scales = torch.tensor([1e-3, 1, 9, 0, 80])[:, None, None]
    features = torch.randn(6, 5, 7, 7, generator=torch.Generator().manual_seed(0)) * scales
    eight = replace(KEY, dtype="uint8")
    fill(cache, features)
    fill(cache, features, eight)
    cached = cache.open(keys_of(eight))
    assert cached is not None
    read = cached.batch(np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 0, 1])).values
    spread = features.amax(dim=(2, 3)) - features.amin(dim=(2, 3))
    assert ((read - features).abs().amax(dim=(2, 3)) <= spread / 255 / 2 + 1e-6).all()
    sizes = [(cache.folder_of(key) / "features.bin").stat().st_size for key in (KEY, eight)]
    assert sizes[1] < 0.6 * sizes[0]


def test_pooled_features_are_kept_in_half_precision_where_maps_take_eight_bits(cache: FeatureCache) -> None:
    features, eight = torch.randn(6, 5), replace(KEY, dtype="uint8")
    fill(cache, features, eight)
    cached = cache.open(keys_of(eight))
    assert cached is not None
    assert torch.equal(cached.batch(np.array([1]), np.array([1])).values[0], features[3].half())


def test_every_part_of_the_key_changes_the_digest() -> None:
    others: list[dict[str, object]] = [
        {"pixels": "x"},
        {"rows": "x"},
        {"augmentation": "x"},
        {"seed": 1},
        {"backbone": "x"},
        {"position": 4},
        {"engine": "x"},
        {"dtype": "float32"},
        {"view": 1},
        {"format": 99},
    ]
    digests = {KEY.digest(), *(FeatureKey(**{**vars(KEY), **other}).digest() for other in others)}
    assert len(digests) == 11


def test_any_views_that_are_there_can_be_read_together_in_any_order(cache: FeatureCache) -> None:
    fill(cache, torch.arange(12.0).reshape(12, 1), views=4)
    keys = keys_of(views=5)
    found = cache.open([keys[3], keys[1]])
    assert found is not None and (len(found.rows), found.views) == (3, 2)
    assert found.batch(np.array([1, 2]), np.array([0, 1])).values.flatten().tolist() == [7.0, 9.0]
    assert cache.open(keys) is None and [cache.has(key) for key in keys] == [True] * 4 + [False]


def test_views_of_different_shapes_are_never_read_together(cache: FeatureCache) -> None:
    fill(cache, torch.ones(6, 5), views=1)
    with cache.writing(replace(KEY, view=1)) as writer:
        writer.append(AtCut.above_nothing(torch.ones(6, 4)))
    assert cache.open(keys_of()) is None


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
def test_the_statistics_of_stages_are_kept_with_the_values(dtype: CacheDtype, cache: FeatureCache) -> None:
    draws = torch.Generator().manual_seed(0)
    values, stages = torch.randn(6, 5, 2, 3, generator=draws), torch.randn(6, 7, generator=draws)
    key = replace(KEY, dtype=dtype)
    fill(cache, values, key, stages=stages)
    cached = cache.open(keys_of(key))
    assert cached is not None
    without = cache.open(keys_of(key), with_stages=False)
    assert without is not None and without.batch(np.array([1]), np.array([0])).stages.shape == (1, 0)
    read = cached.part(1, 3).batch(np.array([1, 0]), np.array([1, 0]))
    assert torch.allclose(read.values.float(), values[[5, 2]], atol=0.02)
    assert torch.equal(read.stages, stages[[5, 2]].to(read.stages.dtype))
    files = [(cache.folder_of(key) / name).stat().st_size for name in ("features.bin", "stages.bin")]
    assert sum(files) == 3 * bytes_of_view(AtCut(values, stages), dtype)


@pytest.mark.parametrize("name", ["features.bin", "shape.json", "stages.bin", "seal.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_damaged_features_count_as_absent(name: str, damage: str, cache: FeatureCache) -> None:
    fill(cache, torch.ones(6, 5), stages=torch.ones(6, 2))
    file = cache.folder_of(KEY) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flipped" else content[:-1])
    assert cache.open(keys_of()) is None
    fill(cache, torch.ones(6, 5), stages=torch.ones(6, 2))
    assert cache.open(keys_of()) is not None


def test_features_are_not_read_back_after_they_were_written(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, checksum = [], atomic._checksum
    monkeypatch.setattr(atomic, "_checksum", lambda file: read.append(file.name) or checksum(file))
    fill(cache, torch.ones(6, 5), stages=torch.ones(6, 2))
    assert read and not {"features.bin", "stages.bin"} & {*read}
    assert cache.open(keys_of()) is not None


def test_a_copied_entry_is_still_intact(cache: FeatureCache) -> None:
    fill(cache, torch.ones(6, 5))
    for file in cache.folder_of(KEY).iterdir():
        if file.name != atomic.SEAL:
            file.write_bytes(file.read_bytes())
    assert cache.open(keys_of()) is not None


def test_an_entry_that_was_not_finished_does_not_appear(cache: FeatureCache) -> None:
    with pytest.raises(RuntimeError), cache.writing(KEY) as writer:
        writer.append(AtCut.above_nothing(torch.ones(4, 5)))
        raise RuntimeError
    assert cache.open(keys_of()) is None
    assert not list((cache.folder / "features").iterdir())


def test_an_entry_with_features_that_its_dtype_cannot_represent_does_not_appear(cache: FeatureCache) -> None:
    with pytest.raises(OverflowError), cache.writing(KEY) as writer:
        writer.append(AtCut.above_nothing(torch.full((2, 5, 2, 2), 1e6)))
    with pytest.raises(OverflowError), cache.writing(KEY) as writer:
        writer.append(AtCut(torch.ones(2, 5), torch.full((2, 3), 1e6)))
    assert cache.open(keys_of()) is None


def test_the_least_recently_used_features_are_removed_for_new_ones(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, "float16", budget=0)
    fill(cache, torch.ones(6, 5))
    FeatureCache(tmp_path, "float16").make_room(1)
    assert cache.open(keys_of()) is not None
    cache.make_room(1)
    assert cache.open(keys_of()) is None


def test_an_entry_that_is_removed_while_it_is_opened_counts_as_absent(
    cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def intact_until_cleared(folder: Path) -> bool:
        found = is_intact(folder)
        clear(cache.folder)
        return found

    fill(cache, torch.ones(6, 5))
    is_intact = atomic.is_intact
    monkeypatch.setattr(atomic, "is_intact", intact_until_cleared)
    assert cache.open(keys_of()) is None


def test_a_full_disk_says_how_much_the_features_need_and_where_they_could_go(cache: FeatureCache) -> None:
    def write() -> None:
        with cache.writing(KEY, needed=3_000_000_000):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WriteError, match=r"the disk is full \(the cached features need about 3\.0 GB\); .* THAW_CACHE"):
        write()
    assert not list((cache.folder / "features").iterdir())
