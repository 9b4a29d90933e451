"""Checkpoints that are complete or absent: weights, optimizer state and progress in one safetensors file.

There are three: `last`, `phase` (the best epoch of the running phase) and `best` (that of the last phase that is kept).
A run with a baseline has its head as a fourth, `baseline`, which is written before the run has an identity.
Each has a pointer, such as `checkpoints/last.json`, which names one file and its SHA-256. A new checkpoint is written
next to the old one and the pointer is replaced atomically, so a process killed at any moment leaves the old or the new.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor
from torch.optim import Optimizer

from thaw import atomic
from thaw.classifier.classifier import Classifier
from thaw.errors import ResumeError, first_line
from thaw.formats import count
from thaw.processes import ALONE, Process
from thaw.recipe import Phase
from thaw.tensors import bytes_of_tensors, metadata_of
from thaw.training.background import BackgroundWrites
from thaw.training.gain import PhaseGain
from thaw.training.history import EpochRecord
from thaw.training.optimizer import load_state_tensors, state_tensors, trainable_parameters
from thaw.writing import explained

Name = Literal["last", "phase", "best", "baseline"]


@dataclass(frozen=True)
class Progress:
    """How far a run has come: `epoch` epochs of phase number `phase` are done.

    batch_size: of the current phase, halved when memory ran out; `None` before the phase has begun. notes: the
    sentences of phases that were stopped or changed. gains: of the phases that are done; none in release 0.1.
    """

    phase: int = 0
    epoch: int = 0
    batch_size: int | None = None
    records: tuple[EpochRecord, ...] = ()
    notes: tuple[str, ...] = ()
    gains: tuple[PhaseGain, ...] = ()


@dataclass(frozen=True)
class Checkpoint:
    """The weights that any phase trains, by their names in the classifier, the optimizer's state, and the progress.

    run: identity of the run that wrote it; empty in release 0.1. That of a baseline is of what its head is for.
    """

    weights: dict[str, Tensor]
    progress: Progress
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    run: str = ""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, saved from and loaded into its classifier.

    process: the main one writes; the others wait until it has written, so that all read the same. Alone, it goes on
    while a thread writes. run: identity of the run, which they carry.
    """

    folder: Path
    classifier: Classifier
    phases: Sequence[Phase]
    process: Process = ALONE
    run: str = ""
    _writes: BackgroundWrites = field(default_factory=BackgroundWrites)

    def weights(self) -> dict[str, Tensor]:
        """The head and every block that some phase trains, not copied.

        Blocks of later phases are included: a later phase that loses is undone by loading an earlier phase's best,
        which must hold everything that the later one changed.
        """
        backbone = self.classifier.backbone
        lowest = min(backbone.cut(phase.cut).position for phase in self.phases)
        weights = {f"backbone.{key}": value for key, value in backbone.state_from(lowest).items()}
        return weights | {f"head.{key}": value for key, value in self.classifier.head.state_dict().items()}

    def save(self, name: Name, progress: Progress, optimizer: Optimizer | None = None) -> None:
        """Write the current weights, and the state of an optimizer over what trains now."""
        # Nobody may still read the checkpoint that is replaced, and nobody goes on before the new one is there.
        self.process.barrier()
        if self.process.is_main:
            state = state_tensors(optimizer, trainable_parameters(self.classifier)) if optimizer else {}
            content = _content(Checkpoint(self.weights(), progress, state, self.run))
            self._writes.submit(lambda: _replace(self.folder, name, content))
            if self.process.count > 1:
                self.wait()
        self.process.barrier()

    def wait(self) -> None:
        """Wait until everything that was saved is on the disk; raises `WriteError` where something cannot be."""
        self._writes.wait()

    def load(self, name: Name, optimizer: Optimizer | None = None) -> Checkpoint | None:
        """Load weights into the classifier and state into the optimizer.

        Returns:
            The checkpoint, or `None` where there is none; then nothing is changed.

        Raises:
            ResumeError: The checkpoint is damaged or belongs to another network.
        """
        self.wait()
        saved = read(self.folder, name)
        if saved:
            unexpected = self.classifier.load_state_dict(saved.weights, strict=False).unexpected_keys
            if unexpected:
                raise ResumeError(
                    f"{self.folder}: the checkpoint has {len(unexpected)} tensors that this network lacks; "
                    f"start a new run"
                )
            if optimizer:
                load_state_tensors(optimizer, trainable_parameters(self.classifier), saved.optimizer)
        return saved


def write(folder: Path, name: Name, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and point `name` at it; the previous one of that name is removed afterwards.

    Raises `WriteError` where it cannot be written; the previous one stays.
    """
    _replace(folder, name, _content(checkpoint))


def _content(checkpoint: Checkpoint) -> bytes:
    """The file of a checkpoint, which what is trained meanwhile does not change."""
    tensors = {f"weights:{key}": value for key, value in checkpoint.weights.items()}
    tensors |= {f"optimizer:{key}": value for key, value in checkpoint.optimizer.items()}
    return bytes_of_tensors(
        {key: value.detach().cpu().contiguous() for key, value in tensors.items()},
        {"progress": _progress_to_json(checkpoint.progress), "run": checkpoint.run},
    )


def _replace(folder: Path, name: Name, content: bytes) -> None:
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(content).hexdigest()
    file = folder / f"{name}-{digest[:16]}.safetensors"
    atomic.write_bytes(file, content)
    atomic.write_text(folder / f"{name}.json", json.dumps({"file": file.name, "sha256": digest}))
    for old in folder.glob(f"{name}-*.safetensors"):
        if old != file:
            # What another program has open on Windows is removed with the next one.
            with suppress(PermissionError):
                old.unlink(missing_ok=True)


def read(folder: Path, name: Name) -> Checkpoint | None:
    """The checkpoint of a name, or `None` where none was written; raises `ResumeError` where it is damaged."""
    pointer = folder / f"{name}.json"
    with _readable(pointer):
        target = _target(pointer)
        if target is None:
            return None
        file, digest = target
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ResumeError(f"{file}: the checkpoint is damaged (its SHA-256 differs); start a new run")
        tensors = load(content)
        metadata = metadata_of(content)
        progress = _progress_from_json(metadata["progress"])
    run = metadata.get("run", "")
    return Checkpoint(_part(tensors, "weights:"), progress, _part(tensors, "optimizer:"), run)


def check(folder: Path, run: str) -> Progress | None:
    """The progress of the last checkpoint of a run, or `None` before the first; nothing but headers is read.

    Raises:
        ResumeError: A checkpoint is damaged or another run's, or one is missing that must have been written.
    """
    last, phase, best = (_header(folder / f"{name}.json", run) for name in ("last", "phase", "best"))
    others = {"best": best, "phase": phase}
    if last is None:
        for name in (name for name, other in others.items() if other):
            raise ResumeError(f"{folder / 'last.json'}: is missing, though {name}.json is there; start a new run")
        return None
    began = len(last.records) - last.epoch
    needed = {"best": last.records[:began], "phase": last.records[began:]}
    # A run of release 0.1 has one best epoch of all phases, the running one included.
    written = others if run else {**others, "phase": phase or best}
    for name, records in needed.items():
        if written[name] is None and any(math.isfinite(record.val.loss) for record in records):
            epochs = count(len(last.records), "epoch")
            raise ResumeError(f"{folder / f'{name}.json'}: is missing after {epochs}; start a new run")
    for name, other in others.items():
        if other:
            # They are written first: if the run was killed before the last one was, they are ahead by one epoch.
            common = min(len(other.records), len(last.records))
            # As text, because a loss that is NaN does not equal itself.
            if repr(other.records[:common]) != repr(last.records[:common]):
                raise ResumeError(f"{folder}: the checkpoints {name} and last are of two runs; start a new run")
    return last


def _header(pointer: Path, run: str) -> Progress | None:
    """The progress in a checkpoint, without its tensors; raises `ResumeError` where it is damaged or another run's."""
    with _readable(pointer):
        target = _target(pointer)
        if target is None:
            return None
        with target[0].open("rb") as stream:
            length = stream.read(8)
            whole = target[0].stat().st_size
            metadata = metadata_of(length + stream.read(min(int.from_bytes(length, "little"), whole)))
        progress = _progress_from_json(metadata["progress"])
    if run and metadata.get("run") != run:
        raise ResumeError(
            f"{target[0]}: the checkpoint is not of this run; put back the one of this run, or start a new run"
        )
    return progress


def _target(pointer: Path) -> tuple[Path, str] | None:
    """The file that a pointer names and its SHA-256, or `None` where there is no pointer."""
    folder = pointer.parent
    if folder.exists() and not folder.is_dir():
        raise ResumeError(f"{folder}: is a file, but must be the folder of the checkpoints; remove it")
    if not pointer.exists():
        return None
    target = json.loads(pointer.read_bytes())
    return folder / Path(target["file"]).name, target["sha256"]


@contextmanager
def _readable(pointer: Path) -> Iterator[None]:
    """Whatever a damaged checkpoint makes fail within the block is a `ResumeError` that names its pointer."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, SafetensorError) as error:
        reason = first_line(error)
        raise ResumeError(f"{pointer}: the checkpoint cannot be read ({reason}); start a new run") from error


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _progress_to_json(progress: Progress) -> str:
    records = [record.to_json() for record in progress.records]
    return json.dumps({**vars(progress), "records": records, "gains": [asdict(gain) for gain in progress.gains]})


def _progress_from_json(text: str) -> Progress:
    values = json.loads(text)
    records = tuple(EpochRecord.from_json(value) for value in values["records"])
    gains = tuple(PhaseGain.from_json(gain) for gain in values.get("gains", ()))
    return Progress(values["phase"], values["epoch"], values["batch_size"], records, tuple(values["notes"]), gains)
