"""From a checkpoint to the file that travels with the package: half precision, with what rebuilds the network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save

from pretraining.configuration import Configuration
from thaw.atomic import write_bytes
from thaw.backbones.contract import Backbone


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
