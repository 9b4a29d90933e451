"""The student, the adapters that translate its maps and features into the teacher's, and the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretraining.configuration import Configuration
from pretraining.shards import FEATURES, Shard
from pretraining.teacher import end_of, maps_and_features
from thaw.backbones.contract import Backbone
from thaw.backbones.normalise import Normalise
from thaw.backbones.timm_backbone import build
from thaw.recipe import PreprocessingSettings

_MEAN = _STD = (0.5, 0.5, 0.5)
# Features that are almost always zero would weigh without limit if they were brought to deviation 1.
_SMALLEST_DEVIATION = 0.25


@dataclass(frozen=True)
class Losses:
    """Parts of the loss over one batch; `features` and `maps` are shares of the teacher's variance."""

    total: Tensor
    features: float
    maps: float
    soft_labels: float


class Standard(nn.Module):
    """Brings each channel of a teacher's output to mean 0 and deviation about 1."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, values: np.ndarray) -> None:
        super().__init__()
        flat = np.moveaxis(values.astype(np.float32), 1, -1).reshape(-1, values.shape[1])
        deviation = flat.std(axis=0)
        self.register_buffer("mean", torch.from_numpy(flat.mean(axis=0)))
        self.register_buffer("deviation", torch.from_numpy(deviation.clip(_SMALLEST_DEVIATION * deviation.mean())))

    def forward(self, values: Tensor) -> Tensor:
        """Standardise (N, C) or (N, C, G, G)."""
        shape = (1, -1) + (1,) * (values.ndim - 2)
        return (values.float() - self.mean.view(shape)) / self.deviation.view(shape)

    def undo(self, values: Tensor) -> Tensor:
        """Standardised features (N, C) back to the teacher's."""
        return values * self.deviation + self.mean


class Student(nn.Module):
    """A backbone that is to be trained whole, with an adapter for each thing that it should predict."""

    def __init__(self, configuration: Configuration, first: Shard, classifier: tuple[Tensor, Tensor] | None) -> None:
        super().__init__()
        self.backbone = new_backbone(configuration)
        self.normalise = Normalise(_MEAN, _STD)
        self.pairs = configuration.pairs
        self.standards = nn.ModuleList([Standard(first.arrays[f"map-{n}"]) for n in range(len(self.pairs))])
        self.standard = Standard(first.arrays[FEATURES])
        self.stops = [end_of(self.backbone, pair.student) for pair in self.pairs]
        size, generator = configuration.student.size, torch.Generator().manual_seed(configuration.seed)
        with torch.no_grad():
            maps, _ = maps_and_features(self.backbone.eval(), torch.zeros(1, 3, size, size), self.stops)
        self.map_adapters = nn.ModuleList(
            [
                _adapter(nn.Conv2d(at.shape[1], len(standard.mean), 1), generator)  # type: ignore[arg-type]
                for at, standard in zip(maps, self.standards, strict=True)
            ]
        )
        width = len(self.standard.mean)
        self.adapter = _adapter(nn.Linear(self.backbone.facts.width, width), generator)
        self.classifier = classifier if configuration.training.soft_labels else None
        self.settings = configuration.training
        self.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> Student:
        """Train everything, BatchNorm too."""
        super().train(mode)
        self.backbone.thaw(self.backbone.cut("pixels"), "train")
        self.backbone.train(mode)
        return self

    def predict(self, pixels: Tensor, size: int) -> tuple[Tensor, list[Tensor]]:
        """Standardised features and maps of the teacher, predicted from pixels (N, S, S, 3) uint8."""
        images = self.normalise(pixels)
        if size != images.shape[-1]:
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bf16):
            maps, features = maps_and_features(self.backbone, images, self.stops)
            answers = [
                adapter(F.adaptive_avg_pool2d(at, pair.grid) if at.shape[-1] > pair.grid else at)
                for adapter, at, pair in zip(self.map_adapters, maps, self.pairs, strict=True)
            ]
            return self.adapter(features).float(), [answer.float() for answer in answers]

    def losses(self, batch: Mapping[str, Tensor], size: int) -> Losses:
        """Mean squared errors of standardised values, and the divergence of the soft labels."""
        features, maps = self.predict(batch["pixels"], size)
        wanted = self.standard(batch[FEATURES])
        of_features = F.mse_loss(features, wanted)
        of_maps = features.new_zeros(())
        for number, (standard, answer, pair) in enumerate(zip(self.standards, maps, self.pairs, strict=True)):
            target = F.adaptive_avg_pool2d(standard(batch[f"map-{number}"]), answer.shape[-1])
            of_maps = of_maps + pair.weight * F.mse_loss(answer, target)
        of_labels = self._divergence(self.standard.undo(features), batch[FEATURES].float())
        total = of_features + of_maps + self.settings.soft_labels * of_labels
        weights = sum(pair.weight for pair in self.pairs) or 1.0
        return Losses(total, float(of_features.detach()), float(of_maps.detach()) / weights, float(of_labels.detach()))

    def _divergence(self, features: Tensor, wanted: Tensor) -> Tensor:
        """Kullback-Leibler divergence of the teacher's classifier on predicted features from that on its own."""
        if self.classifier is None:
            return features.new_zeros(())
        temperature = self.settings.temperature
        predicted, right = (F.linear(values, *self.classifier) / temperature for values in (features, wanted))
        log_predicted, log_right = predicted.log_softmax(1), right.log_softmax(1)
        return F.kl_div(log_predicted, log_right, reduction="batchmean", log_target=True) * temperature**2


def new_backbone(configuration: Configuration) -> Backbone:
    """The student's backbone with random weights."""
    preprocessing = PreprocessingSettings(image_size=configuration.student.size, mean=_MEAN, std=_STD)
    return build(configuration.student.backbone, "random", preprocessing, seed=configuration.seed)


def _adapter(layer: nn.Module, generator: torch.Generator) -> nn.Module:
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.ndim > 1:
                # Small, so that the loss begins at the variance of the targets.
                parameter.normal_(0, 0.1 * parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.zero_()
    return layer
