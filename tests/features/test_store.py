from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thaw import atomic
from thaw.features.store import (
    FeatureKey,
    StoredType,
    folder_of,
    open_store,
    quantised,
    restored,
    writing,
)

KEY = FeatureKey("pixels", "rows", "none", 0, "backbone", 3, "engine", "float16")


def fill(cache: Path, features: torch.Tensor, key: FeatureKey = KEY, views: int = 2) -> None:
    with writing(cache, key, views) as writer:
        writer.append(features[:4])
        writer.append(features[4:])


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 2, 3)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_written_is_read_back_view_by_view(shape: tuple[int, ...], dtype: StoredType, tmp_path: Path) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    key = replace(KEY, dtype=dtype)
    fill(tmp_path, features, key)
    store = open_store(tmp_path, key, 2)
    assert store is not None and (len(store.rows), store.views) == (3, 2)
    read = store.batch(np.array([2, 0]), np.array([1, 0]))
    assert torch.equal(read, features[[5, 0]].to(read.dtype))


def test_eight_bits_are_off_by_half_a_step_of_each_channel_at_most_and_take_half_the_disk(tmp_path: Path) -> None:
    features = (
        torch.randn(6, 5, 7, 7, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1e-3, 1, 9, 0, 80])[:, None, None]
    )
    eight = replace(KEY, dtype="uint8")
    fill(tmp_path, features)
    fill(tmp_path, features, eight)
    store = open_store(tmp_path, eight, 2)
    assert store is not None
    read = store.batch(np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 0, 1]))
    spread = features.amax(dim=(2, 3)) - features.amin(dim=(2, 3))
    assert ((read - features).abs().amax(dim=(2, 3)) <= spread / 255 / 2 + 1e-6).all()
    sizes = [(folder_of(tmp_path, key, 2) / "features.bin").stat().st_size for key in (KEY, eight)]
    assert sizes[1] < 0.6 * sizes[0]


def test_pooled_features_stay_in_half_precision_in_a_store_of_eight_bits(tmp_path: Path) -> None:
    features, eight = torch.randn(6, 5), replace(KEY, dtype="uint8")
    fill(tmp_path, features, eight)
    store = open_store(tmp_path, eight, 2)
    assert store is not None
    assert torch.equal(store.batch(np.array([1]), np.array([1]))[0], features[3].half())


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
        elements=st.floats(-1e4, 1e4, width=32),
    )
)
def test_rounding_to_eight_bits_keeps_the_least_and_the_largest_value_of_each_channel(values: np.ndarray) -> None:
    read = restored(quantised(values)).numpy()
    spread = np.ptp(values, axis=(1, 2))
    assert (np.abs(read - values).max(axis=(1, 2)) <= spread / 255 / 2 + 1e-5 * (1 + np.abs(values).max())).all()


def test_every_part_of_the_key_tells_stores_apart() -> None:
    others: list[dict[str, object]] = [
        {"pixels": "x"},
        {"rows": "x"},
        {"augmentation": "x"},
        {"seed": 1},
        {"backbone": "x"},
        {"position": 4},
        {"engine": "x"},
        {"dtype": "float32"},
        {"format": 99},
    ]
    digests = {KEY.digest(), *(FeatureKey(**{**vars(KEY), **other}).digest() for other in others)}
    assert len(digests) == 10


def test_a_store_of_more_views_serves_fewer_but_not_the_reverse(tmp_path: Path) -> None:
    features = torch.arange(12.0).reshape(12, 1)
    fill(tmp_path, features, views=4)
    fewer = open_store(tmp_path, KEY, 2)
    assert fewer is not None and (len(fewer.rows), fewer.views) == (3, 2)
    assert fewer.batch(np.array([1, 2]), np.array([0, 1])).flatten().tolist() == [4.0, 9.0]
    assert open_store(tmp_path, KEY, 5) is None


@pytest.mark.parametrize("name", ["features.bin", "shape.json", "seal.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_a_damaged_store_is_as_good_as_absent(name: str, damage: str, tmp_path: Path) -> None:
    fill(tmp_path, torch.ones(6, 5))
    file = folder_of(tmp_path, KEY, 2) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flipped" else content[:-1])
    assert open_store(tmp_path, KEY, 2) is None
    fill(tmp_path, torch.ones(6, 5))
    assert open_store(tmp_path, KEY, 2) is not None


def test_a_store_that_was_copied_elsewhere_is_still_whole(tmp_path: Path) -> None:
    fill(tmp_path, torch.ones(6, 5))
    for file in folder_of(tmp_path, KEY, 2).iterdir():
        if file.name != atomic.SEAL:
            file.write_bytes(file.read_bytes())
    assert open_store(tmp_path, KEY, 2) is not None


def test_a_store_that_was_not_finished_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writing(tmp_path, KEY, 2) as writer:
        writer.append(torch.ones(4, 5))
        raise RuntimeError
    assert open_store(tmp_path, KEY, 2) is None
    assert not list((tmp_path / "features").iterdir())


@pytest.mark.parametrize(("dtype", "value"), [("float16", 1e6), ("uint8", float("inf")), ("float32", float("nan"))])
def test_features_that_a_store_cannot_hold_are_refused_not_stored_as_something_else(
    dtype: StoredType, value: float, tmp_path: Path
) -> None:
    key = replace(KEY, dtype=dtype)
    with pytest.raises(OverflowError), writing(tmp_path, key, 2) as writer:
        writer.append(torch.full((2, 5, 2, 2), value))
    assert open_store(tmp_path, key, 2) is None
