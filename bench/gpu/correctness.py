"""Whether the GPU computes what the CPU does: losses of training, features of the engines, predictions of a bundle.

The tolerances are Thaw's own where it has one: those of its engine probe and of a bundle's golden images.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import torch

from bench.gpu.images import CLASSES
from bench.gpu.setup import Setup
from bench.gpu.table import Row, agreement
from thaw.backbones.contract import Backbone
from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier
from thaw.classifier.head import Head
from thaw.data.dataset import Dataset
from thaw.data.surfaces import write_surfaces
from thaw.features.cache import CachedFeatures
from thaw.features.engines import REFERENCE, make_runner
from thaw.features.probe import TOLERANCE, distance_at_cut
from thaw.golden import TOLERANCE as GOLDEN_TOLERANCE
from thaw.pipeline import finetune, load
from thaw.prediction.predict import predict_files
from thaw.prediction.predictor import Predictor
from thaw.progress import NullReporter
from thaw.recipe import AugmentSettings, DecodeSettings, Phase, PreprocessingSettings, Recipe, ResolvedPhase, Steps
from thaw.training.context import FitCallbacks, FitContext, FitSettings
from thaw.training.fit import fit
from thaw.training.sources import CachedSource, PhaseSources

CPU = torch.device("cpu")
STEP_IMAGES = 16
LR = 1e-4
HEAD_WEIGHTS = {"stages:3": 0.025, "pixels": 0.015}
"""Standard deviation of the head's first weights, by cut. They would be zero and pass no gradient to what is below;
with larger ones a whole network is unstable."""
LOSS_TOLERANCE = 1e-3
"""Largest relative difference of a loss of training in fp32. If only the head learns, it is 0.007 above `stages:3` and
0.008 for the whole network; if the weights differ by 1e-7 from the start, it is 8e-7 and 5e-5 with SGD, which is taken
here (20 steps of the starter, on the same CPU). AdamW, which follows the sign of gradients near zero, is less stable.
"""


def losses(setup: Setup) -> Iterator[Row]:
    """Losses of the training loop above a cut and of the whole network."""
    for cut in HEAD_WEIGHTS:
        ours = _train(setup, CPU, cut, "eager")
        for mode in setup.sizes.modes:
            if mode != "compiled":
                difference = float(np.abs(_train(setup, setup.device, cut, mode) / ours - 1).max())
                note = f"loss {ours[0]:.4f} to {ours[-1]:.4f}; relative difference"
                measured = f"losses of {setup.sizes.steps} steps in fp32, cut {cut}, steps {mode}"
                yield agreement(measured, difference, LOSS_TOLERANCE, note)


def _train(setup: Setup, device: torch.device, cut: str, steps: Steps) -> np.ndarray:
    """The losses of some steps on one batch, each an epoch of Thaw's training loop."""
    backbone = _pretrained(setup)
    width, generator = backbone.facts.width, torch.Generator().manual_seed(0)
    head = Head(width, len(CLASSES), (), 0.0, 0)
    weights = HEAD_WEIGHTS[cut] * torch.randn(len(CLASSES), width, generator=generator)
    head.start_from([(weights, torch.zeros(len(CLASSES)))])
    classifier = Classifier(backbone, head, CLASSES, "multiclass", DecodeSettings()).to(device)
    side, position = backbone.facts.pixels.size, backbone.cut(cut).position
    images = torch.randn(STEP_IMAGES, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    with torch.no_grad():
        maps = backbone.run(images, 0, position).permute(0, 2, 3, 1)[:, None].cpu().numpy()
    targets = torch.arange(STEP_IMAGES) % len(CLASSES)
    source = CachedSource.of(CachedFeatures.whole(maps), targets, device, 0)
    phase = ResolvedPhase(
        name="steps", cut=cut, epochs=setup.sizes.steps, lr=LR, batch_size=STEP_IMAGES, patience=None, optimizer="sgd"
    )
    folder = setup.new_folder(f"losses-{device.type}-{cut.replace(':', '-')}-{len(list(setup.folder.iterdir()))}")
    settings = FitSettings(0, "fp32", "accuracy", None, folder, STEP_IMAGES, steps=steps)
    context = FitContext(classifier, (phase,), settings, FitCallbacks(lambda *_: None, print))
    progress = fit(context, lambda index: PhaseSources(source, source))
    return np.array([record.train_loss for record in progress.records])


def engines(setup: Setup) -> Iterator[Row]:
    """Pooled features of synthetic images."""
    backbone = _pretrained(setup)
    side, top = backbone.facts.pixels.size, backbone.head_position
    write_surfaces(setup.folder / "engines", images_per_class=4, size=side)
    pixels = torch.from_numpy(np.stack([_rgb(file) for file in sorted((setup.folder / "engines").rglob("*.png"))]))
    (reference,) = make_runner(REFERENCE, backbone, CPU, [top]).run(pixels)
    backbone.to(setup.device)
    for engine in setup.sizes.engines:
        runner = make_runner(engine, backbone, setup.device, [top])
        (features,) = runner.run(pixels)
        measured, distance = f"pooled features, {engine}", distance_at_cut(features, reference)
        if "bf16" in engine:
            outcome = "accepted" if distance <= TOLERANCE else "refused"
            yield Row(measured, f"{distance:.2g}", f"{outcome} by the probe, at most {TOLERANCE:g}; relative, to CPU")
            continue
        yield agreement(measured, distance, GOLDEN_TOLERANCE, "relative, to CPU")
        # The weights get other places in memory, as between the measurements of a plan.
        backbone.use_memory_format("channels_last")
        backbone.use_memory_format("contiguous")
        (features,) = runner.run(pixels)
        distance = distance_at_cut(features, reference)
        yield agreement(f"{measured}, weights moved", distance, GOLDEN_TOLERANCE, "relative, to CPU")


def predictions(setup: Setup) -> Iterator[Row]:
    """Probabilities of a bundle that was trained on the device."""
    folder = setup.new_folder("correctness")
    write_surfaces(folder / "images", images_per_class=20, size=96, classes=("ok", "scratch", "stain"))
    recipe = Recipe(
        backbone=setup.sizes.pretrained[0],
        weights=setup.sizes.pretrained[1],
        device=setup.device.type,
        preprocessing=PreprocessingSettings(image_size=_side(setup)),
        augment=AugmentSettings(preset="light"),
        phases=(
            Phase(name="head", cut="head", epochs=4, lr=3e-3),
            Phase(name="top", cut="stages:2", epochs=2, lr=3e-4, optional=False),
        ),
    )
    finetune(Dataset.open(folder / "images"), recipe, folder / "runs", reporter=NullReporter())
    run, files = folder / "runs" / "train-1", sorted((folder / "images").rglob("*.png"))
    expected = _probabilities(run, files, CPU)
    found = _probabilities(run, files, setup.device)
    yield agreement("probabilities of a bundle", float(np.abs(found - expected).max()), GOLDEN_TOLERANCE, "to CPU")
    if setup.device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = True
        with patch("thaw.features.torch_runner.compute_fp32_exactly"):
            rounded = float(np.abs(_probabilities(run, files, setup.device) - expected).max())
        yield agreement("the same with TF32 convolutions, PyTorch's default", rounded, GOLDEN_TOLERANCE, "to CPU")


def _probabilities(run: Path, files: list[Path], device: torch.device) -> np.ndarray:
    classifier = load(run)
    predictor = Predictor(classifier, REFERENCE, device)
    return np.array([item.probabilities for item in predict_files(classifier, files, predictor=predictor)])


def _rgb(file: Path) -> np.ndarray:
    image = cv2.imread(str(file), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return image


def _pretrained(setup: Setup) -> Backbone:
    name, weights = setup.sizes.pretrained
    return build(name, weights, PreprocessingSettings(image_size=_side(setup)), "avg", 0)


def _side(setup: Setup) -> int:
    """The starter's own size, or a smaller one."""
    return min(160, 2 * setup.sizes.side)
