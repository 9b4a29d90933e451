"""From a checkpoint to the file that travels with the package: half precision, with what rebuilds the network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch.nn.modules.batchnorm import _BatchNorm

from pretraining.configuration import Configuration
from pretraining.shards import PIXELS, Shards
from pretraining.student import Student
from thaw.atomic import write_bytes
from thaw.backbones.contract import Backbone

_BATCHES, _BATCH = 64, 128
_SILENT = 1e-4
"""A channel whose variance is smaller was the same for every crop; dividing by it would magnify the first surprise."""


@torch.no_grad()
def measure_statistics(student: Student, shards: Shards, size: int) -> None:
    """Measure BatchNorm's statistics anew, over 8,192 crops of the size that users' images get.

    The running ones remember the last few batches of smaller images. A channel that seldom wakes had next to
    no variance there, and each later layer magnified it: in a first training, features of one crop in a hundred
    were up to 500 times too large; measured anew, none was more than 7 times.
    """
    norms = [module for module in student.backbone.modules() if isinstance(module, _BatchNorm)]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None
    student.train()
    for number in range(_BATCHES):
        batch = shards.batch(_BATCH, np.random.default_rng(number))
        student.predict(torch.from_numpy(batch[PIXELS]), size)
    student.eval()


@torch.no_grad()
def mute_silent_channels(backbone: Backbone) -> int:
    """Make constant what was constant in training; gives the number of channels.

    A first training left 5 depthwise channels with a variance of 1e-33.
    """
    muted = 0
    for module in backbone.network.modules():
        if isinstance(module, _BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            silent = module.running_var < _SILENT
            module.weight[silent], module.running_var[silent] = 0.0, 1.0
            muted += int(silent.sum())
    return muted


def half_precision(backbone: Backbone) -> dict[str, torch.Tensor]:
    """The network's tensors; floats in half precision, which must hold them all."""
    tensors = {}
    for name, value in backbone.network.state_dict().items():
        half = value.half() if value.is_floating_point() else value
        if not torch.isfinite(half.float()).all():
            raise SystemExit(f"{name}: holds values beyond half precision")
        tensors[name] = half.contiguous()
    return tensors


def write_backbone(backbone: Backbone, configuration: Configuration, size: int, step: int, file: Path) -> str:
    """Write the safetensors file; gives its SHA-256."""
    facts = backbone.facts
    notes = {
        "architecture": facts.architecture,
        "mean": json.dumps(facts.mean),
        "std": json.dumps(facts.std),
        "input_size": json.dumps([3, size, size]),
        "crop_pct": "0.875",
        "interpolation": "bilinear",
        "distilled_from": configuration.teacher.backbone,
        "steps": str(step),
    }
    content = save(half_precision(backbone), notes)
    write_bytes(file, content)
    return hashlib.sha256(content).hexdigest()
