"""Kill real `thaw predict` processes at chosen moments, re-run them, and print the outcome as JSON.

    python killed_predictions.py BUNDLE IMAGES FOLDER NAME STRIDE

Every process is a forked child, so that PyTorch and timm are imported once. A moment is the n-th time that the table
or its record is flushed, or a file is replaced. Every STRIDE-th moment of an uninterrupted run is tried: a process is
killed there, re-run, killed after as many moments, and so on, until one finishes.
"""

import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thaw.bundle import digest_of
from thaw.pipeline import load
from thaw.prediction import job as predictions
from thaw.prediction.job import PredictJob, write_predictions
from thaw.progress import NullReporter

IMPORTED_BY_A_PREDICTION = ("thaw.backbones.timm_backbone",)


def watched(counts: list[int], fatal: int | None) -> None:
    """Count flushes and replacements, and kill this process at the chosen one.

    Before a flush of the table, the file has a block that no record counts.
    """
    flush, replace = os.fsync, os.replace

    def moment(call: Callable[..., Any], *arguments: Any) -> Any:
        if len(counts) == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        counts.append(1)
        return call(*arguments)

    os.fsync = lambda *arguments: moment(flush, *arguments)
    os.replace = lambda *arguments: moment(replace, *arguments)


def predict(bundle: Path, job: PredictJob, fatal: int | None) -> int:
    """Run in a child process; returns its exit code, or minus the signal that killed it."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        counts: list[int] = []
        predictions.BLOCK = predictions.BATCH = 4
        watched(counts, fatal)
        write_predictions(load(bundle), digest_of(bundle), job, job.out.parent, NullReporter())
        (job.out.parent / "moments").write_text(str(len(counts)))
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def outcome_of(bundle: Path, job: PredictJob, every: int) -> dict[str, object]:
    """Re-run until a process finishes, each killed `every` moments after its start."""
    deaths = 0
    job.out.parent.mkdir(parents=True)
    while (code := predict(bundle, job, every)) == -signal.SIGKILL and deaths < 100:
        deaths += 1
    left = sorted(file.name for file in job.out.parent.iterdir() if file.name != "moments")
    return {"every": every, "code": code, "deaths": deaths, "left": left}


def main() -> None:
    bundle, images, folder, name, stride = *map(Path, sys.argv[1:4]), sys.argv[4], int(sys.argv[5])
    for module in IMPORTED_BY_A_PREDICTION:
        importlib.import_module(module)
    whole = PredictJob((images,), folder / "whole" / name)
    whole.out.parent.mkdir(parents=True)
    assert predict(bundle, whole, None) == 0
    moments = int((folder / "whole" / "moments").read_text())
    # With fewer than eight moments a process might be killed before it writes a new block, and never finish.
    outcomes = [
        outcome_of(bundle, PredictJob((images,), folder / f"every-{every}" / name), every)
        for every in range(8, moments, stride)
    ]
    print(json.dumps({"moments": moments, "outcomes": outcomes}))


if __name__ == "__main__":
    main()
