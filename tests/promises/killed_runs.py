"""Kill real training processes at chosen moments, resume each, and print the weights they end with as JSON.

    python -m tests.promises.killed_runs IMAGES FOLDER STRIDE

Forks a child for every run, so that PyTorch and the rest are imported once. A moment is the n-th time that a run
flushes a file (which still has a temporary name), renames one to its final name, or takes a training step. Every
STRIDE-th moment of an uninterrupted run is tried.
"""

import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import runs
from thaw.data.dataset import Dataset
from thaw.errors import ResumeError
from thaw.pipeline import finetune
from thaw.progress import NullReporter
from thaw.recipe import AugmentSettings, Phase, PreprocessingSettings, Recipe
from thaw.run_folder import RunFolder
from thaw.tensors import bytes_of_tensors
from thaw.training import checkpoint, epoch
from thaw.training.history import PLATEAU_PATIENCE

# The engine is fixed: before the plan is written, a resumed run may measure another one as the fastest.
RECIPE = Recipe(
    backbone="mobilenetv3_small_050",
    weights="random",
    engine="pytorch-fp32",
    precision="fp32",
    views=2,
    monitor="loss",
    preprocessing=PreprocessingSettings(image_size=32),
    augment=AugmentSettings(preset="light"),
    phases=(
        Phase(name="solved", cut="head", epochs=2, lr=1e-2, solver="lbfgs"),
        # Less confident, so that it is kept; the others are not.
        Phase(
            name="head", cut="head", epochs=2, lr=0.3, weight_decay=0.99, batch_size=16, solver="optimizer", mixup=1.0
        ),
        # No epoch lowers its validation loss, so that the learning rate is lowered and the phase stops early.
        Phase(
            name="top",
            cut="stages:2",
            epochs=6,
            lr=1e-3,
            batch_size=16,
            schedule="plateau",
            patience=PLATEAU_PATIENCE + 1,
            optimizer="rmsprop",
            freeze_after=(1,),
        ),
        Phase(name="uninterrupted", cut="pixels", epochs=2, lr=1e-3, batch_size=16, batchnorm="train", optimizer="sgd"),
    ),
)


IMPORTED_BY_A_RUN = (
    "thaw.backbones.timm_backbone",
    "thaw.reports.page",
    "cleanlab",
    "sklearn.linear_model",
    "thaw.data.duplicates",
    "tensorboard.compat.proto.summary_pb2",
    "tensorboard.summary.writer.event_file_writer",
)


class Moments:
    """Counts moments and kills this process at the fatal one."""

    def __init__(self, fatal: int | None) -> None:
        self.count, self.fatal = 0, fatal
        self.kinds: list[str] = []

    def watched(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if self.count == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1
            self.kinds.append(kind)
            return call(*args, **kwargs)

        return wrapper

    def install(self) -> None:
        os.fsync = self.watched("flush", os.fsync)
        os.replace = self.watched("replace", os.replace)
        epoch._train_step = self.watched("step", epoch._train_step)


def train(images: Path, place: Path, resume: bool, fatal: int | None) -> int:
    """Run in a child process; gives its exit code: 0, minus the signal that killed it, or 3 for nothing to resume."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        os.environ["THAW_CACHE"] = str(place / "cache")
        moments = Moments(fatal)
        moments.install()
        finetune(Dataset.open(images), RECIPE, place / "runs", resume, NullReporter())
        (place / "moments.json").write_text(json.dumps(moments.kinds))
        os._exit(0)
    except ResumeError:
        os._exit(3)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def outcome(place: Path) -> dict[str, Any]:
    """The result of a finished run."""
    run = RunFolder(place / "runs" / "train-1")
    weights, rows = runs.outcome(run)
    plan = run.read_plan()
    assert plan is not None
    last_phase = checkpoint.read(run.checkpoints, "phase")
    assert last_phase is not None
    leftovers = [str(file.relative_to(place)) for file in place.rglob("*.tmp")]
    return {
        "weights": weights,
        "weights_of_last_phase": hashlib.sha256(bytes_of_tensors(last_phase.weights)).hexdigest(),
        "metrics": rows,
        "kept": {gain.phase: gain.is_kept for gain in plan.gains},
        "runs": sorted(folder.name for folder in (place / "runs").iterdir()),
        "leftovers": leftovers,
    }


def fatal_moments(kinds: list[str], stride: int) -> list[int]:
    """Every `stride`-th moment of each kind, and at least one."""
    by_kind = {kind: [moment for moment, other in enumerate(kinds) if other == kind] for kind in kinds}
    return sorted({moment for each in by_kind.values() for moment in each[min(stride, len(each)) // 2 :: stride]})


def main() -> None:
    images, folder, stride = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    for module in IMPORTED_BY_A_RUN:
        importlib.import_module(module)
    uninterrupted = folder / "uninterrupted"
    uninterrupted.mkdir(parents=True)
    assert train(images, uninterrupted, resume=False, fatal=None) == 0
    kinds = json.loads((uninterrupted / "moments.json").read_text())
    kills = []
    for moment in fatal_moments(kinds, stride):
        place = folder / f"killed-{moment}"
        place.mkdir()
        exit_code = train(images, place, resume=False, fatal=moment)
        # A finished run lacks its report at most, for which no run is resumed.
        is_finished = RunFolder(place / "runs" / "train-1").is_finished
        resumed = 0 if is_finished else train(images, place, resume=True, fatal=None)
        started_again = resumed == 3
        if started_again:
            resumed = train(images, place, resume=False, fatal=None)
        result = outcome(place) if resumed == 0 else {}
        shutil.rmtree(place)
        kills.append(
            {
                "moment": moment,
                "kind": kinds[moment],
                "exit_code": exit_code,
                "was_finished": is_finished,
                "resumed": resumed,
                "started_again": started_again,
                **result,
            }
        )
    print(json.dumps({"moments": len(kinds), "uninterrupted": outcome(uninterrupted), "kills": kills}))


if __name__ == "__main__":
    main()
