"""What a run of `thaw train` writes while it runs, kept from outside, and its accuracy afterwards.

A run writes its baseline as a bundle, and replaces its checkpoint whenever an epoch is the best of its phase. A hard
link keeps each checkpoint, and costs the run nothing.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.versus.curve import Point

SECONDS_BETWEEN = 0.02
NAME: Literal["phase"] = "phase"
"""Of the checkpoints of a run, the one of the best epoch of the running phase."""


@dataclass(frozen=True)
class Kept:
    """One checkpoint: the folder with it and its pointer, and when it was written (Unix time)."""

    folder: Path
    written: float


class KeepCheckpoints:
    """Links the checkpoints of the run under `runs` into folders under `work` as they appear, from a thread.

    baseline: when the bundle of the baseline was there (Unix time); `None` where the run had none.
    """

    def __init__(self, runs: Path, work: Path) -> None:
        self.kept: list[Kept] = []
        self.baseline: float | None = None
        self._runs, self._work = runs, work
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> KeepCheckpoints:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._over.wait(SECONDS_BETWEEN)
            if self.baseline is None and any(self._runs.glob("*/baseline")):
                self.baseline = time.time()
            for pointer in self._runs.glob(f"*/checkpoints/{NAME}.json"):
                try:
                    self._keep(pointer)
                except FileNotFoundError:  # Replaced by the next one just now.
                    continue

    def _keep(self, pointer: Path) -> None:
        with pointer.open("rb") as stream:
            content, written = stream.read(), os.fstat(stream.fileno()).st_mtime
        file = pointer.with_name(json.loads(content)["file"])
        folder = self._work / file.stem
        if not (folder / pointer.name).exists():
            folder.mkdir(parents=True, exist_ok=True)
            os.link(file, folder / file.name)
            (folder / pointer.name).write_bytes(content)
            self.kept.append(Kept(folder, written))


def accuracies(
    run: Path, images: dict[Path, str], checkpoints: list[Kept], baseline: float | None = None
) -> list[Point]:
    """(Unix time, accuracy) of the baseline, and of each checkpoint of a phase that the run kept.

    Other checkpoints are no answers of this run.

    Each is tested from image files (and their labels), as the classifier of the bundle with its own weights.
    """
    import thaw
    from thaw.classifier.decision import Decision
    from thaw.evaluation.thresholds import WEIGHTS
    from thaw.run_folder import RunFolder
    from thaw.training import checkpoint

    def accuracy(classifier: thaw.Classifier) -> float:
        predictions = thaw.predict(classifier, images)
        return sum(prediction.labels == (images[prediction.path],) for prediction in predictions) / len(images)

    folder, classifier, points = RunFolder(run), thaw.load(run), []
    plan = folder.read_plan()
    assert plan is not None
    if baseline is not None:
        points.append((baseline, accuracy(thaw.load(folder.baseline))))
    if classifier.decision.reason.startswith(WEIGHTS):
        # Class weights are still in the head of a checkpoint; only the finished classifier has them in its decision.
        classifier.decision = Decision()
    kept_phases = {gain.phase for gain in plan.gains if gain.is_kept}
    for one in checkpoints:
        saved = checkpoint.read(one.folder, NAME)
        assert saved is not None
        if saved.progress.records[-1].phase in kept_phases:
            classifier.load_state_dict(saved.weights, strict=False)
            points.append((one.written, accuracy(classifier)))
    return points
