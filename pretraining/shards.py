"""Crops and their features at a block on disk: plain arrays, one file per shard, written atomically."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pretraining.configuration import ImageCounts
from pretraining.crops import Crops
from thaw.atomic import write_bytes
from thaw.backbones.contract import Backbone
from thaw.backbones.stages import AtCut
from thaw.features.engines import FrozenPart, missing

VALIDATION_CROPS = 512
BATCH = 64
PIXELS, VALIDATION = "pixels", "validation"


def shard_file(folder: Path, number: int | str) -> Path:
    """The file of a shard, or of the validation crops."""
    return folder / (f"{number}.npy" if isinstance(number, str) else f"{number:04d}.npy")


def draw(crops: Crops, settings: ImageCounts, work: Path) -> None:
    """Write all missing shards of crops, the validation crops first."""
    jobs: list[tuple[int | str, range]] = [(VALIDATION, range(VALIDATION_CROPS))]
    jobs += [
        (number, range(first, min(first + settings.shard, settings.crops)))
        for number, first in enumerate(range(0, settings.crops, settings.shard))
    ]
    for number, numbers in jobs:
        file = shard_file(work / PIXELS, number)
        if not file.is_file():
            _write(file, crops.draw(numbers, validation=number == VALIDATION))


def extract(backbone: Backbone, position: int, work: Path, name: str) -> None:
    """Write the features of every crop at `position`, in half precision, to WORK/name; resumable."""
    device = torch.device("cpu")
    engine = FrozenPart(backbone, device, "pytorch-fp32" if missing("openvino-fp32", device) else "openvino-fp32")
    run: Callable[[torch.Tensor], list[AtCut]] | None = None
    for pixels in sorted((work / PIXELS).glob("*.npy")):
        file = work / name / pixels.name
        if file.is_file():
            continue
        run = run or engine.runner((position,)).run
        crops = torch.from_numpy(np.load(pixels))
        _write(file, np.concatenate([run(part)[0].values.half().numpy() for part in crops.split(BATCH)]))


class Shards:
    """One or more arrays per crop, memory-mapped: the shards in each of `folders`."""

    def __init__(self, *folders: Path) -> None:
        count = len(list(folders[0].glob("[0-9]*.npy")))
        self._arrays = [[np.load(shard_file(folder, n), mmap_mode="r") for n in range(count)] for folder in folders]
        self._ends = np.cumsum([len(array) for array in self._arrays[0]])
        self.validation = [torch.from_numpy(np.load(shard_file(folder, VALIDATION))) for folder in folders]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, size: int, rng: np.random.Generator) -> list[torch.Tensor]:
        """The arrays of `size` randomly drawn crops."""
        chosen = np.sort(rng.integers(0, len(self), size))
        owners = np.searchsorted(self._ends, chosen, side="right")
        rows = chosen - np.concatenate([[0], self._ends])[owners]
        return [
            torch.from_numpy(np.stack([arrays[owner][row] for owner, row in zip(owners, rows, strict=True)]))
            for arrays in self._arrays
        ]


def _write(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.save(content, array)
    write_bytes(file, content.getvalue())
    print(f"{file.parent.name}/{file.name}: {len(array)} crops", flush=True)
