from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thaw.backbones.timm_backbone import build
from thaw.features.cache import CachedFeatures
from thaw.processes import Process
from thaw.recipe import PreprocessingSettings
from thaw.training.sources import AdvancedSource, CachedSource, JoinedSource, batches, pooled


def source(images: int, views: int = 3) -> CachedSource:
    """Features whose two values are the image and the view."""
    grid = np.stack(np.meshgrid(np.arange(images), np.arange(views), indexing="ij"), axis=-1).astype(np.float16)
    return CachedSource.of(CachedFeatures.whole(grid), torch.arange(images), torch.device("cpu"), seed=1)


@given(st.integers(1, 70), st.integers(1, 40))
def test_an_epoch_has_every_image_once_in_batches_of_nearly_equal_size(images: int, batch_size: int) -> None:
    parts = list(batches(source(images), batch_size, epoch=0, shuffle_seed=3))
    targets = torch.cat([part for _, part in parts])
    features = torch.cat([at.values for at, _ in parts])
    assert sorted(targets.tolist()) == list(range(images))
    assert torch.equal(features[:, 0], targets.float())
    sizes = [len(part) for _, part in parts]
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1


def test_each_view_of_each_image_appears_once_in_as_many_epochs_as_there_are_views() -> None:
    seen = {
        (int(image), int(view))
        for epoch in range(3)
        for at, _ in batches(source(10), 4, epoch, shuffle_seed=0)
        for image, view in at.values
    }
    assert len(seen) == 30


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(epoch: int, seed: int | None) -> list[int]:
        return [int(target) for _, targets in batches(source(20), 8, epoch, seed) for target in targets]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(1, 1) != order(1, 2)
    assert order(5, None) == list(range(20))


@pytest.mark.parametrize("count", [2, 3])
def test_the_batches_of_all_processes_are_the_batches_of_one(count: int) -> None:
    data = source(50)
    whole = [targets.tolist() for _, targets in batches(data, 8, 1, 3)]
    parts = [[targets.tolist() for _, targets in batches(data, 8, 1, 3, Process(rank, count))] for rank in range(count)]
    assert [list(chain(*step)) for step in zip(*parts, strict=True)] == whole


@pytest.mark.parametrize("views", [1, 3])
def test_feature_maps_are_returned_with_channels_first(views: int) -> None:
    store = CachedFeatures.whole(np.zeros((4, views, 5, 6, 7), np.float16))
    at, _ = CachedSource.of(store, torch.zeros(4), torch.device("cpu"), 0).batch(np.array([1, 3]), epoch=2)
    assert at.values.shape == (2, 7, 5, 6) and at.values.dtype == torch.float32


@given(st.lists(st.integers(0, 29), min_size=1, max_size=20), st.integers(0, 4))
def test_joined_sources_are_read_as_one_in_any_order(chosen: list[int], epoch: int) -> None:
    parts = [source(10), source(1), source(19)]
    at, targets = JoinedSource(parts).batch(np.array(chosen), epoch)
    for place, image in enumerate(chosen):
        part, own = (0, image) if image < 10 else (1, 0) if image == 10 else (2, image - 11)
        expected, target = parts[part].batch(np.array([own]), epoch)
        assert torch.equal(at.values[place], expected.values[0]) and targets[place] == target[0]


def test_what_is_advanced_to_the_head_is_the_same_at_once_and_batch_by_batch() -> None:
    backbone = build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=32), "avg", 0)
    top, start = backbone.head_position, backbone.cut("stages:2").position
    images = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        maps = backbone.run(images, 0, start)
        expected = backbone.run(maps, start, top)
    grid = maps.permute(0, 2, 3, 1).reshape(6, 2, *maps.permute(0, 2, 3, 1).shape[1:]).numpy()
    at_cut = CachedSource.of(CachedFeatures.whole(grid), torch.arange(6), torch.device("cpu"), seed=0)
    advanced, held = AdvancedSource(at_cut, backbone, start, top), pooled(at_cut, backbone, start)
    assert len(advanced) == len(held) == 6 and advanced.views == held.views == 2
    every = np.arange(6)
    both = [torch.stack([each.batch(every, epoch)[0].values for epoch in range(2)], dim=1) for each in (advanced, held)]
    # Which view comes first is drawn.
    for found in both:
        assert torch.allclose(found.sort(dim=1).values, expected.reshape(6, 2, -1).sort(dim=1).values, atol=1e-5)
    assert pooled(held, backbone, top) is held
