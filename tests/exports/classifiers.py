"""Classifiers with random weights whose predictions depend on every weight and on the image."""

from __future__ import annotations

import torch

from tests.networks import randomise
from thaw.backbones.facts import Features
from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier, new_head, outputs_of
from thaw.recipe import DecodeSettings, PreprocessingSettings, Task

SMALL = "mobilenetv3_small_050"
CLASSES = ("ok", "scratch", 'a "stain", größer')


def random_classifier(
    name: str = SMALL,
    preprocessing: PreprocessingSettings | None = None,
    task: Task = "multiclass",
    hidden: tuple[int, ...] = (),
    features: Features = "last",
) -> Classifier:
    """A classifier with three classes, or two for a binary task."""
    backbone = build(name, "random", preprocessing or PreprocessingSettings(image_size=64))
    generator = torch.Generator().manual_seed(0)
    randomise(backbone, generator)
    classes = CLASSES[:2] if task == "binary" else CLASSES
    backbone.use_features(features)
    head = new_head(backbone, outputs_of(task, classes), hidden)
    classifier = Classifier(backbone, head, classes, task, DecodeSettings())
    _spread(classifier, generator)
    return classifier


def _spread(classifier: Classifier, generator: torch.Generator) -> None:
    """Scale the head so that the logits of different images differ by about one, as in a trained classifier.

    The features of a deep network with random weights hardly differ; they are scaled at most twentyfold, because
    otherwise rounding errors of float32 would matter.
    """
    last = classifier.head.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    side = classifier.backbone.facts.pixels.size
    coarse = torch.rand(8, 3, 4, 4, generator=generator) * 255
    images = torch.nn.functional.interpolate(coarse, size=side, mode="bilinear").permute(0, 2, 3, 1).to(torch.uint8)
    with torch.no_grad():
        last.weight.normal_(generator=generator)
        logits = classifier.logits(images)
        spread = torch.maximum(logits.std(dim=0), 0.05 * logits.square().mean(dim=0).sqrt())
        last.weight.div_(spread[:, None])
        last.bias.copy_(-(logits / spread).mean(dim=0))
