from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.several import together
from thaw.backbones.contract import Backbone
from thaw.backbones.stages import AtCut
from thaw.backbones.timm_backbone import build
from thaw.cache import clear
from thaw.data import augment
from thaw.data.augment import PRESETS, Augmentation, ViewRenderer
from thaw.errors import WriteError
from thaw.features import extract as extraction
from thaw.features import passes, view_request
from thaw.features.cache import FeatureCache
from thaw.features.engines import FrozenPart
from thaw.features.extract import extract, find_features
from thaw.features.view_request import MAX_RENDERERS, ViewRequest
from thaw.processes import ALONE, Process
from thaw.recipe import PreprocessingSettings

CPU = torch.device("cpu")
IMAGES, SIZE = 5, 32


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=SIZE), "avg", 0)


def request(backbone: Backbone, augmentation: Augmentation = PRESETS["light"], views: int = 2) -> ViewRequest:
    stored = np.random.default_rng(0).integers(0, 256, size=(IMAGES, 40, 40, 3), dtype=np.uint8)
    pixels: Any = SimpleNamespace(key="pixels", spec=backbone.facts.pixels, read=stored.__getitem__)
    return ViewRequest(pixels, np.arange(IMAGES), views, augmentation, seed=3)


def use_batches_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (extraction, passes):
        monkeypatch.setattr(module, "BATCH", 2)


def test_cached_features_are_those_of_the_rendered_views_at_every_position(backbone: Backbone, tmp_path: Path) -> None:
    top, wanted = backbone.head_position, request(backbone)
    frozen = FrozenPart(backbone, CPU, "pytorch-fp32")
    found = extract(wanted, frozen, [top, 3], FeatureCache(tmp_path, "float16"), lambda *_: None)
    pixels = wanted.render([(row, view) for row in range(IMAGES) for view in range(2)])
    for position, expected in zip((3, top), frozen.runner([3, top]).run(pixels), strict=True):
        rows, views = np.repeat(np.arange(IMAGES), 2), np.tile(np.arange(2), IMAGES)
        cached, tolerance = found[position].batch(rows, views).values.float(), 1e-2 * expected.values.abs().max()
        assert (cached - expected.values).abs().max() < tolerance
        distances = torch.cdist(*[expected.values.flatten(1)] * 2, p=torch.inf).fill_diagonal_(torch.inf)
        assert distances.min() > 10 * tolerance


def test_features_are_found_without_their_images_whatever_engine_extracted_them(
    backbone: Backbone, tmp_path: Path
) -> None:
    wanted, cache = request(backbone), FeatureCache(tmp_path, "float16")
    frozen, other = (FrozenPart(backbone, CPU, engine) for engine in ("pytorch-fp32", "openvino-fp32"))
    assert find_features(wanted.description, other, 3, cache) is None
    extracted = extract(wanted, frozen, [3], cache, lambda *_: None)[3]
    rows, views = np.arange(IMAGES), np.ones(IMAGES, int)
    for seeker in (frozen, other):
        found = find_features(wanted.description, seeker, 3, replace(cache, dtype="uint8"))
        assert found is not None
        assert torch.equal(found.batch(rows, views).values, extracted.batch(rows, views).values)
    for absent in (replace(wanted.description, pixels="other"), replace(wanted.description, seed=4)):
        assert find_features(absent, frozen, 3, cache) is None


def test_a_second_extraction_reads_the_cache_unless_the_augmentation_code_has_changed(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path, "float16")

    def entries() -> int:
        extract(request(backbone), FrozenPart(backbone, CPU, "pytorch-fp32"), [3], cache, lambda *_: None)
        return len(list((tmp_path / "features").iterdir()))

    assert [entries(), entries()] == [2, 2]
    monkeypatch.setattr(augment, "VERSION", augment.VERSION + 1)
    assert entries() == 4


class Counting:
    """A runner that counts the views that it is given."""

    def __init__(self, frozen: FrozenPart, positions: Sequence[int]) -> None:
        self.runner, self.positions, self.views = frozen.runner(positions), tuple(positions), 0
        frozen._runners[self.positions] = self

    def run(self, pixels: Tensor) -> list[AtCut]:
        self.views += len(pixels)
        return self.runner.run(pixels)


def test_views_that_are_cached_are_not_extracted_again(backbone: Backbone, tmp_path: Path) -> None:
    frozen, cache = FrozenPart(backbone, CPU, "pytorch-fp32"), FeatureCache(tmp_path, "float16")
    counting = Counting(frozen, [3])
    reported: list[tuple[int, int]] = []

    def extracted(wanted: ViewRequest) -> int:
        before = counting.views
        extract(wanted, frozen, [3], cache, lambda done, total: reported.append((done, total)))
        return counting.views - before

    assert extracted(request(backbone, Augmentation(), 1)) == IMAGES
    # The plain view is the first of every augmentation.
    assert extracted(request(backbone, PRESETS["light"], 2)) == IMAGES
    assert reported[-1] == (2 * IMAGES, 2 * IMAGES) and reported[-2][0] > IMAGES
    assert extracted(replace(request(backbone, PRESETS["light"], 1), first_view=1)) == 0
    assert extracted(request(backbone, PRESETS["light"], 3)) == IMAGES
    assert extracted(request(backbone, PRESETS["strong"], 2)) == IMAGES
    assert extracted(replace(request(backbone, PRESETS["light"], 2), seed=4)) == IMAGES


def test_features_with_all_stages_serve_a_head_on_the_last(tmp_path: Path) -> None:
    backbone = build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=SIZE), "avg", 0)
    cache, top = FeatureCache(tmp_path, "float16"), backbone.head_position
    found = []
    for features in ("last", "all", "last"):
        if features == "all":
            clear(tmp_path)
        backbone.use_features(features)
        counting = Counting(frozen := FrozenPart(backbone, CPU, "pytorch-fp32"), [top])
        found.append((extract(request(backbone), frozen, [top], cache, lambda *_: None)[top], counting.views))
    (alone, _), (_, extracted), (served, again) = found
    assert extracted == 2 * IMAGES and again == 0
    rows, views = np.arange(IMAGES), np.arange(IMAGES) % 2
    for one, other in zip(alone.batch(rows, views), served.batch(rows, views), strict=True):
        assert torch.equal(one, other)


def test_views_are_the_same_with_any_number_of_cores_and_few_threads_render_them(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    render = ViewRenderer.render

    def counted(*arguments: Any) -> None:
        used.append(arguments[-1])
        render(*arguments)

    wanted, items = request(backbone), [(row, 0) for row in range(IMAGES)]
    monkeypatch.setattr(ViewRenderer, "render", counted)
    views = []
    for cores in (1, 64):
        monkeypatch.setattr(view_request, "worker_count", lambda cores=cores: cores)
        views.append(wanted.render(items))
    assert torch.equal(*views)
    assert used == [1, MAX_RENDERERS]


def test_features_too_large_for_half_precision_are_stored_in_single_precision(
    backbone: Backbone, tmp_path: Path
) -> None:
    frozen = FrozenPart(backbone, CPU, "pytorch-fp32")
    exact = frozen.runner([3])

    class Large:
        positions = (3,)

        def run(self, pixels: Tensor) -> list[AtCut]:
            return [AtCut.above_nothing(1e6 * at.values) for at in exact.run(pixels)]

    frozen._runners[3,] = Large()
    found = extract(request(backbone), frozen, [3], FeatureCache(tmp_path, "float16"), lambda *_: None)[3]
    features = found.batch(np.array([0]), np.array([0])).values
    assert features.dtype == torch.float32 and features.abs().max() > 1e5
    # From then on they are found in the cache.
    counting = Counting(frozen, [3])
    again = extract(request(backbone), frozen, [3], FeatureCache(tmp_path, "float16"), lambda *_: None)[3]
    assert counting.views == 0
    assert torch.equal(again.batch(np.array([0]), np.array([0])).values, features)


@pytest.mark.parametrize(("clearings", "succeeds"), [(2, True), (99, False)])
def test_features_that_are_cleared_before_they_are_opened_are_extracted_again(
    clearings: int, succeeds: bool, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared: list[int] = []
    opened = FeatureCache.open

    def open_after_clearing(self: FeatureCache, *arguments: Any) -> Any:
        if len(cleared) < clearings:
            cleared.append(len(clear(tmp_path)))
        return opened(self, *arguments)

    monkeypatch.setattr(FeatureCache, "open", open_after_clearing)
    frozen, cache = FrozenPart(backbone, CPU, "pytorch-fp32"), FeatureCache(tmp_path, "float16")
    if succeeds:
        assert extract(request(backbone), frozen, [3], cache, lambda *_: None)[3].rows == range(IMAGES)
    else:
        with pytest.raises(WriteError, match="cached features are removed before they can be used"):
            extract(request(backbone), frozen, [3], cache, lambda *_: None)
    assert cleared == ([0, 2] if succeeds else [0, 2, 2, 2])


def files(cache: Path) -> dict[str, bytes]:
    """The content of every entry, but for the seals, which have times."""
    kept = [file for file in cache.rglob("*") if file.is_file() and file.name != "seal.json"]
    return {str(file.relative_to(cache)): file.read_bytes() for file in kept}


@pytest.mark.parametrize("views", [2, 3])
def test_views_that_exceed_the_budget_together_replace_others_and_not_each_other(
    backbone: Backbone, tmp_path: Path, views: int
) -> None:
    wanted, frozen = request(backbone, views=views), FrozenPart(backbone, CPU, "pytorch-fp32")
    others = request(backbone, PRESETS["strong"], views=2)
    extract(others, frozen, [3], FeatureCache(tmp_path, "float16"), lambda *_: None)
    cache, done = FeatureCache(tmp_path, "float16", budget=1), list[int]()
    found = extract(wanted, frozen, [3], cache, lambda number, _: done.append(number))[3]
    assert found.views == views and done == sorted(done)
    assert len(list((tmp_path / "features").iterdir())) == views


@pytest.mark.parametrize("count", [2, 4])
def test_processes_that_extract_together_leave_the_bytes_of_one(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    use_batches_of_two(monkeypatch)
    reported: list[int] = []

    def work(process: Process, place: Path = tmp_path / "together") -> list[torch.Tensor]:
        frozen = FrozenPart(backbone, CPU, "pytorch-fp32")
        cache = FeatureCache(place, "float16")
        on_progress = (lambda done, total: reported.append(done)) if process.is_main else (lambda *_: None)
        found = extract(request(backbone), frozen, [3, backbone.head_position], cache, on_progress, process)
        return [features.batch(np.arange(IMAGES), np.ones(IMAGES, int)).values for features in found.values()]

    expected = work(ALONE, tmp_path / "alone")
    reported.clear()
    for found in together(count, work):
        assert not isinstance(found, Exception), found
        assert all(map(torch.equal, found, expected))
    assert files(tmp_path / "together") == files(tmp_path / "alone")
    assert reported == sorted(reported) and reported[-1] == 2 * IMAGES


def test_a_part_that_a_killed_process_had_finished_is_not_extracted_again(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_batches_of_two(monkeypatch)
    wanted, frozen, cache = (
        request(backbone, views=1),
        FrozenPart(backbone, CPU, "pytorch-fp32"),
        FeatureCache(tmp_path, "float16"),
    )
    monkeypatch.setattr(FeatureCache, "merge", lambda *_: None)
    with pytest.raises(WriteError):
        raise next(iter(together(2, lambda process: extract(wanted, frozen, [3], cache, lambda *_: None, process))))  # type: ignore[misc]
    monkeypatch.undo()
    use_batches_of_two(monkeypatch)
    monkeypatch.setattr(FrozenPart, "runner", lambda *_: pytest.fail("extracts again"))
    for found in together(2, lambda process: extract(wanted, frozen, [3], cache, lambda *_: None, process)):
        assert not isinstance(found, Exception), found
    assert [file.name.partition("-")[1] for file in (tmp_path / "features").iterdir()] == [""]


def test_all_processes_store_in_float32_where_a_value_of_one_is_too_large(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_batches_of_two(monkeypatch)

    class Huge:
        """A runner that gives too large a value for the last image."""

        def run(self, pixels: Tensor) -> list[AtCut]:
            return [AtCut.above_nothing(torch.full((len(pixels), 4), 1e6 if len(pixels) == 1 else 1.0))]

    monkeypatch.setattr(FrozenPart, "runner", lambda *_: Huge())

    def work(process: Process) -> torch.dtype:
        frozen, cache = FrozenPart(backbone, CPU, "pytorch-fp32"), FeatureCache(tmp_path, "float16")
        found = extract(request(backbone, views=1), frozen, [3], cache, lambda *_: None, process)
        return found[3].batch(np.arange(IMAGES), np.zeros(IMAGES, int)).values.dtype

    assert together(2, work) == [torch.float32] * 2
