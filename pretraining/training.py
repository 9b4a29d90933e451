"""The student's training: one loop over random batches of what the teacher saw; resumable at any checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from pretraining.configuration import Configuration, Training
from pretraining.optimizer import optimizers
from pretraining.shards import FEATURES, Shard, Shards, open_shard, shard_folder
from pretraining.student import Student
from thaw.atomic import write_bytes

CHECKPOINT = "checkpoint.safetensors"
_LARGEST_GRADIENT = 5.0


def train(student: Student, configuration: Configuration, work: Path) -> None:
    """Train to the last step, from the checkpoint under `work` where there is one."""
    settings, shards = configuration.training, Shards(work)
    movers = optimizers(student, settings.lr, settings.weight_decay, settings.muon)
    step, seconds = resume(student, movers, work / CHECKPOINT)
    validation, started = open_shard(shard_folder(work, None)), time.perf_counter() - seconds
    student.train()
    sums = np.zeros(4)
    while step < settings.steps:
        if step % settings.report_steps == 0:
            shards.refresh()
        for group in (group for mover in movers for group in mover.param_groups):
            group["lr"] = learning_rate(settings, step)
        batch = _tensors(shards.batch(settings.batch, np.random.default_rng((configuration.seed, step))))
        losses = student.losses(batch, _size(configuration, step))
        student.zero_grad(set_to_none=True)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), _LARGEST_GRADIENT)
        for mover in movers:
            mover.step()
        step += 1
        sums += [float(losses.total.detach()), losses.features, losses.maps, losses.soft_labels]
        if step % settings.report_steps == 0:
            total, features, maps, labels = sums / settings.report_steps
            sums[:] = 0
            print(
                f"step {step}: loss {total:.3f}, features {features:.3f}, maps {maps:.3f}, soft labels {labels:.3f}; "
                f"{time.perf_counter() - started:.0f} s, {len(shards)} crops",
                flush=True,
            )
        if step % settings.checkpoint_steps == 0 or step == settings.steps:
            save_checkpoint(student, movers, work / CHECKPOINT, step, time.perf_counter() - started)
            print(f"step {step}: {describe(validate(student, validation, _size(configuration, step)))}", flush=True)


def learning_rate(settings: Training, step: int) -> float:
    """Climbs, stays, and falls to zero over the last steps; so a longer training can go on from the middle part."""
    climb = min(1.0, (step + 1) / max(settings.warmup_steps, 1))
    fall = min(1.0, (settings.steps - step) / max(settings.decay_steps, 1))
    return settings.lr * min(climb, fall)


def validate(student: Student, shard: Shard, size: int) -> dict[str, float]:
    """On crops of held-out pictures of `size` pixels: share of the features' variance explained, same top label."""
    student.eval()
    explained, agrees, batch = [], [], 64
    with torch.inference_mode():
        for start in range(0, len(shard), batch):
            part = _tensors({name: values[start : start + batch] for name, values in shard.arrays.items()})
            features, _ = student.predict(part["pixels"], size)
            wanted = student.standard(part[FEATURES])
            explained.append(F.mse_loss(features, wanted, reduction="none").mean(dim=1))
            if student.classifier is not None:
                theirs = F.linear(part[FEATURES].float(), *student.classifier).argmax(1)
                agrees.append(F.linear(student.standard.undo(features), *student.classifier).argmax(1) == theirs)
    student.train()
    figures = {"explained": 1.0 - float(torch.cat(explained).mean())}
    return figures | ({"same_top_label": float(torch.cat(agrees).float().mean())} if agrees else {})


def describe(figures: dict[str, float]) -> str:
    """Validation figures as words."""
    return "held-out pictures: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


def save_checkpoint(student: Student, movers: Sequence[Optimizer], file: Path, step: int, seconds: float) -> None:
    """Write weights and moments in one step; no pickle."""
    tensors = {f"student.{name}": value.contiguous() for name, value in student.state_dict().items()}
    for kind, mover in enumerate(movers):
        for number, state in mover.state_dict()["state"].items():
            tensors |= {f"optimizer.{kind}.{number}.{name}": value.contiguous() for name, value in state.items()}
    write_bytes(file, save(tensors, {"step": str(step), "seconds": json.dumps(seconds)}))


def resume(student: Student, movers: Sequence[Optimizer], file: Path) -> tuple[int, float]:
    """Load a checkpoint where there is one; gives its step and the seconds that it took."""
    if not file.is_file():
        return 0, 0.0
    with safe_open(file, framework="pt") as stream:
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
        notes = stream.metadata()
    student.load_state_dict(_below(tensors, "student."))
    for kind, mover in enumerate(movers):
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(tensors, f"optimizer.{kind}.").items():
            number, key = name.split(".")
            moments.setdefault(int(number), {})[key] = value
        mover.load_state_dict({**mover.state_dict(), "state": moments})
    return int(notes["step"]), float(notes["seconds"])


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _size(configuration: Configuration, step: int) -> int:
    student = configuration.student
    return student.small_size if step < student.small_steps else student.size


def _tensors(batch: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.array(values)) for name, values in batch.items()}
