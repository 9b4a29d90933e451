"""What the teacher saw and what it made of it, on disk: folders of plain arrays, each whole or absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw.atomic import new_folder

PIXELS, FEATURES = "pixels", "features"


@dataclass(frozen=True)
class Shard:
    """Arrays of equal length: `pixels` (N, S, S, 3) uint8, `features` (N, W), and maps (N, C, G, G), float16."""

    arrays: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.arrays[PIXELS])


def shard_folder(root: Path, number: int | None) -> Path:
    """The folder of a shard; None for the validation crops."""
    return root / ("validation" if number is None else f"shard-{number:04d}")


def write_shard(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write all arrays of one shard in one step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder) as temporary:
        for name, values in arrays.items():
            np.save(temporary / f"{name}.npy", values)


def open_shard(folder: Path) -> Shard:
    """A shard, memory-mapped."""
    return Shard({file.stem: np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))})


class Shards:
    """The training shards below a folder, which may still grow."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: list[Shard] = []
        self.refresh()

    def refresh(self) -> None:
        """Open the shards that were finished meanwhile."""
        while (folder := shard_folder(self._root, len(self._open))).is_dir():
            self._open.append(open_shard(folder))

    def __len__(self) -> int:
        return sum(len(shard) for shard in self._open)

    @property
    def first(self) -> Shard:
        """The first shard, from which statistics are taken."""
        return self._open[0]

    def batch(self, size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`size` crops drawn at random, half of them mirrored left to right with their maps."""
        chosen = np.sort(rng.integers(0, len(self), size))
        lengths = np.array([len(shard) for shard in self._open])
        owners = np.searchsorted(lengths.cumsum(), chosen, side="right")
        rows = chosen - (lengths.cumsum() - lengths)[owners]
        batch = {
            name: np.stack([self._open[owner].arrays[name][row] for owner, row in zip(owners, rows, strict=True)])
            for name in self.first.arrays
        }
        mirrored = rng.random(size) < 0.5
        for name, values in batch.items():
            if name != FEATURES:
                across = 2 if name == PIXELS else 3
                values[mirrored] = np.flip(values[mirrored], axis=across)
        return batch
