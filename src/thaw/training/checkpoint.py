"""Checkpoints that are whole or absent: tensors and the story so far in one safetensors file, hashed by its pointer.

`checkpoints/last.json` and `checkpoints/best.json` each name one file and its SHA-256. A new state is written beside
the old one and the pointer is moved in one step, so a process killed at any moment leaves the old state or the new.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from thaw import atomic
from thaw.errors import ResumeError
from thaw.training.history import EpochRecord


@dataclass(frozen=True)
class Progress:
    """Where a run stands: `epoch` epochs of phase number `phase` are done; `batch_size` is what memory allowed."""

    phase: int = 0
    epoch: int = 0
    batch_size: int | None = None
    records: tuple[EpochRecord, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checkpoint:
    """Weights that training has touched, the optimizer's memory, and where the run stood."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    progress: Progress


def write(folder: Path, name: str, checkpoint: Checkpoint) -> None:
    """Make `checkpoint` the one called `name` ("last" or "best")."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"weights:{key}": value for key, value in checkpoint.weights.items()}
    tensors |= {f"optimizer:{key}": value for key, value in checkpoint.optimizer.items()}
    content = save(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
        metadata={"progress": _progress_to_json(checkpoint.progress)},
    )
    digest = hashlib.sha256(content).hexdigest()
    file = folder / f"{name}-{digest[:16]}.safetensors"
    atomic.write_bytes(file, content)
    atomic.write_text(folder / f"{name}.json", json.dumps({"file": file.name, "sha256": digest}))
    for old in folder.glob(f"{name}-*.safetensors"):
        if old != file:
            old.unlink(missing_ok=True)


def read(folder: Path, name: str) -> Checkpoint | None:
    """The checkpoint called `name`, or `None` when none was ever written; raises `ResumeError` when it is damaged."""
    pointer = folder / f"{name}.json"
    if not pointer.is_file():
        return None
    try:
        target = json.loads(pointer.read_bytes())
        file = folder / target["file"]
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != target["sha256"]:
            raise ResumeError(f"{file}: the checkpoint is damaged (its SHA-256 differs); start the run anew")
        tensors = load(content)
        progress = _progress_from_json(_metadata(content)["progress"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ResumeError(f"{pointer}: the checkpoint cannot be read ({error}); start the run anew") from error
    return Checkpoint(_part(tensors, "weights:"), _part(tensors, "optimizer:"), progress)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _metadata(content: bytes) -> dict[str, str]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]


def _progress_to_json(progress: Progress) -> str:
    return json.dumps(
        {
            "phase": progress.phase,
            "epoch": progress.epoch,
            "batch_size": progress.batch_size,
            "records": [record.to_json() for record in progress.records],
            "notes": progress.notes,
        }
    )


def _progress_from_json(text: str) -> Progress:
    values = json.loads(text)
    return Progress(
        phase=values["phase"],
        epoch=values["epoch"],
        batch_size=values["batch_size"],
        records=_records(values["records"]),
        notes=tuple(values["notes"]),
    )


def _records(values: Sequence[dict]) -> tuple[EpochRecord, ...]:
    return tuple(EpochRecord.from_json(value) for value in values)
