"""The training of one part of the student: one loop over random batches of stored crops; resumable at checkpoints."""

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
from pretraining.optimizer import optimizers
from pretraining.shards import BATCH, PIXELS, Shards, look
from pretraining.student import Errors, Range, begin_at_statistics
from thaw.atomic import write_bytes
from thaw.backbones.contract import Backbone


@dataclass(frozen=True)
class Pair:
    """The two networks, equal but for their weights."""

    teacher: Backbone
    student: Backbone


def load_parts(pair: Pair, configuration: Configuration, work: Path, until: str | None = None) -> None:
    """Give the student what the parts learned, in their order, up to and not including `until`."""
    for name in configuration.parts:
        if name == until:
            return
        if checkpoint(work, name).is_file():
            _load(pair.student, [], checkpoint(work, name))


def checkpoint(work: Path, part: str) -> Path:
    """The file of a part's weights and moments."""
    return work / f"{part}.safetensors"


def train_part(name: str, pair: Pair, configuration: Configuration, work: Path) -> None:
    """Look where the part begins, then train it to its last step, from its checkpoint where there is one."""
    part = configuration.parts[name]
    blocks = Range.of(part, pair.teacher)
    load_parts(pair, configuration, work, until=name)
    shards = Shards(*_folders(name, part, blocks, pair, work))
    reference = blocks.values(pair.teacher, shards.validation[0][: 4 * BATCH])
    with torch.no_grad():
        wanted = blocks.outputs(pair.teacher, reference)
    errors = Errors(wanted)
    if not _was_trained(name, part, configuration, work):
        begin_at_statistics(pair.student, blocks, reference, wanted)
    pair.student.thaw(pair.student.cut(part.start), "train")
    movers = optimizers(blocks.modules(pair.student), part.lr, part.weight_decay, part.muon)
    step, before = _load(pair.student, movers, checkpoint(work, name))
    started, sums = time.perf_counter() - before, 0.0
    pair.student.train()
    while step < part.steps:
        for group in (group for mover in movers for group in mover.param_groups):
            group["lr"] = learning_rate(part, step)
        rng = np.random.default_rng((configuration.seed, step))
        sums += _step(part, blocks, pair, errors, movers, _window(part, shards.batch(part.batch, rng), rng))
        step += 1
        if step % configuration.report_steps == 0:
            spent = time.perf_counter() - started
            print(f"{name} {step}: loss {sums / configuration.report_steps:.3f}; {spent:.0f} s", flush=True)
            sums = 0.0
        if step % configuration.checkpoint_steps == 0 or step == part.steps:
            _save(pair.student, blocks, movers, checkpoint(work, name), step, time.perf_counter() - started)
            print(f"{name} {step}: {describe(validate(blocks, pair, errors, shards.validation))}", flush=True)


def learning_rate(part: Part, step: int) -> float:
    """Climbs, stays, and falls to zero over the last steps."""
    climb = min(1.0, (step + 1) / max(part.warmup_steps, 1))
    fall = min(1.0, (part.steps - step) / max(part.decay_steps, 1))
    return part.lr * min(climb, fall)


@torch.no_grad()
def validate(blocks: Range, pair: Pair, errors: Errors, stored: Sequence[Tensor]) -> list[float]:
    """Error of each block on crops of held-out pictures, the student's blocks in a chain and in eval mode."""
    pair.student.eval()
    found = []
    for parts in zip(*(value.split(BATCH) for value in stored), strict=True):
        wanted = blocks.outputs(pair.teacher, blocks.values(pair.teacher, parts[0]))
        given = blocks.outputs(pair.student, blocks.values(pair.student, parts[-1]))
        found.append([float(error) for error in errors(given, wanted)])
    pair.student.train()
    return [float(mean) for mean in np.mean(found, axis=0)]


def describe(found: Sequence[float]) -> str:
    """Validation errors as words."""
    return "held-out pictures, block by block: " + " ".join(f"{error:.3f}" for error in found)


def _folders(name: str, part: Part, blocks: Range, pair: Pair, work: Path) -> list[Path]:
    """Where the teacher's inputs of a part lie, and the student's where they are others."""
    if blocks.start == 0:
        return [work / PIXELS]
    places = {f"{part.start}-teacher": pair.teacher}
    if part.inputs == "student":
        places[f"{name}-student"] = pair.student
    for folder, backbone in places.items():
        look(backbone, blocks.start, work, folder)
    return [work / folder for folder in places]


def _was_trained(name: str, part: Part, configuration: Configuration, work: Path) -> bool:
    """Whether this part, or an earlier one that began at the same block, has learned already."""
    order = list(configuration.parts)
    same = [other for other in order[: order.index(name)] if configuration.parts[other].start == part.start]
    return any(checkpoint(work, other).is_file() for other in (*same, name))


def _step(
    part: Part, blocks: Range, pair: Pair, errors: Errors, movers: Sequence[Optimizer], stored: Sequence[Tensor]
) -> float:
    with torch.no_grad():
        wanted = blocks.outputs(pair.teacher, blocks.values(pair.teacher, stored[0]))
    value = blocks.values(pair.student, stored[-1])
    found = errors(blocks.outputs(pair.student, value, None if part.chained else wanted), wanted)
    loss = torch.stack(found[:-1]).sum() + part.features * found[-1] if len(found) > 1 else found[0]
    for mover in movers:
        mover.zero_grad(set_to_none=True)
    loss.backward()
    for mover in movers:
        mover.step()
    return float(loss.detach())


def _window(part: Part, stored: list[Tensor], rng: np.random.Generator) -> list[Tensor]:
    """A random window of pixels where the part asks for one, and half of the batches mirrored."""
    if part.window:
        top, left = rng.integers(0, stored[0].shape[1] - part.window + 1, 2)
        stored = [value[:, top : top + part.window, left : left + part.window] for value in stored]
    if rng.random() < 0.5:
        stored = [value.flip(2 if value.dtype == torch.uint8 else 3) for value in stored]
    return stored


def _save(student: Backbone, blocks: Range, movers: Sequence[Optimizer], file: Path, step: int, seconds: float) -> None:
    """Write weights and moments in one step; no pickle."""
    above = student.state_from(blocks.stop).keys()
    tensors = {
        f"student.{name}": value.contiguous()
        for name, value in student.state_from(blocks.start).items()
        if name not in above
    }
    for kind, mover in enumerate(movers):
        for number, state in mover.state_dict()["state"].items():
            tensors |= {f"optimizer.{kind}.{number}.{name}": value.contiguous() for name, value in state.items()}
    write_bytes(file, save(tensors, {"step": str(step), "seconds": json.dumps(seconds)}))


def _load(student: Backbone, movers: Sequence[Optimizer], file: Path) -> tuple[int, float]:
    """Load a checkpoint where there is one; gives its step and the seconds that it took."""
    if not file.is_file():
        return 0, 0.0
    with safe_open(file, framework="pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        notes = stream.metadata()
    student.load_state_dict(_below(tensors, "student."), strict=False)
    for kind, mover in enumerate(movers):
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(tensors, f"optimizer.{kind}.").items():
            number, key = name.split(".")
            moments.setdefault(int(number), {})[key] = value
        mover.load_state_dict({**mover.state_dict(), "state": moments})
    return int(notes["step"]), float(notes["seconds"])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
