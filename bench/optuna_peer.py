"""A plain Optuna loop around the guide's PyTorch loop, to compare `thaw search` with: it trains each trial from images.

    python -m bench.optuna_peer split.csv --weights mobilenetv2_100.safetensors --pad-type same --seconds 300

Learning rates of both phases, their epochs, dropout and the depth of the second phase are sampled by Optuna's TPE, and
trials whose validation accuracy is below the median of earlier ones at the same epoch are pruned, as in its tutorial. A
trial that is running when the time is up is not counted. Prints a line of JSON for each trial, and at the end the
test accuracy of the best.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import optuna
import torch
from torch import nn
from torch.utils.data import DataLoader

from bench.guide_loop import Best, build, evaluate, loaders_of, read_rows, thaw, train_phase, transforms

DEPTHS = {
    "head": (),
    "top": ("conv_head", "bn2"),
    "two": ("blocks.6", "conv_head", "bn2"),
    "three": ("blocks.5", "blocks.6", "conv_head", "bn2"),
}


class TimeUp(Exception):
    """The time is used up."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--pad-type", default="")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    splits, classes = read_rows(options.table, None)
    loaders = loaders_of(splits, *transforms(options.size, [0.5] * 3, [0.5] * 3))
    found: list[tuple[Best, nn.Module]] = []

    def objective(trial: optuna.Trial) -> float:
        torch.manual_seed(options.seed + trial.number)
        padding = {"pad_type": options.pad_type} if options.pad_type else {}
        model, best = build(options.backbone, options.weights, len(classes), **padding), Best()
        model.dropout.p = trial.suggest_float("dropout", 0.0, 0.5)
        top = DEPTHS[trial.suggest_categorical("depth", list(DEPTHS))]
        rates = (
            trial.suggest_float("lr_head", 1e-4, 1e-2, log=True),
            trial.suggest_float("lr_top", 1e-5, 1e-3, log=True),
        )
        epochs = trial.suggest_int("epochs_head", 2, 10), trial.suggest_int("epochs_top", 2, 10)
        _phase(trial, "head", model, (), rates[0], epochs[0], loaders, best)
        model.load_state_dict(best.weights)
        if top:
            rate = trial.suggest_float("lr_top", 1e-5, 1e-3, log=True)
            _phase(trial, "top", model, top, rate, trial.suggest_int("epochs_top", 2, 10), loaders, best)
        found.append((best, model))
        line = {"seconds": time.perf_counter() - started, "trial": trial.number, "val": best.key[0], **trial.params}
        print(json.dumps(line), flush=True)
        return best.key[0]

    def _phase(
        trial: optuna.Trial,
        name: str,
        model: nn.Module,
        top: tuple[str, ...],
        rate: float,
        epochs: int,
        loaders: dict[str, DataLoader],
        best: Best,
    ) -> None:
        adam, first = torch.optim.Adam(thaw(model, top), lr=rate), 0 if name == "head" else 100
        for epoch in range(epochs):
            train_phase(name, model, adam, loaders, 1, False, best)
            if time.perf_counter() - started > options.seconds:
                raise TimeUp
            trial.report(best.key[0], first + epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=options.seed))
    study.optimize(objective, timeout=options.seconds, catch=(TimeUp,))
    seconds, states = time.perf_counter() - started, [trial.state.name for trial in study.trials]
    result = {"seconds": seconds, "trials": {state: states.count(state) for state in sorted(set(states))}}
    if found:
        best, model = max(found, key=lambda pair: pair[0].key)
        model.load_state_dict(best.weights)
        result |= {"val": best.key[0], "test": evaluate(model, loaders["test"], False)[0]}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
