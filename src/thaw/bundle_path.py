"""Where a bundle is: in a run folder, in a folder of its own, or on a model hub; nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from thaw import hub
from thaw.errors import BundleError, DataError
from thaw.formats import count
from thaw.recipe import Task

FOLDER_IN_RUN = "model"
"""The folder of a run that holds its bundle."""

BASELINE_IN_RUN = "baseline"
"""The folder of a run that holds the bundle of its baseline."""

MODEL, CONFIG = "model.safetensors", "config.json"


def bundle_of(path: Path) -> Path:
    """The bundle in a run folder, a bundle folder, or at `hub:OWNER/NAME`, which is downloaded.

    Raises `DataError` where there is none, and `BundleError` where it cannot be downloaded.
    """
    if hub.is_hub_name(str(path)):
        # Windows writes the name with a backslash.
        return hub.fetch(path.as_posix())
    return local_bundle(path)


def local_bundle(path: Path) -> Path:
    """The bundle in a run folder or a bundle folder; raises `DataError` where there is none."""
    for folder in (path / FOLDER_IN_RUN, path):
        if (folder / CONFIG).is_file():
            return folder
    if not path.exists():
        raise DataError(f"{path}: there is no such run or bundle")
    baseline = path / BASELINE_IN_RUN
    if (baseline / CONFIG).is_file():
        raise DataError(
            f"{path}: this run has not finished; resume it with `thaw train DATA --resume`, or use its baseline, a "
            f"linear head: {baseline}"
        )
    raise DataError(
        f"{path}: neither a finished run nor a bundle; a bundle contains {CONFIG} and {MODEL}, and an unfinished run "
        "is resumed with `thaw train DATA --resume`"
    )


def labels_in(own: Mapping[str, Any]) -> tuple[Task, tuple[str, ...]]:
    """The task and the classes of what a bundle's config.json says under `thaw`; raises `ValueError`, `KeyError`."""
    task, classes = own["task"], own["classes"]
    if task not in get_args(Task):
        raise ValueError(f"task {task!r} is none of {', '.join(get_args(Task))}")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes are not a list of names")
    if len(set(classes)) < len(classes) or not classes or (task == "binary" and len(classes) != 2):
        raise ValueError(f"{count(len(classes), 'class name')}, for {task}, are too few, too many or not distinct")
    return task, tuple(classes)


def labels_of(bundle: Path) -> tuple[Task, tuple[str, ...]]:
    """The task of a bundle and its classes in the order of the outputs; raises `BundleError`."""
    try:
        return labels_in(json.loads((bundle / CONFIG).read_bytes())["thaw"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{bundle / CONFIG}: cannot be read ({error}); the bundle is incomplete") from error
