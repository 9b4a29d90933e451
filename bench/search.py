"""What a search finds, compared with the plan: test accuracy of both, and what a trial of each level costs.

    python -m bench.search cells-{seed}.csv steel-{seed}.csv --seeds 0 1 --seconds 240 --work FOLDER --set threads=1

`{seed}` in a path is replaced, for splits that depend on it (bench.elpv_csv, bench.folder_csv). Each search is a fresh
process with its own cache, so that its time is that of a person who has computed nothing yet. Searches whose line is in
`FOLDER/searches.jsonl` are skipped; a folder is for one `--set` and `--space`. Prints for each search the monitored
metric on the test images of the plan and of the best trial, both trained afresh, their difference with its interval,
and the answer; then the median seconds of a trial at each level, and how many times cheaper that is than training the
same recipe from the images on, which is measured once for each search with an empty cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.work_folder import use_work_folder
from thaw.evaluation.compare import compare
from thaw.evaluation.records import read_records
from thaw.run_folder import RunFolder
from thaw.run_folder.search_folder import SearchFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="tables or folders; {seed} is replaced")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--work", type=Path, required=True, help="folder for searches and results")
    parser.add_argument("--set", dest="settings", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--space", type=Path, help="ranges (YAML)")
    options = parser.parse_args()
    if seeds := [each for each in options.settings if each.partition("=")[0] in ("seed", "split.seed")]:
        parser.error(f"--set {seeds[0]}: the seed of each search is that of --seeds")
    use_work_folder(options.work, [*options.settings, *([options.space.read_text("utf-8")] if options.space else [])])
    log = options.work / "searches.jsonl"
    done = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    for seed in options.seeds:
        for data in options.data:
            key = f"{data} {seed} {options.seconds:g}"
            if any(line["key"] == key for line in done):
                continue
            found = _search(data.format(seed=seed), seed, options)
            done.append({"key": key, "data": data, "seed": seed, **found})
            with log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(done[-1]) + "\n")
    _print(done)


def _search(data: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """One search, and a plain training of the recipe that its best trial has."""
    runs = options.work / f"{Path(data).stem}-{seed}-{options.seconds:g}"
    settings = [f"--set={each}" for each in (*options.settings, f"seed={seed}", f"split.seed={seed}")]
    space = ["--space", str(options.space)] if options.space else []
    limit = ["--time", f"{options.seconds:g}s"]
    seconds = _timed(["search", data, *settings, *space, *limit, "--runs", str(runs)])
    # One that was interrupted has an earlier number.
    folder = SearchFolder.newest_first(runs)[0]
    records = folder.read_records()
    by_level = defaultdict(list)
    for record in records:
        if record.state in ("complete", "pruned"):
            by_level[record.level].append(record.seconds)
    plain = _timed(["train", data, "--recipe", str(_best_recipe(folder)), "--runs", str(runs / "plain")])
    return {
        "seconds": seconds,
        "trials": {level: len(taken) for level, taken in by_level.items()},
        "trial_seconds": {level: statistics.median(taken) for level, taken in by_level.items()},
        "plain_seconds": plain,
        **_compared(folder),
    }


def _best_recipe(folder: SearchFolder) -> Path:
    return folder.winner if folder.winner.exists() else folder.recipe


def _compared(folder: SearchFolder) -> dict[str, Any]:
    """The plan's and the best trial's value on test; the same where the plan is the best trial."""
    plan, best = (RunFolder(folder.final / f"train-{number}") for number in (1, 2))
    monitor = folder.read_file().monitor
    if not best.is_finished:
        return {"monitor": monitor, "plan": None, "best": None, "difference": 0.0, "low": 0.0, "high": 0.0}
    estimates = [run.read_evaluation().evaluations["test"].overall[monitor] for run in (plan, best)]
    values = [estimate.value if estimate else None for estimate in estimates]
    found = compare(*(read_records(run.predictions, "test") for run in (plan, best))).differences[monitor]
    return {
        "monitor": monitor,
        "plan": values[0],
        "best": values[1],
        "difference": found.value,
        "low": found.low,
        "high": found.high,
    }


def _timed(arguments: Sequence[str]) -> float:
    """Seconds of a command of Thaw with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        command = [sys.executable, "-m", "thaw", *arguments]
        subprocess.run(command, check=True, env={**os.environ, "THAW_CACHE": cache}, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started


def _print(done: Sequence[dict[str, Any]]) -> None:
    print("| data | seed | trials | plan | best trial | difference (95% interval) | answer | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for line in done:
        trials = ", ".join(f"{number} {level}" for level, number in line["trials"].items())
        if line["plan"] is None:
            values = "- | - | 0.0 | the plan is the best trial"
        else:
            answer = "better" if line["low"] > 0 else "worse" if line["high"] < 0 else "within noise"
            plan, best, *gains = (100 * line[name] for name in ("plan", "best", "difference", "low", "high"))
            values = f"{plan:.1f} | {best:.1f} | {gains[0]:+.1f} ({gains[1]:+.1f} to {gains[2]:+.1f}) | {answer}"
        name = Path(line["data"]).stem.replace("-{seed}", "")
        print(f"| {name} | {line['seed']} | {trials} | {values} | {line['seconds']:.0f} |")
    gains = [line["difference"] for line in done]
    print(f"\nMean difference: {100 * statistics.mean(gains):+.2f} points over {len(gains)} searches.")
    for level in ("probe", "head", "short", "full"):
        ratios = [
            line["plain_seconds"] / line["trial_seconds"][level] for line in done if level in line["trial_seconds"]
        ]
        if ratios:
            print(f"A trial of level {level} costs 1/{statistics.median(ratios):.0f} of training (median).")


if __name__ == "__main__":
    main()
