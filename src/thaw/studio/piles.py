"""Piles of images to work through: what is probably wrong with them, and which are nearly the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thaw.data.manifest import Manifest
from thaw.data.split_units import groups_of
from thaw.formats import count, percent
from thaw.inspection.image_quality import QualityFlag
from thaw.inspection.label_errors import find_label_errors
from thaw.inspection.linear_probe import Features, fit_probe, one_thread
from thaw.inspection.outliers import find_outliers
from thaw.studio.features import Snapshot
from thaw.studio.marks import Mark


@dataclass(frozen=True)
class Pile:
    """Images with something in common.

    Attributes:
        name: In URLs.
        title, about: For the user.
        rows: The images, those to look at first in front.
        notes: What is said about some of them, by row.
        suggested: The label that a linear head on the other images gives to some of them, by row.
        groups: The number of the group of each of `rows`; empty where they do not belong together in groups.
    """

    name: str
    title: str
    about: str
    rows: tuple[int, ...]
    notes: dict[int, str]
    suggested: dict[int, str]
    groups: tuple[int, ...] = ()


def find_piles(snapshot: Snapshot) -> tuple[Pile, ...]:
    """All piles that have images; excluded images are in none of them."""
    marks, manifest = snapshot.marks, snapshot.manifest
    excluded = {row for row, mark in enumerate(marks) if mark.excluded}
    connected = [group - excluded for group in _components(snapshot.features.pairs, len(marks))]
    groups = [group for group in connected if len(group) > 1]
    piles = [
        _unreadable(manifest, excluded),
        _conflicting(groups, marks),
        _leaking(groups, manifest),
        *_by_features(snapshot),
        _doubtful(snapshot.features.quality, excluded),
        _duplicates(groups),
    ]
    return tuple(pile for pile in piles if pile.rows)


def _unreadable(manifest: Manifest, excluded: set[int]) -> Pile:
    reasons = dict(enumerate(manifest.column("reason")))
    found = {row: reason for row, reason in reasons.items() if reason and row not in excluded}
    about = "These files cannot be read as images. Training leaves them out and lists them."
    return Pile("unreadable", "Unreadable files", about, tuple(found), found, {})


def _conflicting(groups: Sequence[set[int]], marks: Sequence[Mark]) -> Pile:
    conflicting = [group for group in groups if len({marks[row].label for row in group} - {None}) > 1]
    about = "Nearly the same image with different labels: at least one of them is wrong, or the classes overlap."
    return _grouped("conflicting", "Conflicting labels", about, conflicting)


def _leaking(groups: Sequence[set[int]], manifest: Manifest) -> Pile:
    splits = manifest.column("split")
    leaking = [group for group in groups if len({splits[row] for row in group} - {None}) > 1]
    about = "Nearly the same image in two of the given splits, which inflates metrics. Keep it in one of them."
    return _grouped("leaks", "Leaks", about, leaking)


def _doubtful(flags: Sequence[QualityFlag], excluded: set[int]) -> Pile:
    issues: defaultdict[int, list[str]] = defaultdict(list)
    for flag in flags:
        if flag.row not in excluded:
            issues[flag.row].append(flag.issue)
    notes = {row: ", ".join(found) for row, found in issues.items()}
    about = "Dark, bright, blurred, empty or of an odd size, compared with the other images."
    return Pile("quality", "Doubtful quality", about, tuple(notes), notes, {})


def _duplicates(groups: Sequence[set[int]]) -> Pile:
    about = "Images of the same scene. They stay together when images are split, so you need not remove them."
    return _grouped("duplicates", "Near-duplicates", about, groups)


def _grouped(name: str, title: str, about: str, groups: Sequence[set[int]]) -> Pile:
    numbered = [(row, number) for number, group in enumerate(groups) for row in sorted(group)]
    return Pile(name, title, about, tuple(row for row, _ in numbered), {}, {}, tuple(number for _, number in numbered))


def _by_features(snapshot: Snapshot) -> list[Pile]:
    """Label errors and outliers among the labelled images."""
    features, manifest = snapshot.features, snapshot.manifest
    rows = np.array([row for row in features.rows if snapshot.marks[row].label is not None], int)
    if not len(rows):
        return []
    groups = groups_of(manifest, rows, features.pairs)
    found = Features(rows, features.values[features.position[rows]], snapshot.class_indices(rows), groups)
    with one_thread():
        probe = fit_probe(found)
        errors = find_label_errors(found, probe) if probe else ()
        outliers = find_outliers(found)
    fitted_on = f" It is fitted on a random sample of {count(probe.sample, 'image')}." if probe and probe.sample else ""
    wrong = Pile(
        "label-errors",
        "Label errors",
        "A linear head that was fitted without these images gives them another label, the most certain ones first. "
        f"It agrees with {percent(probe.accuracy if probe else 0)} of all labels, so some of these may be right."
        f"{fitted_on}",
        tuple(error.row for error in errors),
        {
            error.row: f"{manifest.classes[error.suggested]} {percent(error.suggested_probability, 0)}, "
            f"{manifest.classes[error.given]} {percent(error.given_probability, 0)}"
            for error in errors
        },
        {error.row: manifest.classes[error.suggested] for error in errors},
    )
    far = Pile(
        "outliers",
        "Outliers",
        "Far from all other images of their class: foreign objects, wrong labels, or a rare kind to have more of.",
        tuple(outlier.row for outlier in outliers),
        {outlier.row: f"{outlier.distance_ratio:.1f} times as far as usual" for outlier in outliers},
        {},
    )
    return [wrong, far]


def _components(pairs: Sequence[tuple[int, int]], rows: int) -> list[set[int]]:
    """Groups of rows that pairs connect, the one with the lowest row first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not pairs:
        return []
    first, second = np.array(pairs).T
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(rows, rows))
    component = connected_components(graph, directed=False)[1]
    groups: defaultdict[int, set[int]] = defaultdict(set)
    for row in np.unique([first, second]).tolist():
        groups[component[row]].add(row)
    return sorted(groups.values(), key=min)
