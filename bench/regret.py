"""How good the plan is: the planned recipe compared with four fixed ones, on the same splits of several data sets.

    python -m bench.regret steel/ insects/ cells.csv --work FOLDER --seeds 5 --set weights=mobilenetv2_100.safetensors

All runs of a seed use the same split and decoded images; every run extracts features anew, so that times are
comparable. Runs that are already in `FOLDER/regret.jsonl` are skipped. Prints, for each data set, the mean test
accuracy and minutes of each recipe, and the regret of the plan: the difference to the fixed recipe with the best mean.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import time
from collections import defaultdict
from pathlib import Path

import thaw
from thaw.cache import cache_folder, clear
from thaw.cli.parsing import parsed_settings
from thaw.progress import NullReporter
from thaw.recipe import FINE_TUNE_PHASE, HEAD_PHASE, Phase, SplitSettings
from thaw.run_folder import RunFolder

PLANNED = "planned"


def thawing(cut: str, **changes: object) -> tuple[Phase, ...]:
    """The head, then everything above a cut."""
    return HEAD_PHASE, FINE_TUNE_PHASE.model_copy(update={"cut": cut, **changes})


FIXED: dict[str, tuple[Phase, ...]] = {
    "head only": (HEAD_PHASE,),
    "guide's default": thawing(FINE_TUNE_PHASE.cut),
    "top two stages": thawing("stages:2"),
    "whole network": thawing("pixels", lr=FINE_TUNE_PHASE.lr / 3),
}


def run(data: Path, name: str, seed: int, base: thaw.Recipe, work: Path) -> dict[str, object]:
    """Train once; returns test accuracy and the seconds from the first image to the bundle."""
    recipe = base.model_copy(update={"seed": seed, "split": SplitSettings(seed=seed)})
    if name != PLANNED:
        recipe = recipe.model_copy(update={"phases": FIXED[name], "strategy": "manual"})
    runs = work / f"{data.stem}-{seed}-{name.replace(' ', '-')}"
    shutil.rmtree(runs, ignore_errors=True)
    clear(cache_folder(), ("features",))
    started = time.perf_counter()
    thaw.finetune(thaw.Dataset.open(data), recipe, runs, reporter=NullReporter())
    seconds = time.perf_counter() - started
    folder = RunFolder(runs / "train-1")
    metrics = json.loads(folder.evaluation.read_text())["test"]["overall"]
    return {
        "set": data.stem,
        "recipe": name,
        "seed": seed,
        "accuracy": metrics["accuracy"]["value"],
        "seconds": seconds,
    }


def table(rows: list[dict[str, object]]) -> str:
    """Markdown: one row per data set; a cell is mean accuracy (standard deviation over seeds) and mean minutes."""
    columns = [PLANNED, *FIXED]
    lines = ["| set | seeds | " + " | ".join(columns) + " | regret |", "| --- " * (len(columns) + 3) + "|"]
    for name in dict.fromkeys(str(row["set"]) for row in rows):
        found = defaultdict(list)
        for row in rows:
            if row["set"] == name:
                found[str(row["recipe"])].append(row)
        cells, means = [], {}
        for column in columns:
            values = [float(str(row["accuracy"])) for row in found[column]]
            if not values:
                cells.append("-")
                continue
            means[column] = statistics.mean(values)
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            minutes = statistics.mean(float(str(row["seconds"])) for row in found[column]) / 60
            cells.append(f"{means[column]:.1%} ({spread:.1%}), {minutes:.1f} min")
        best = max((value for column, value in means.items() if column != PLANNED), default=0.0)
        regret = f"{best - means[PLANNED]:+.1%}" if PLANNED in means else "-"
        lines.append(f"| {name} | {len(found[PLANNED])} | " + " | ".join(cells) + f" | {regret} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="*")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings common to all recipes")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recipes", nargs="+", default=[PLANNED, *FIXED], choices=[PLANNED, *FIXED])
    arguments = parser.parse_args()
    base = thaw.Recipe().with_settings(parsed_settings(arguments.set))
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("THAW_CACHE", str(arguments.work / "cache"))
    log = arguments.work / "regret.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["set"], row["recipe"], row["seed"]) for row in rows}
    for data in arguments.data:
        for seed in range(arguments.seeds):
            for name in arguments.recipes:
                if (data.stem, name, seed) not in done:
                    rows.append(run(data, name, seed, base, arguments.work))
                    with log.open("a") as stream:
                        stream.write(json.dumps(rows[-1]) + "\n")
                    print(rows[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
