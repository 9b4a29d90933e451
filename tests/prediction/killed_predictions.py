"""Kill real `thaw predict` processes at chosen moments, run the same again, and print what came of it as JSON.

    python killed_predictions.py BUNDLE IMAGES FOLDER NAME STRIDE

Forks a child for every process, so that PyTorch is imported once. A moment is the n-th time that the table or its
record is flushed, or a file is about to be replaced. Every STRIDE-th moment of an undisturbed run is tried, and at
each a process dies, is run again, dies at the next moment of that kind, and so on, until one comes to its end.
"""

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


def watched(counts: list[int], fatal: int | None) -> None:
    """Count flushes and replacements, and die without warning at the chosen one.

    Before a flush of the table, a block is there that no record counts.
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
    """Run in a child of its own; gives how it ended: 0, or minus the signal."""
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


def story_of(bundle: Path, job: PredictJob, every: int) -> dict[str, object]:
    """Run again and again, each process dying `every` moments after its start, until one ends."""
    deaths = 0
    job.out.parent.mkdir(parents=True)
    while (code := predict(bundle, job, every)) == -signal.SIGKILL and deaths < 100:
        deaths += 1
    left = sorted(file.name for file in job.out.parent.iterdir() if file.name != "moments")
    return {"every": every, "code": code, "deaths": deaths, "left": left}


def main() -> None:
    bundle, images, folder, name, stride = *map(Path, sys.argv[1:4]), sys.argv[4], int(sys.argv[5])
    whole = PredictJob((images,), folder / "whole" / name)
    whole.out.parent.mkdir(parents=True)
    assert predict(bundle, whole, None) == 0
    moments = int((folder / "whole" / "moments").read_text())
    # Below eight moments a process may die again before it comes to a new block, and never end.
    stories = [
        story_of(bundle, PredictJob((images,), folder / f"every-{every}" / name), every)
        for every in range(8, moments, stride)
    ]
    print(json.dumps({"moments": moments, "stories": stories}))


if __name__ == "__main__":
    main()
