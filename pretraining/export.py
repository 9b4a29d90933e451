"""From a checkpoint to the bundled weights file: half precision, with the metadata that rebuilds the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from pretraining.configuration import Configuration
from pretraining.shards import Shards
from pretraining.student import Range
from thaw.backbones.contract import Backbone
from thaw.backbones.weights import write_file

_BATCHES, _BATCH = 64, 128
_SILENT = 1e-4
"""A channel with a smaller variance was constant on all crops; dividing by it would amplify any deviation."""


@torch.no_grad()
def measure_statistics(student: Backbone, shards: Shards) -> None:
    """Recompute the BatchNorm statistics over 8,192 crops, with every block fed by the student's previous block.

    The running statistics only cover the last few batches, with every block fed by the teacher.
    """
    norms = [module for module in student.network.modules() if isinstance(module, _BatchNorm)]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None
    student.thaw(student.cut("pixels"), "train")
    student.train()
    whole = Range(0, len(student.blocks))
    for number in range(_BATCHES):
        (pixels,) = shards.batch(_BATCH, np.random.default_rng(number))
        student(whole.values(student, pixels))
    student.eval()


@torch.no_grad()
def mute_silent_channels(backbone: Backbone) -> int:
    """Make channels constant that were constant in training; returns their number.

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


def write_backbone(backbone: Backbone, configuration: Configuration, size: int, file: Path) -> str:
    """Write the safetensors file for images of `size` pixels, in half precision; returns its SHA-256."""
    backbone.facts = replace(backbone.facts, pixels=replace(backbone.facts.pixels, size=size))
    return write_file(backbone, file, half=True, notes={"distilled_from": configuration.teacher})
