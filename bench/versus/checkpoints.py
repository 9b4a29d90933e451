"""The checkpoints that a run of `thaw train` writes, kept from outside while it runs, and their accuracy afterwards.

A run replaces its checkpoint whenever an epoch is the best of its phase. A hard link keeps each of them, and costs the
run nothing.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from bench.versus.curve import Point

SECONDS_BETWEEN = 0.02
NAME = "phase"
"""Of the checkpoints of a run, the one of the best epoch of the running phase."""


@dataclass(frozen=True)
class Kept:
    """One checkpoint: the folder with it and its pointer, and when it was written (Unix time)."""

    folder: Path
    written: float


class KeepCheckpoints:
    """Links the checkpoints of the run under `runs` into folders under `work` as they appear, from a thread."""

    def __init__(self, runs: Path, work: Path) -> None:
        self.kept: list[Kept] = []
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


def accuracies(run: Path, images: dict[Path, str], checkpoints: list[Kept]) -> list[Point]:
    """(Unix time, accuracy) of each checkpoint of a phase that the run kept; others are no answers of this run.

    Each is tested from image files (and their labels), as the classifier of the bundle with its own weights.
    """
    import thaw
    from thaw.run_folder import RunFolder
    from thaw.training import checkpoint

    plan, classifier = RunFolder(run).read_plan(), thaw.load(run)
    assert plan is not None
    kept_phases = {gain.phase for gain in plan.gains if gain.is_kept}
    points = []
    for one in checkpoints:
        saved = checkpoint.read(one.folder, NAME)
        assert saved is not None
        if saved.progress.records[-1].phase in kept_phases:
            classifier.load_state_dict(saved.weights, strict=False)
            found = thaw.predict(classifier, images)
            correct = sum(prediction.labels == (images[prediction.path],) for prediction in found)
            points.append((one.written, correct / len(images)))
    return points
