"""Hugging Face `Trainer` on the timm network of the guide, its default linear schedule, in two calls of `train`.

Each call ends with its own best epoch; a second phase that loses is not undone, as in the code that people write.
"""

from __future__ import annotations

import os
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms import v2
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments

from bench.guide_loop import ImageDataset, build, evaluate, loaders_of, thaw, transforms
from bench.versus import interface
from bench.versus.curve import seconds_since_birth
from bench.versus.jobs import BATCH_SIZE, HEAD_RATE, TOP_RATE
from bench.versus.memory import PeakMemory


class Labelled(Dataset[dict[str, Any]]):
    """Images as the dictionaries that `Trainer` expects."""

    def __init__(self, rows: list[tuple[Path, int]], transform: v2.Transform) -> None:
        self._images = ImageDataset(rows, transform)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        pixels, target = self._images[index]
        return {"pixel_values": pixels, "labels": target}


class Network(nn.Module):
    """Returns a loss, as `Trainer` expects; its BatchNorm stays in inference mode."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.model(pixel_values)
        if labels is None:
            return {"logits": logits}
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    def train(self, mode: bool = True) -> Network:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


class EpochClock(TrainerCallback):
    """Seconds of each epoch with its validation; calls a function after each."""

    def __init__(self, after_epoch: Callable[[], None]) -> None:
        self.seconds: list[float] = []
        self._started = 0.0
        self._after_epoch = after_epoch

    def on_epoch_begin(self, *_: object, **__: object) -> None:
        self._started = time.perf_counter()

    def on_evaluate(self, *_: object, **__: object) -> None:
        self.seconds.append(time.perf_counter() - self._started)
        self._after_epoch()


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def train(
    network: Network,
    data: dict[str, Labelled],
    epochs: int,
    rate: float,
    folder: Path,
    arguments: Namespace,
    clock: EpochClock,
) -> Trainer:
    """Train one phase and leave the network at its best epoch."""
    settings = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        learning_rate=rate,
        per_device_train_batch_size=BATCH_SIZE,
        per_device_eval_batch_size=BATCH_SIZE,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        dataloader_num_workers=arguments.workers,
        dataloader_persistent_workers=arguments.workers > 0,
        remove_unused_columns=False,
        use_cpu=True,
        bf16=arguments.precision == "bf16",
        seed=arguments.seed,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        network, settings, train_dataset=data["train"], eval_dataset=data["val"], compute_metrics=accuracy
    )
    trainer.add_callback(clock)
    trainer.train()
    return trainer


def main() -> None:
    arguments, outcome = interface.begin(__doc__, ("fp32", "bf16"))
    outcome.seconds["start"] = seconds_since_birth()
    with PeakMemory(os.getpid()) as peak, tempfile.TemporaryDirectory() as folder:
        with outcome.part("data"):
            torch.manual_seed(arguments.seed)
            splits, classes = interface.read_rows(arguments.table, arguments.limit)
            preprocessing = interface.read_preprocessing(arguments.weights)
            changing, plain = transforms(
                preprocessing.size, preprocessing.mean, preprocessing.std, preprocessing.crop_pct
            )
            data = {split: Labelled(rows, changing if split == "train" else plain) for split, rows in splits.items()}
            model = build(arguments.backbone, arguments.weights, len(classes), **preprocessing.model_args)
            # `Trainer` cannot save weights in channels_last memory format.
            network = Network(model.to(memory_format=torch.contiguous_format))
            outcome.notes.append("weights not channels_last, which `Trainer` cannot save")
            loader = loaders_of(splits, changing, plain, BATCH_SIZE, arguments.workers)["test"]

            def accuracy_on_test() -> float:
                return evaluate(network.model, loader, arguments.precision == "bf16")[0]

        phases: list[interface.Phase] = [("phase1", arguments.epochs_head, (), HEAD_RATE)]
        if arguments.epochs_top:
            phases.append(("phase2", arguments.epochs_top, interface.facts_of(arguments).timm_top, TOP_RATE))
        for name, epochs, top, rate in phases:
            with outcome.part(name):
                thaw(network.model, top)
                clock = EpochClock(lambda: outcome.test_epoch(accuracy_on_test))
                trainer = train(network, data, epochs, rate, Path(folder) / name, arguments, clock)
                outcome.epoch_seconds[name] = clock.seconds
                outcome.val_accuracy = trainer.state.best_metric
        with outcome.part("evaluation"):
            # Not `evaluate`: with persistent workers it always iterates over the validation loader.
            outcome.test(lambda: trainer.predict(data["test"]).metrics["test_accuracy"])
    interface.finish(outcome, peak, ("torch", "torchvision", "timm", "transformers", "accelerate"))


if __name__ == "__main__":
    main()
