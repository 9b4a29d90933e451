"""The same work through Thaw as it is: its pixel cache, its extraction and its training loop, on the large data set.

"waits" is the fraction of an epoch that preparing batches takes in the thread that runs one batch ahead: near 100 %
the GPU waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import cv2
import numpy as np
import torch

from bench.gpu.images import CLASSES
from bench.gpu.setup import Setup, Sizes
from bench.gpu.table import Row, agreement, speed, took
from bench.gpu.timing import calls_per_second
from thaw.backbones.contract import Backbone
from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier
from thaw.classifier.head import Head
from thaw.cores import worker_count
from thaw.data.augment import PRESETS, Augmentation, ViewRenderer
from thaw.data.dataset import Dataset
from thaw.data.decoding import Decoding
from thaw.data.pixel_store import PixelStore
from thaw.device import synchronize
from thaw.features import device_views
from thaw.features.cache import FeatureCache
from thaw.features.device_views import DevicePixels, device_pixels, drawn_by_pytorch
from thaw.features.engines import FrozenPart, make_runner
from thaw.features.extract import extract
from thaw.features.passes import BATCH
from thaw.features.view_request import ViewRequest
from thaw.formats import count
from thaw.recipe import DecodeSettings, Engine, PreprocessingSettings, ResolvedPhase, Steps
from thaw.training.context import FitCallbacks, FitContext, FitSettings
from thaw.training.fit import fit
from thaw.training.history import EpochRecord
from thaw.training.sources import Batch, CachedSource, DerivedSource, FreshSource, PhaseSources, Source

_CUT = "layer4"
_EVALUATED = 64


@dataclass
class TimedSource(DerivedSource):
    """A source that adds up the seconds in which it prepares batches."""

    source: Source
    seconds: list[float] = field(default_factory=list)

    def batch(self, chosen: np.ndarray, epoch: int) -> Batch:
        started = perf_counter()
        batch = self.source.batch(chosen, epoch)
        self.seconds.append(perf_counter() - started)
        return batch


def pixels_of(setup: Setup) -> PixelStore:
    """The large data set, decoded into the pixel cache or read from it."""
    manifest = Dataset.open(setup.images).manifest
    spec = _backbone(setup).facts.pixels
    return PixelStore.open_or_build(manifest, Decoding(spec, DecodeSettings(), worker_count()), setup.folder / "cache")


def whole(setup: Setup) -> Iterator[Row]:
    """Decode everything, then fine-tune the whole network from pixels: two epochs, the first on plain images."""
    sizes, started = setup.sizes, perf_counter()
    pixels = pixels_of(setup)
    yield speed("JPEG files decoded into the pixel cache", sizes.images / (perf_counter() - started))
    started = perf_counter()
    found = len(pixels.duplicates(worker_count()))
    yield speed("searched for near-duplicates", sizes.images / (perf_counter() - started), f"{found} found")
    request = _request(pixels, np.arange(sizes.images))
    yield from _rendering(request, setup)
    for batch in sizes.batches:
        classifier = _classifier(setup)
        phase = ResolvedPhase(name="whole", cut="pixels", epochs=2, lr=1e-4, batch_size=batch, batchnorm="train")
        frozen = FrozenPart(classifier.backbone, setup.device, "pytorch-bf16")
        rows = np.arange(sizes.images)
        train, val = (
            FreshSource(
                _request(pixels, part), frozen, 0, torch.from_numpy(part % len(CLASSES)).to(setup.device), setup.device
            )
            for part in (rows, rows[:_EVALUATED])
        )
        note = f"{sizes.images:,} images of {sizes.side} px, second epoch"
        for mode in _modes(sizes, batch):
            measured = f"Thaw, whole network, batch {batch}, steps {mode}"
            yield _epoch(
                setup, classifier, phase, PhaseSources(TimedSource(train), val), Measured(measured, note, mode)
            )


def _rendering(request: ViewRequest, setup: Setup) -> Iterator[Row]:
    """Augmented views drawn on the device, and by some threads of Thaw's with and without OpenCV's own."""
    sizes = setup.sizes
    items, threads = [(row, 1) for row in range(sizes.batches[-1])], cv2.getNumThreads()
    started = perf_counter()
    resident = device_pixels(request.pixels, setup.device) or DevicePixels.of(request.pixels, setup.device)
    synchronize(setup.device)
    yield speed("images copied to the device", sizes.images / (perf_counter() - started))

    yield from _first_views(resident, request.augmentation, items, setup.device)

    def draw() -> None:
        resident.render(items, request.augmentation, 0)

    rate = len(items) * calls_per_second(draw, setup.device, sizes.seconds)
    yield speed("augmented views drawn on the device", rate)
    out = np.empty((len(items), sizes.side, sizes.side, 3), np.uint8)
    for own in (threads, 1):
        cv2.setNumThreads(own)
        for workers in sorted({1, 4, worker_count()}):

            def run(workers: int = workers) -> None:
                pixels = request.pixels
                ViewRenderer(pixels.spec, request.augmentation, 0).render(pixels.read, items, out, workers)

            rate = len(items) * calls_per_second(run, torch.device("cpu"), sizes.seconds / 4)
            yield speed(f"augmented views rendered by {count(workers, 'thread')}", rate, f"OpenCV uses {own} in each")
    cv2.setNumThreads(threads)


def _first_views(
    resident: DevicePixels, augmentation: Augmentation, items: list[tuple[int, int]], device: torch.device
) -> Iterator[Row]:
    """The first views of a process by what draws them on the device, and by PyTorch's operations."""
    views = []
    for name, draw in (("the fastest", device_views.fastest(device)), ("PyTorch's operations", drawn_by_pytorch)):
        with patch.object(device_views, "fastest", lambda _, draw=draw: draw):
            started = perf_counter()
            views.append(resident.render(items, augmentation, 0))
            synchronize(device)
        yield took(f"first {len(items)} views drawn by {name}", perf_counter() - started, "with what it compiles")
    difference = float((views[0].int() - views[1].int()).abs().max())
    yield agreement("their largest difference", difference, 1.0, "in levels of 255")


def frozen(setup: Setup) -> Iterator[Row]:
    """The frozen part: each engine on its own, then extraction into the feature cache, pooled and maps."""
    sizes, pixels, backbone = setup.sizes, pixels_of(setup), _backbone(setup).to(setup.device)
    top, cut = backbone.head_position, backbone.cut(_CUT).position
    sample = _request(pixels, np.arange(sizes.images)).render([(row, 1) for row in range(min(BATCH, sizes.images))])
    engines = [engine for engine in sizes.engines if "bf16" in engine]
    for engine in engines:
        runner = make_runner(engine, backbone, setup.device, [top])
        rate = BATCH * calls_per_second(lambda: runner.run(sample), setup.device, sizes.seconds)  # noqa: B023
        yield speed(f"Thaw's engine {engine}, batch {BATCH}", rate, "from pixels in host memory")
    for engine in engines:
        yield _extraction(setup, pixels, backbone, engine, top, sizes.extracted, "pooled")
    yield _extraction(setup, pixels, backbone, "pytorch-bf16", cut, sizes.maps, f"maps below {_CUT}")


def thawed(setup: Setup) -> Iterator[Row]:
    """Train what lies above `layer4` on its maps in the feature cache."""
    sizes, pixels = setup.sizes, pixels_of(setup)
    for batch in sizes.batches:
        classifier = _classifier(setup)
        cut = classifier.backbone.cut(_CUT)
        engine = FrozenPart(classifier.backbone, setup.device, "pytorch-bf16")
        request, cache = _request(pixels, np.arange(sizes.maps)), FeatureCache(setup.folder / "cache", "float16")
        features = extract(request, engine, [cut.position], cache, lambda done, total: None)[cut.position]
        targets = torch.arange(sizes.maps) % len(CLASSES)
        train = TimedSource(CachedSource.of(features, targets, setup.device, 0))
        val = CachedSource.of(features.part(0, _EVALUATED), targets[:_EVALUATED], setup.device, 0)
        phase = ResolvedPhase(name="top", cut=_CUT, epochs=2, lr=1e-4, batch_size=batch, patience=None)
        note = f"{sizes.maps:,} images, second epoch"
        for mode in _modes(sizes, batch):
            measured = f"Thaw, layer4 and head, batch {batch}, steps {mode}"
            yield _epoch(setup, classifier, phase, PhaseSources(train, val), Measured(measured, note, mode))


@dataclass(frozen=True)
class Measured:
    """What is measured, a note, and how steps are run."""

    name: str
    note: str
    steps: Steps


def _modes(sizes: Sizes, batch: int) -> list[Steps]:
    return [mode for mode in sizes.modes if mode != "compiled" or batch == sizes.batches[-1]]


def _extraction(
    setup: Setup, pixels: PixelStore, backbone: Backbone, engine: Engine, position: int, images: int, what: str
) -> Row:
    """The speed of extraction into the feature cache; compilation counts where there is any."""
    request, cache = _request(pixels, np.arange(images)), FeatureCache(setup.folder / "cache", "float16")
    frozen_part, started = FrozenPart(backbone, setup.device, engine), perf_counter()
    extract(request, frozen_part, [position], cache, lambda done, total: None)
    seconds = perf_counter() - started
    return speed(f"Thaw, extraction, {what}, {engine}", images / seconds, f"{images:,} images in {seconds:.1f} s")


def _epoch(
    setup: Setup, classifier: Classifier, phase: ResolvedPhase, sources: PhaseSources, measured: Measured
) -> Row:
    """The speed of the last epoch of a phase, in bf16."""
    train = sources.train
    assert isinstance(train, TimedSource) and sources.val is not None
    records: list[EpochRecord] = []
    before: list[int] = [0]

    def on_epoch(all_records: Sequence[EpochRecord], is_best: bool) -> None:
        records[:] = all_records
        before.append(len(train.seconds))

    folder = Path(setup.new_folder(f"checkpoints-{measured.name.replace(' ', '-').replace(',', '')}"))
    settings = FitSettings(0, "bf16", "accuracy", None, folder, len(sources.val), steps=measured.steps)
    context = FitContext(classifier, (phase,), settings, FitCallbacks(on_epoch, print))
    fit(context, lambda index: sources)
    preparing = sum(train.seconds[before[-2] :]) / records[-1].seconds
    loss = f"loss {records[-1].train_loss:.3f}"
    return speed(measured.name, len(train) / records[-1].seconds, f"waits {preparing:.0%}; {loss}; {measured.note}")


def _request(pixels: PixelStore, rows: np.ndarray) -> ViewRequest:
    # The first view is the plain one, which is not rendered.
    return ViewRequest(pixels, rows, 1, PRESETS["standard"], seed=0, first_view=1)


def _backbone(setup: Setup) -> Backbone:
    return build(setup.sizes.network, "random", PreprocessingSettings(image_size=setup.sizes.side), "avg", 0)


def _classifier(setup: Setup) -> Classifier:
    backbone = _backbone(setup)
    head = Head(backbone.facts.width, len(CLASSES), (), 0.2, 0)
    return Classifier(backbone, head, CLASSES, "multiclass", DecodeSettings()).to(setup.device)
