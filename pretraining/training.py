"""Trains one part of the student: one loop over random batches of stored crops, resumable at checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.optim import Optimizer

from pretraining.configuration import Configuration, Part
from pretraining.optimizer import optimizers_for
from pretraining.shards import BATCH, PIXELS, Shards, extract
from pretraining.student import Errors, Range, initialise_statistics
from thaw.atomic import write_bytes
from thaw.backbones.contract import Backbone


@dataclass(frozen=True)
class Pair:
    """Teacher and student, of the same architecture."""

    teacher: Backbone
    student: Backbone


def load_parts(pair: Pair, configuration: Configuration, work: Path, until: str | None = None) -> None:
    """Load the trained parts into the student, in order, up to but not including `until`."""
    for name in configuration.parts:
        if name == until:
            return
        if checkpoint(work, name).is_file():
            _load(pair.student, [], checkpoint(work, name))


def checkpoint(work: Path, part: str) -> Path:
    """The file with the weights and optimizer state of a part."""
    return work / f"{part}.safetensors"


def train_part(name: str, pair: Pair, configuration: Configuration, work: Path) -> None:
    """Extract the inputs of a part, then train it to its last step, from its checkpoint if there is one."""
    part = configuration.parts[name]
    blocks = Range.of(part, pair.teacher)
    load_parts(pair, configuration, work, until=name)
    shards = Shards(*_folders(name, part, blocks, pair, work))
    reference = blocks.values(pair.teacher, shards.validation[0][: 4 * BATCH])
    with torch.no_grad():
        wanted = blocks.outputs(pair.teacher, reference)
    errors = Errors(wanted)
    if not _was_trained_before(name, part, configuration, work):
        initialise_statistics(pair.student, blocks, reference, wanted)
    pair.student.thaw(pair.student.cut(part.start), "train")
    optimizers = optimizers_for(blocks.modules(pair.student), part.lr, part.weight_decay, part.muon)
    step, before = _load(pair.student, optimizers, checkpoint(work, name))
    started, sums = time.perf_counter() - before, 0.0
    pair.student.train()
    while step < part.steps:
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate(part, step)
        rng = np.random.default_rng((configuration.seed, step))
        sums += _step(part, blocks, pair, errors, optimizers, _window(part, shards.batch(part.batch, rng), rng))
        step += 1
        if step % configuration.report_steps == 0:
            spent = time.perf_counter() - started
            print(f"{name} {step}: loss {sums / configuration.report_steps:.3f}; {spent:.0f} s", flush=True)
            sums = 0.0
        if step % configuration.checkpoint_steps == 0 or step == part.steps:
            _save(pair.student, blocks, optimizers, checkpoint(work, name), step, time.perf_counter() - started)
            print(f"{name} {step}: {describe(validate(blocks, pair, errors, shards.validation))}", flush=True)


def learning_rate(part: Part, step: int) -> float:
    """Linear warm-up, constant, linear decay to zero."""
    warmup = min(1.0, (step + 1) / max(part.warmup_steps, 1))
    decay = min(1.0, (part.steps - step) / max(part.decay_steps, 1))
    return part.lr * min(warmup, decay)


@torch.no_grad()
def validate(blocks: Range, pair: Pair, errors: Errors, stored: Sequence[Tensor]) -> list[float]:
    """Error of each block on crops of held-out images, with the student's blocks chained and in eval mode."""
    pair.student.eval()
    found = []
    for parts in zip(*(value.split(BATCH) for value in stored), strict=True):
        wanted = blocks.outputs(pair.teacher, blocks.values(pair.teacher, parts[0]))
        given = blocks.outputs(pair.student, blocks.values(pair.student, parts[-1]))
        found.append([float(error) for error in errors(given, wanted)])
    pair.student.train()
    return [float(mean) for mean in np.mean(found, axis=0)]


def describe(found: Sequence[float]) -> str:
    """Validation errors as text."""
    return "held-out images, block by block: " + " ".join(f"{error:.3f}" for error in found)


def _folders(name: str, part: Part, blocks: Range, pair: Pair, work: Path) -> list[Path]:
    """Folders of the teacher's inputs of a part, and of the student's if they differ."""
    if blocks.start == 0:
        return [work / PIXELS]
    places = {f"{part.start}-teacher": pair.teacher}
    if part.inputs == "student":
        places[f"{name}-student"] = pair.student
    for folder, backbone in places.items():
        extract(backbone, blocks.start, work, folder)
    return [work / folder for folder in places]


def _was_trained_before(name: str, part: Part, configuration: Configuration, work: Path) -> bool:
    """Whether this part, or an earlier one that starts at the same block, has been trained before."""
    order = list(configuration.parts)
    same = [other for other in order[: order.index(name)] if configuration.parts[other].start == part.start]
    return any(checkpoint(work, other).is_file() for other in (*same, name))


def _step(
    part: Part, blocks: Range, pair: Pair, errors: Errors, optimizers: Sequence[Optimizer], stored: Sequence[Tensor]
) -> float:
    with torch.no_grad():
        wanted = blocks.outputs(pair.teacher, blocks.values(pair.teacher, stored[0]))
    value = blocks.values(pair.student, stored[-1])
    found = errors(blocks.outputs(pair.student, value, None if part.chained else wanted), wanted)
    loss = torch.stack(found[:-1]).sum() + part.features * found[-1] if len(found) > 1 else found[0]
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    return float(loss.detach())


def _window(part: Part, stored: list[Tensor], rng: np.random.Generator) -> list[Tensor]:
    """A random window of the pixels if the part has one, with half of the batches mirrored."""
    if part.window:
        top, left = rng.integers(0, stored[0].shape[1] - part.window + 1, 2)
        stored = [value[:, top : top + part.window, left : left + part.window] for value in stored]
    if rng.random() < 0.5:
        stored = [value.flip(2 if value.dtype == torch.uint8 else 3) for value in stored]
    return stored


def _save(
    student: Backbone, blocks: Range, optimizers: Sequence[Optimizer], file: Path, step: int, seconds: float
) -> None:
    """Write weights and optimizer state atomically, without a pickle."""
    above = student.state_from(blocks.stop).keys()
    tensors = {
        f"student.{name}": value.contiguous()
        for name, value in student.state_from(blocks.start).items()
        if name not in above
    }
    for kind, optimizer in enumerate(optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{kind}.{number}.{name}": value.contiguous() for name, value in state.items()}
    write_bytes(file, save(tensors, {"step": str(step), "seconds": json.dumps(seconds)}))


def _load(student: Backbone, optimizers: Sequence[Optimizer], file: Path) -> tuple[int, float]:
    """Load a checkpoint if there is one; returns its step and its training time in seconds."""
    if not file.is_file():
        return 0, 0.0
    with safe_open(file, framework="pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        notes = stream.metadata()
    student.load_state_dict(_below(tensors, "student."), strict=False)
    for kind, optimizer in enumerate(optimizers):
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(tensors, f"optimizer.{kind}.").items():
            number, key = name.split(".")
            moments.setdefault(int(number), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return int(notes["step"]), float(notes["seconds"])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
