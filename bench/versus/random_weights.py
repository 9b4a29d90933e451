"""Random weights of a timm network in one file, so that all PyTorch peers start from the same. Needs timm.

Accuracy from random weights below a frozen cut says nothing; time is the same as with real ones.

    python -m bench.versus.random_weights resnet50 FOLDER --seed 0
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file


def write(name: str, folder: Path, seed: int) -> Path:
    """FOLDER/model.safetensors and its config.json."""
    torch.manual_seed(seed)
    model: Any = timm.create_model(name, pretrained=False, num_classes=0)
    given = {key: model.pretrained_cfg[key] for key in ("mean", "std", "crop_pct", "input_size")}
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architecture": name, "model_args": {}, "pretrained_cfg": given}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    file = folder / "model.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, file)
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(write(arguments.name, arguments.folder, arguments.seed))


if __name__ == "__main__":
    main()
