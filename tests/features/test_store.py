from pathlib import Path

import numpy as np
import pytest
import torch

from thaw.features.store import FeatureKey, folder_of, open_store, writing

KEY = FeatureKey("pixels", "rows", 2, "none", 0, "backbone", 3, "engine", "float16")


def fill(cache: Path, features: torch.Tensor, key: FeatureKey = KEY) -> None:
    with writing(cache, key) as writer:
        writer.append(features[:4])
        writer.append(features[4:])


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 2, 3)])
def test_what_is_written_is_read_back_view_by_view(shape: tuple[int, ...], tmp_path: Path) -> None:
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    fill(tmp_path, features)
    store = open_store(tmp_path, KEY)
    assert store is not None and store.array.shape[:2] == (3, 2)
    read = store.batch(np.array([2, 0]), np.array([1, 0]))
    assert torch.equal(read, features[[5, 0]].half())


def test_every_part_of_the_key_tells_stores_apart() -> None:
    others = [
        {"pixels": "x"},
        {"rows": "x"},
        {"views": 3},
        {"augmentation": "x"},
        {"seed": 1},
        {"backbone": "x"},
        {"position": 4},
        {"engine": "x"},
        {"dtype": "float32"},
        {"format": 99},
    ]
    digests = {KEY.digest(), *(FeatureKey(**{**vars(KEY), **other}).digest() for other in others)}
    assert len(digests) == 11


@pytest.mark.parametrize("name", ["features.bin", "shape.json", "seal.json"])
@pytest.mark.parametrize("damage", ["flipped", "truncated", "removed"])
def test_a_damaged_store_is_as_good_as_absent(name: str, damage: str, tmp_path: Path) -> None:
    fill(tmp_path, torch.ones(6, 5))
    file = folder_of(tmp_path, KEY) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(content if damage == "flipped" else content[:-1])
    assert open_store(tmp_path, KEY) is None
    fill(tmp_path, torch.ones(6, 5))
    assert open_store(tmp_path, KEY) is not None


def test_a_store_that_was_not_finished_does_not_appear(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writing(tmp_path, KEY) as writer:
        writer.append(torch.ones(4, 5))
        raise RuntimeError
    assert open_store(tmp_path, KEY) is None
    assert not list((tmp_path / "features").iterdir())


def test_features_too_large_for_half_precision_are_refused_not_stored_as_infinity(tmp_path: Path) -> None:
    with pytest.raises(OverflowError), writing(tmp_path, KEY) as writer:
        writer.append(torch.full((2, 5), 1e6))
    assert open_store(tmp_path, KEY) is None
