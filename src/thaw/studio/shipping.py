"""Classifiers that can be shipped: runs and bundles with another decision, compared on the labels of now, exported."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from thaw.bundle import read_bundle
from thaw.data.manifest import Manifest
from thaw.errors import DataError, ExportError
from thaw.evaluation.compare import Comparison, compare
from thaw.evaluation.records import Records, read_records
from thaw.evaluation.thresholds import decided
from thaw.exports.export import TARGETS, Exported, export_bundle
from thaw.exports.target import require_packages, require_system
from thaw.metrics import truth_of
from thaw.run_folder import RunFolder
from thaw.studio.images import Images
from thaw.studio.marks import Mark
from thaw.studio.project import Project

_DECISION = re.compile(r"(.+)-decision-[0-9]{1,9}")
"""The name of a bundle with another decision than its run."""


@dataclass(frozen=True)
class Shippable:
    """A classifier of the project: its name, its bundle, and the run that it comes from."""

    name: str
    bundle: Path
    run: RunFolder


def shippable(project: Project, name: str) -> Shippable | None:
    """The classifier of a name; `None` if there is none."""
    decision = _DECISION.fullmatch(name)
    run = RunFolder.named(project.runs, decision[1] if decision else name)
    if run is None or not run.is_finished:
        return None
    bundle = project.bundles / name if decision else run.model
    return Shippable(name, bundle, run) if bundle.is_dir() else None


def all_shippable(project: Project, runs: Sequence[RunFolder]) -> list[str]:
    """The name of every classifier, those of the newest run first."""
    names = []
    for run in runs:
        made = project.bundles.glob(f"{run.path.name}-decision-*")
        names += [run.path.name, *sorted((one.name for one in made), key=lambda name: (len(name), name))]
    return [name for name in names if shippable(project, name)]


def compare_on_labels(first: Shippable, second: Shippable, images: Images, marks: Sequence[Mark]) -> Comparison:
    """Compare two classifiers on the images that both were tested on, by the labels of now.

    Raises:
        DataError: There is no such image, or they know different classes.
        BundleError: A bundle is damaged.
    """
    return compare(*(_records(one, images, marks) for one in (first, second)))


def formats() -> list[str]:
    """The export formats whose packages are installed."""
    found = []
    for name, target in TARGETS.items():
        try:
            require_system(name, target)
            require_packages(target.packages)
        except ExportError:
            continue
        found.append(name)
    return found


def export(one: Shippable, to: str, folder: Path) -> Exported:
    """Export a classifier into a folder, certified; raises `ExportError`, and `WriteError` where it is already."""
    folder.mkdir(exist_ok=True)
    suffix = TARGETS[to].suffix
    return export_bundle(one.bundle, to, folder / (f"{one.name}{suffix}" if suffix else f"{one.name}-{to}"))


def _records(one: Shippable, images: Images, marks: Sequence[Mark]) -> Records:
    """Its predictions on test images that have a label now, with this label as the truth."""
    if "test" not in one.run.read_evaluation().evaluations:
        raise DataError(
            f"{one.name}: has no test images to compare on; promote it without a comparison, or compare its run on "
            "validation with `thaw compare --split val`"
        )
    records, here = read_records(one.run.predictions, "test"), images.rows_of(Manifest.read(one.run.manifest))
    rows = [here.get(path) for path in records.paths]
    labels = [None if row is None else marks[row].label for row in rows]
    index_of: dict[str | None, int] = {name: index for index, name in enumerate(records.classes)}
    known = [place for place, label in enumerate(labels) if label in index_of]
    if not known:
        raise DataError(f"{one.name}: none of its test images has a label now")
    scored = decided(read_bundle(one.bundle).decision, records.scored)
    truth = truth_of(np.array([index_of[labels[place]] for place in known]), len(records.classes))
    return replace(
        records,
        paths=tuple(images.paths[rows[place] or 0] for place in known),
        scored=replace(
            scored,
            probabilities=scored.probabilities[known],
            predicted=scored.predicted[known],
            truth=truth,
            groups=None if scored.groups is None else scored.groups[known],
        ),
    )
