"""The guide as a plain PyTorch loop: timm and torchvision, channels_last, the whole network in every epoch."""

from __future__ import annotations

import os

import torch

from bench.guide_loop import Best, build, evaluate, loaders_of, thaw, train_phase, transforms
from bench.versus import interface
from bench.versus.curve import seconds_since_birth
from bench.versus.jobs import BATCH_SIZE, HEAD_RATE, TOP_RATE
from bench.versus.memory import PeakMemory


def main() -> None:
    arguments, outcome = interface.begin(__doc__, ("fp32", "bf16"))
    outcome.seconds["start"] = seconds_since_birth()
    bf16 = arguments.precision == "bf16"
    with PeakMemory(os.getpid()) as peak:
        with outcome.part("data"):
            torch.manual_seed(arguments.seed)
            splits, classes = interface.read_rows(arguments.table, arguments.limit)
            preprocessing = interface.read_preprocessing(arguments.weights)
            changes = transforms(preprocessing.size, preprocessing.mean, preprocessing.std, preprocessing.crop_pct)
            loaders = loaders_of(splits, *changes, BATCH_SIZE, arguments.workers)
            model = build(arguments.backbone, arguments.weights, len(classes), **preprocessing.model_args)
            best = Best()

            def accuracy() -> float:
                return evaluate(model, loaders["test"], bf16)[0]

        phases: list[interface.Phase] = [("phase1", arguments.epochs_head, (), HEAD_RATE)]
        if arguments.epochs_top:
            phases.append(("phase2", arguments.epochs_top, interface.facts_of(arguments).timm_top, TOP_RATE))
        for name, epochs, top, rate in phases:
            with outcome.part(name):
                adam = torch.optim.Adam(thaw(model, top), lr=rate)
                outcome.epoch_seconds[name] = train_phase(
                    name, model, adam, loaders, epochs, bf16, best, lambda: outcome.test_epoch(accuracy)
                )
                model.load_state_dict(best.weights)
        with outcome.part("evaluation"):
            outcome.val_accuracy = best.key[0]
            outcome.test(accuracy)
    interface.finish(outcome, peak, ("torch", "torchvision", "timm"))


if __name__ == "__main__":
    main()
