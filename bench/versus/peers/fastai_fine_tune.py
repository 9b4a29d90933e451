"""fastai's `fine_tune` with its own schedules and augmentation, on the timm network of the guide.

`unfreeze` is bent to stop at the top that the job names, and BatchNorm stays in inference mode; both make fastai
faster than it is by default, where it trains BatchNorm from the first phase on.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import Learner  # patches `fine_tune` and `fit_one_cycle` into Learner
from fastai.callback.tracker import SaveModelCallback
from fastai.data.load import DataLoader
from fastai.metrics import accuracy
from fastai.torch_core import params, set_seed
from fastai.vision.augment import RandomCrop, Resize, aug_transforms
from fastai.vision.core import PILImage
from fastai.vision.data import CategoryBlock, ColReader, ColSplitter, DataBlock, DataLoaders, ImageBlock, Normalize
from torch import nn

from bench.guide_loop import build
from bench.versus import interface
from bench.versus.curve import seconds_since_birth
from bench.versus.jobs import BATCH_SIZE
from bench.versus.memory import PeakMemory


class TopLearner(Learner):
    """Unfreezes only down to the second of the three groups: rest, top, head."""

    def unfreeze(self) -> None:
        self.freeze_to(-2)


class FrozenBatchNorm(Callback):
    """Keeps all BatchNorm in inference mode."""

    def before_train(self) -> None:
        for module in self.learn.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


class EpochClock(Callback):
    """Seconds of each epoch with its validation, one list for each call of `fit`."""

    def __init__(self) -> None:
        self.seconds: list[list[float]] = []

    def before_fit(self) -> None:
        self.seconds.append([])

    def before_epoch(self) -> None:
        self.started = time.perf_counter()

    def after_epoch(self) -> None:
        self.seconds[-1].append(time.perf_counter() - self.started)


class TestOfEpoch(Callback):
    """Calls a function after each epoch, last of all callbacks.

    fastai makes a callback an attribute of the learner by its name, so it must not be named after an event.
    """

    order = 100

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    def after_epoch(self) -> None:
        self.call()


@torch.inference_mode()
def accuracy_of(model: nn.Module, loader: DataLoader) -> float:
    """Accuracy beside a running `fit`, which `Learner.validate` would disturb."""
    model.eval()
    correct = [model(images).argmax(1) == targets for images, targets in loader]
    return float(torch.cat(correct).float().mean())


def loaders(splits: dict, preprocessing: interface.Preprocessing, workers: int) -> tuple[DataLoaders, pd.DataFrame]:
    """Train and validation loaders, and the table of test rows."""
    columns = ["file", "target", "is_valid"]
    rows = [(str(file), target, split == "val") for split in ("train", "val") for file, target in splits[split]]
    block = DataBlock(
        blocks=(ImageBlock(PILImage), CategoryBlock(vocab=sorted({target for _, target, _ in rows}))),
        get_x=ColReader("file"),
        get_y=ColReader("target"),
        splitter=ColSplitter("is_valid"),
        item_tfms=[Resize(round(preprocessing.size / preprocessing.crop_pct)), RandomCrop(preprocessing.size)],
        batch_tfms=[
            *aug_transforms(max_rotate=15.0, min_zoom=0.9, max_zoom=1.1, max_lighting=0.1, max_warp=0.0),
            Normalize.from_stats(preprocessing.mean, preprocessing.std, cuda=False),
        ],
    )
    dls = block.dataloaders(pd.DataFrame(rows, columns=columns), bs=BATCH_SIZE, num_workers=workers, device="cpu")
    test = pd.DataFrame([(str(file), target, False) for file, target in splits["test"]], columns=columns)
    return dls, test


def main() -> None:
    arguments, outcome = interface.begin(__doc__)
    outcome.seconds["start"] = seconds_since_birth()
    outcome.notes.append("shift by random crop, for fastai has no translation")
    with PeakMemory(os.getpid()) as peak, tempfile.TemporaryDirectory() as folder:
        with outcome.part("data"):
            set_seed(arguments.seed)
            splits, classes = interface.read_rows(arguments.table, arguments.limit)
            preprocessing = interface.read_preprocessing(arguments.weights)
            dls, test = loaders(splits, preprocessing, arguments.workers)
            model = build(arguments.backbone, arguments.weights, len(classes), **preprocessing.model_args)
            prefixes = tuple(f"{name}." for name in interface.facts_of(arguments).timm_top)

            def groups(model: Any) -> list[list[nn.Parameter]]:
                named = list(model.backbone.named_parameters())
                rest = [value for name, value in named if not name.startswith(prefixes)]
                top = [value for name, value in named if name.startswith(prefixes)]
                return [rest, top, params(model.classifier)]

            clock = EpochClock()
            best = SaveModelCallback(monitor="accuracy", reset_on_fit=False)
            learner = TopLearner(
                dls,
                model,
                loss_func=nn.CrossEntropyLoss(),
                splitter=groups,
                metrics=accuracy,
                train_bn=False,
                path=folder,
                cbs=[FrozenBatchNorm(), clock, TestOfEpoch(lambda: outcome.test_epoch(accuracy_on_test))],
            )

            def accuracy_on_test() -> float:
                return accuracy_of(learner.model, dls.test_dl(test, with_labels=True))

        started = time.perf_counter()
        with learner.no_bar():
            if arguments.epochs_top:
                learner.fine_tune(arguments.epochs_top, freeze_epochs=arguments.epochs_head, cbs=best)
            else:
                learner.freeze()
                learner.fit_one_cycle(arguments.epochs_head, slice(2e-3), pct_start=0.99, cbs=best)
        spent = time.perf_counter() - started
        for name, seconds in zip(("phase1", "phase2"), clock.seconds, strict=False):
            outcome.epoch_seconds[name] = seconds
            outcome.seconds[name] = sum(seconds)
        outcome.seconds["phase1"] += spent - sum(map(sum, clock.seconds))
        with outcome.part("evaluation"):
            outcome.val_accuracy = float(best.best)
            outcome.test(accuracy_on_test)
    interface.finish(outcome, peak, ("fastai", "torch", "torchvision", "timm"))


if __name__ == "__main__":
    main()
