"""The teacher looks at every crop once, in single precision; its answers go to disk."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from pretraining.configuration import Configuration, Pair
from pretraining.crops import Crops
from pretraining.shards import FEATURES, PIXELS, shard_folder, write_shard
from thaw.backbones.contract import Backbone
from thaw.backbones.normalise import Normalise
from thaw.backbones.timm_backbone import build
from thaw.recipe import PreprocessingSettings

BATCH = 32
VALIDATION_CROPS = 1024

Look = Callable[[np.ndarray], Sequence[np.ndarray]]


class Teacher(nn.Module):
    """Pixels (N, S, S, 3) uint8 in; pooled features and the averaged maps of each pair out."""

    def __init__(self, backbone: Backbone, pairs: Sequence[Pair]) -> None:
        super().__init__()
        self.backbone = backbone
        self.normalise = Normalise(backbone.facts.mean, backbone.facts.std)
        self.pairs = tuple(pairs)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(N, width), then (N, C, grid, grid) of each pair."""
        stops = [end_of(self.backbone, pair.teacher) for pair in self.pairs]
        maps, features = maps_and_features(self.backbone, self.normalise(pixels), stops)
        return features, *(adaptive_avg_pool2d(at, pair.grid) for at, pair in zip(maps, self.pairs, strict=True))


def load_teacher(weights: Path, configuration: Configuration) -> Teacher:
    """The teacher with its weights."""
    size = PreprocessingSettings(image_size=configuration.teacher.size)
    return Teacher(build(configuration.teacher.backbone, str(weights), size), configuration.pairs).eval()


def end_of(backbone: Backbone, stage: str) -> int:
    """The position just above the last block of a stage."""
    positions = [number for number, block in enumerate(backbone.blocks) if stage in (block.stage, block.name)]
    if not positions:
        raise SystemExit(f"{backbone.facts.architecture} has no stage {stage!r}: {', '.join(backbone.stage_names)}")
    return positions[-1] + 1


def maps_and_features(backbone: Backbone, value: Tensor, stops: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    """What lies at each of the ascending `stops`, and the pooled features."""
    maps, start = [], 0
    for stop in stops:
        value, start = backbone.run(value, start, stop), stop
        maps.append(value)
    return maps, backbone.run(value, start, len(backbone.blocks))


def fast(teacher: Teacher, size: int) -> Look:
    """OpenVINO in single precision where it is installed, else PyTorch.

    bfloat16 is no choice here: MobileNetV2's pooled features differ by 20 % in it.
    """
    try:
        import openvino
    except ImportError:
        return lambda pixels: [value.numpy() for value in _run(teacher, pixels)]
    example = torch.zeros(BATCH, size, size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # OpenVINO's converter traces, which PyTorch calls deprecated.
        warnings.simplefilter("ignore")
        model = openvino.convert_model(teacher, example_input=example, input=[(BATCH, size, size, 3)])
    compiled = openvino.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
    )
    return lambda pixels: list(compiled(pixels).values())


@torch.inference_mode()
def _run(teacher: Teacher, pixels: np.ndarray) -> tuple[Tensor, ...]:
    answers: tuple[Tensor, ...] = teacher(torch.from_numpy(pixels))
    return answers


def look(look_at: Look, crops: Crops, configuration: Configuration, out: Path) -> None:
    """Write every shard that is not there yet, the validation crops first."""
    settings = configuration.images
    shards = -(-settings.crops // settings.shard)
    jobs: list[tuple[int | None, range]] = [(None, range(VALIDATION_CROPS))]
    jobs += [(number, range(number * settings.shard, (number + 1) * settings.shard)) for number in range(shards)]
    for number, numbers in jobs:
        folder = shard_folder(out, number)
        if not folder.is_dir():
            write_shard(folder, _shard(look_at, crops, numbers, number is None, configuration))
            print(f"{folder.name}: {len(numbers)} crops", flush=True)


def _shard(
    look_at: Look, crops: Crops, numbers: range, validation: bool, configuration: Configuration
) -> dict[str, np.ndarray]:
    parts: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(numbers), BATCH):
        pixels = crops.draw(numbers[start : start + BATCH], validation)
        padded = np.concatenate([pixels, np.zeros((BATCH - len(pixels), *pixels.shape[1:]), np.uint8)])
        features, *maps = (np.asarray(answer)[: len(pixels)].astype(np.float16) for answer in look_at(padded))
        parts.setdefault(PIXELS, []).append(_shrunk(pixels, configuration.student.size))
        parts.setdefault(FEATURES, []).append(features)
        for number, values in enumerate(maps):
            parts.setdefault(f"map-{number}", []).append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _shrunk(pixels: np.ndarray, size: int) -> np.ndarray:
    if pixels.shape[1] == size:
        return pixels
    return np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in pixels])
