"""How good the plan is: planned runs compared with fixed alternatives, on the same splits of several data sets.

    python -m bench.regret steel/ cells-{seed}.csv --work FOLDER --seeds 5 --set weights=mobilenetv2_100.safetensors

The alternatives are head only, the top stages and the whole network, each with no, light and standard augmentation, a
head on the last or on all stages, and no or balanced class weights: 36 in all, of which `--only` takes those whose
names contain a word. `{seed}` in a path is replaced, for splits by group that depend on it (bench.group_splits).

All runs of a seed use the same split and decoded images. A planned run extracts features anew, and its time is from
the first image to the bundle; alternatives share features, and have no time. Runs that are already in
`FOLDER/regret.jsonl` are skipped. Prints, for each data set, the mean test accuracy of planned runs, the best
alternative by mean, the regret, and how often the estimate across groups contained the test accuracy.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import thaw
from bench.work_folder import use_work_folder
from thaw import trial
from thaw.cache import cache_folder, clear
from thaw.cli.parsing import parsed_settings
from thaw.progress import NullReporter
from thaw.recipe import FINE_TUNE_PHASE, HEAD_PHASE, Phase, SplitSettings
from thaw.run_folder import RunFolder
from thaw.training.outputs import probabilities_at

PLANNED = "planned"
DEPTHS: Mapping[str, tuple[Phase, ...]] = {
    "head": (HEAD_PHASE,),
    "top": (HEAD_PHASE, FINE_TUNE_PHASE),
    "whole": (HEAD_PHASE, FINE_TUNE_PHASE.model_copy(update={"cut": "pixels", "lr": FINE_TUNE_PHASE.lr / 3})),
}


def alternatives() -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, settings) of every fixed recipe."""
    for depth, preset, features, weights in product(
        DEPTHS, ("none", "light", "standard"), ("last", "all"), ("none", "balanced")
    ):
        settings = {
            "phases": [phase.model_dump(mode="json") for phase in DEPTHS[depth]],
            "augment.preset": preset,
            "head.features": features,
            "class_weights": weights,
            "measure.seconds": 0,
        }
        yield f"{depth}, {preset}, {features}, {weights}", settings


def run_planned(data: Path, recipe: thaw.Recipe, runs: Path) -> dict[str, Any]:
    """Train once as planned: test accuracy, seconds from the first image to the bundle, and what was expected."""
    clear(cache_folder(), ("features",))
    (cache_folder() / "measured.json").unlink(missing_ok=True)
    started = time.perf_counter()
    thaw.finetune(thaw.Dataset.open(data), recipe, runs, reporter=NullReporter())
    seconds = time.perf_counter() - started
    folder = RunFolder(runs / "train-1")
    metrics = json.loads(folder.evaluation.read_text())["test"]["overall"]
    plan = json.loads(folder.plan.read_text())
    measured = ("head.features", "class_weights", "augment.preset", "preprocessing")
    chosen = {choice["setting"]: choice["value"] for choice in plan["choices"] if choice["setting"] in measured}
    return {
        "accuracy": metrics["accuracy"]["value"],
        "balanced": metrics["balanced_accuracy"]["value"],
        "seconds": seconds,
        "estimates": plan.get("estimates"),
        "chosen": chosen,
    }


def run_alternative(data: Path, recipe: thaw.Recipe, runs: Path) -> dict[str, Any]:
    """Train once, without a bundle: test accuracy."""
    reporter = NullReporter()
    begun = trial.begin(thaw.Dataset.open(data), recipe, trial.TrialContext(runs, reporter))
    result = trial.train(begun, reporter)
    final = begun.inputs.evaluation_sources({record.phase for record in result.records}, ("test",))
    assert final is not None
    probabilities, targets = probabilities_at(begun.classifier, final.position, final.of_split["test"], "fp32")
    correct = probabilities.argmax(axis=1) == targets
    recalls = [float(correct[targets == label].mean()) for label in sorted(set(targets.tolist()))]
    return {"accuracy": float(correct.mean()), "balanced": statistics.mean(recalls)}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one row per data set."""
    header = "| set | seeds | planned | minutes | best alternative | its accuracy | regret | estimate holds |"
    lines = [header, "| --- " * 8 + "|"]
    for name in dict.fromkeys(row["set"] for row in rows):
        found = defaultdict(list)
        for row in rows:
            if row["set"] == name:
                found[row["recipe"]].append(row)
        planned = found.pop(PLANNED, [])
        if not planned:
            continue
        accuracy = statistics.mean(row["accuracy"] for row in planned)
        minutes = statistics.mean(row["seconds"] for row in planned) / 60
        seeds = {row["seed"] for row in planned}
        means = {
            recipe: statistics.mean(row["accuracy"] for row in runs)
            for recipe, runs in found.items()
            if {row["seed"] for row in runs} == seeds
        }
        best = max(means, key=lambda recipe: means[recipe], default="")
        regret = f"{100 * (means[best] - accuracy):+.1f}" if best else "-"
        other = f"{means[best]:.1%}" if best else "-"
        holds = [_holds(row) for row in planned if (row["estimates"] or {}).get("across")]
        kept = f"{sum(holds)} of {len(holds)}" if holds else "-"
        lines.append(
            f"| {name} | {len(planned)} | {accuracy:.1%} | {minutes:.1f} | {best} | {other} | {regret} | {kept} |"
        )
    return "\n".join(lines)


def _holds(row: dict[str, Any]) -> bool:
    across = row["estimates"]["across"]
    return bool(across["low"] <= row["accuracy"] <= across["high"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings common to all recipes")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[""], help="alternatives whose names contain one of these")
    parser.add_argument("--without-planned", action="store_true")
    arguments = parser.parse_args()
    base = thaw.Recipe().with_settings(parsed_settings(arguments.set))
    if arguments.data:
        use_work_folder(arguments.work, arguments.set)
    log = arguments.work / "regret.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["set"], row["recipe"], row["seed"]) for row in rows}
    chosen = {name: settings for name, settings in alternatives() if any(word in name for word in arguments.only)}
    recipes: dict[str, dict[str, Any]] = chosen if arguments.without_planned else {PLANNED: {}, **chosen}
    for pattern, seed in product(arguments.data, range(arguments.seeds)):
        name, data = Path(pattern).stem.replace("{seed}", "").strip("-_"), Path(pattern.replace("{seed}", str(seed)))
        for recipe_name, settings in recipes.items():
            if (name, recipe_name, seed) in done:
                continue
            recipe = base.model_copy(update={"seed": seed, "split": SplitSettings(seed=seed)}).with_settings(settings)
            runs = arguments.work / "runs"
            shutil.rmtree(runs, ignore_errors=True)
            result = (run_planned if recipe_name == PLANNED else run_alternative)(data, recipe, runs)
            rows.append({"set": name, "recipe": recipe_name, "seed": seed, **result})
            with log.open("a") as stream:
                stream.write(json.dumps(rows[-1]) + "\n")
            print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
