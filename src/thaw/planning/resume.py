"""Whether an interrupted run can resume: its data and recipe must be unchanged."""

from __future__ import annotations

from thaw.backbones.default import NETWORK
from thaw.data.manifest import Manifest
from thaw.errors import ResumeError
from thaw.recipe import DEFAULT_BACKBONE, Recipe

_SHOWN = 5


def check_same_recipe(began: Recipe, now: Recipe) -> None:
    """Raise `ResumeError` with each setting that differs."""
    # The default of release 0.1, and what it is called since.
    if (began.backbone, now.backbone) == (NETWORK, DEFAULT_BACKBONE):
        now = now.model_copy(update={"backbone": NETWORK})
    if differences := began.differences(now):
        lines = "\n".join(f"  {line}" for line in differences)
        raise ResumeError(f"the recipe has changed since this run began:\n{lines}\nstart a new run without --resume")


def check_same_data(began: Manifest, now: Manifest) -> None:
    """Raise `ResumeError` with the images that were added, removed, changed or relabelled."""
    old, new = _rows(began), _rows(now)
    differences = [
        ("added", [path for path in new if path not in old]),
        ("removed", [path for path in old if path not in new]),
        ("changed", [path for path in new if path in old and new[path] != old[path]]),
    ]
    lines = [
        f"  {len(paths)} {what}: {', '.join(paths[:_SHOWN])}{', …' if len(paths) > _SHOWN else ''}"
        for what, paths in differences
        if paths
    ]
    if began.classes != now.classes:
        lines.append(f"  classes: {', '.join(began.classes)} -> {', '.join(now.classes)}")
    if lines:
        story = "\n".join(lines)
        raise ResumeError(f"the images have changed since this run began:\n{story}\nstart a new run without --resume")


def _rows(manifest: Manifest) -> dict[str, tuple[object, ...]]:
    """What must be unchanged of each image."""
    columns = ("path", "labels", "split", "sha256", "status")
    values = zip(*(manifest.table.column(name).to_pylist() for name in columns), strict=True)
    return {path: (tuple(labels), *rest) for path, labels, *rest in values}
