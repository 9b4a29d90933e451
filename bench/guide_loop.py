"""The standard transfer-learning guide as a plain PyTorch loop, as a baseline; timm and torchvision only.

Phase 1 trains a new head on the frozen network; phase 2 thaws the top blocks and continues with a lower
learning rate. BatchNorm keeps its statistics throughout. Every epoch decodes and augments every image and runs
the whole network, as the code of the guide does. The epoch of both phases that is best on validation is tested.
Prints one JSON object.

    python bench/guide_loop.py split.csv --weights mobilenetv2_100.safetensors --pad-type same --bf16

The CSV has the columns path (absolute, or relative to the CSV), label, split (train, val, test).
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

DEFAULT_TOP = ("blocks.5", "blocks.6", "conv_head", "bn2")


class ImageDataset(Dataset[tuple[Tensor, int]]):
    def __init__(self, rows: list[tuple[Path, int]], transform: v2.Transform) -> None:
        self.rows, self.transform = rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, target = self.rows[index]
        with Image.open(file) as image:
            return self.transform(image.convert("RGB")), target


@dataclass
class Best:
    """The best epoch so far: highest validation accuracy, ties to the lower loss."""

    key: tuple[float, float] = (-1.0, 0.0)
    phase: str = ""
    epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


def read_rows(file: Path, limit: int | None) -> tuple[dict[str, list[tuple[Path, int]]], list[str]]:
    """Rows of each split, at most `limit` of each, and the classes in order."""
    with file.open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    classes = sorted({row["label"] for row in table})
    splits: dict[str, list[tuple[Path, int]]] = {"train": [], "val": [], "test": []}
    for row in table:
        splits[row["split"]].append((file.parent / row["path"], classes.index(row["label"])))
    if limit is not None:
        order = torch.Generator().manual_seed(0)
        for split, rows in splits.items():
            chosen = torch.randperm(len(rows), generator=order)[:limit].tolist()
            splits[split] = [rows[index] for index in chosen]
    return splits, classes


def transforms(
    size: int, mean: Sequence[float], std: Sequence[float], crop_pct: float = 0.875
) -> tuple[v2.Transform, v2.Transform]:
    """The transform for training, with the augmentation of the guide, and the one for evaluation."""
    geometry = [v2.Resize(round(size / crop_pct), antialias=True), v2.CenterCrop(size)]
    augmentation = [
        v2.RandomHorizontalFlip(),
        v2.RandomAffine(
            degrees=15, translate=(0.05, 0.05), scale=(0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR
        ),
        v2.ColorJitter(brightness=0.1, contrast=0.1),
    ]
    to_input = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    return v2.Compose([*geometry, *augmentation, *to_input]), v2.Compose([*geometry, *to_input])


def build(name: str, weights: Path, classes: int, **model_args: Any) -> Any:
    """The pre-trained network up to global average pooling, then dropout and one linear layer."""
    backbone: Any = timm.create_model(name, pretrained=False, num_classes=0, **model_args)
    wanted = backbone.state_dict()
    backbone.load_state_dict({name: value for name, value in load_file(weights).items() if name in wanted})
    head = {"dropout": nn.Dropout(0.2), "classifier": nn.Linear(backbone.num_features, classes)}
    model = nn.Sequential(OrderedDict(backbone=backbone, **head))
    return model.to(memory_format=torch.channels_last)


def thaw(model: nn.Module, top: Sequence[str]) -> list[nn.Parameter]:
    """Freeze everything but the head and some modules of the backbone; gives the trainable parameters."""
    prefixes = ("classifier.", *(f"backbone.{name}." for name in top))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(prefixes)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def train_epoch(model: nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer, bf16: bool) -> None:
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for images, targets in loader:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(images.to(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


@torch.inference_mode()
def evaluate(model: nn.Module, loader: DataLoader, bf16: bool) -> tuple[float, float]:
    """Accuracy and mean loss."""
    model.eval()
    correct, loss, seen = 0, 0.0, 0
    for images, targets in loader:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(images.to(memory_format=torch.channels_last)).float()
        correct += int((logits.argmax(1) == targets).sum())
        loss += float(F.cross_entropy(logits, targets, reduction="sum"))
        seen += len(targets)
    return correct / seen, loss / seen


def train_phase(
    name: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loaders: dict[str, DataLoader],
    epochs: int,
    bf16: bool,
    best: Best,
    after_epoch: Callable[[], None] = lambda: None,
) -> list[float]:
    """Train for some epochs and keep the best one in `best`; gives the seconds of each epoch without `after_epoch`."""
    seconds = []
    for epoch in range(1, epochs + 1):
        started = time.perf_counter()
        train_epoch(model, loaders["train"], optimizer, bf16)
        accuracy, loss = evaluate(model, loaders["val"], bf16)
        print(f"{name} {epoch}/{epochs}: validation accuracy {accuracy:.4f}, loss {loss:.4f}", flush=True)
        if (accuracy, -loss) > best.key:
            best.key, best.phase, best.epoch = (accuracy, -loss), name, epoch
            best.weights = deepcopy(model.state_dict())
        seconds.append(time.perf_counter() - started)
        after_epoch()
    return seconds


def loaders_of(
    splits: dict[str, list[tuple[Path, int]]],
    train: v2.Transform,
    plain: v2.Transform,
    batch_size: int = 32,
    workers: int = 2,
) -> dict[str, DataLoader]:
    """A loader for each split; that of the train split shuffles and augments."""
    return {
        split: DataLoader(
            ImageDataset(rows, train if split == "train" else plain),
            batch_size=batch_size,
            shuffle=split == "train",
            num_workers=workers,
            persistent_workers=workers > 0 and split != "test",
        )
        for split, rows in splits.items()
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--pad-type", default="", help="`same` for weights that come from TensorFlow")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--mean", type=float, default=0.5)
    parser.add_argument("--std", type=float, default=0.5)
    parser.add_argument("--top", nargs="+", default=DEFAULT_TOP, help="modules that phase 2 thaws")
    parser.add_argument("--epochs-head", type=int, default=20)
    parser.add_argument("--epochs-top", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, help="use at most this many images of each split, for a trial run")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.manual_seed(arguments.seed)
    splits, classes = read_rows(arguments.table, arguments.limit)
    train, plain = transforms(arguments.size, [arguments.mean] * 3, [arguments.std] * 3)
    loaders = loaders_of(splits, train, plain, arguments.batch_size, arguments.workers)
    padding = {"pad_type": arguments.pad_type} if arguments.pad_type else {}
    model, best = build(arguments.backbone, arguments.weights, len(classes), **padding), Best()
    adam = torch.optim.Adam(thaw(model, ()), lr=1e-3)
    seconds = {"head": sum(train_phase("head", model, adam, loaders, arguments.epochs_head, arguments.bf16, best))}
    model.load_state_dict(best.weights)
    adam = torch.optim.Adam(thaw(model, arguments.top), lr=1e-4)
    seconds["top"] = sum(train_phase("top", model, adam, loaders, arguments.epochs_top, arguments.bf16, best))
    model.load_state_dict(best.weights)
    accuracy, loss = evaluate(model, loaders["test"], arguments.bf16)
    result = {
        "test_accuracy": accuracy,
        "test_loss": loss,
        "test_images": len(splits["test"]),
        "val_accuracy": best.key[0],
        "best": f"{best.phase} {best.epoch}",
        "seconds": {**seconds, "total": sum(seconds.values())},
        "settings": {name: str(value) for name, value in vars(arguments).items()},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
