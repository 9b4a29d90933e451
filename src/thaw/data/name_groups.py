"""Groups in the names of images: `part12_003.png` is image 003 of part12.

Candidates are tried from the most likely to the least, and the first that is plausible is taken: folders, then the
fields at the beginning of the names, from the coarsest, then others, such as the number in `left_12` and `right_12`.
Moments (`20210304_112233`) are divided into sessions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from thaw.data.group_checks import MIN_GROUPS, is_plausible
from thaw.data.name_fields import Field, NameForm, codes_of, folder_fields, joint_codes, name_forms, repeats
from thaw.data.sessions import sessions

_RESTARTS = 0.2
"""Fraction of the images from which on equal names in two classes mean that each class is numbered anew."""

_MIN_SHARED = 10
"""Groups, at least, that may span classes that are numbered anew; fewer, like counters, are divided by class."""

_MOST = 0.5
_MAX_VIEWS_PER_GROUP = 4


@dataclass(frozen=True)
class Candidate:
    """A grouping: the name of each row's group, `None` without one, and in which part of the paths it was found."""

    names: tuple[str | None, ...]
    where: str


@dataclass(frozen=True)
class _Images:
    """Labels and splits of all images, as text and as (N,) int, and whether names are numbered anew in each."""

    labels: Sequence[str]
    splits: Sequence[str]
    classes: np.ndarray
    split_codes: np.ndarray
    restarts_in_class: bool
    restarts_in_split: bool


def find_in_names(paths: Sequence[str], labels: Sequence[str], splits: Sequence[str]) -> Candidate | None:
    """The groups that folders and file names tell, or `None`.

    Args:
        paths: Paths relative to the folder of the data set, with forward slashes.
        labels: The class of each image.
        splits: Its split; empty for data without splits.
    """
    if not paths:
        return None
    classes, split_codes = codes_of(labels), codes_of(splits)
    forms = name_forms(paths, classes, split_codes, is_fine=False)
    whole = _whole_names(forms, classes)
    restarts = _restarts(whole, classes), _restarts(whole, split_codes)
    images = _Images(labels, splits, classes, split_codes, *restarts)
    return (
        _in_folders(paths, images)
        or _in_forms(forms, images)
        or _in_forms(name_forms(paths, classes, split_codes, is_fine=True), images)
    )


def _whole_names(forms: Sequence[NameForm], classes: np.ndarray) -> np.ndarray:
    """(N,) int, equal for images whose names differ only in what the class and the rest of the name determine."""
    whole = np.arange(len(classes))
    first = len(classes)
    for form in forms:
        kept: list[np.ndarray] = []
        for field in form.fields:
            if not repeats(field.codes, joint_codes(classes[form.rows], *kept)):
                kept.append(field.codes)
        if kept:
            whole[form.rows] = first + joint_codes(*kept)
            first = int(whole.max()) + 1
    return np.unique(whole, return_inverse=True)[1]


def _restarts(whole: np.ndarray, column: np.ndarray) -> bool:
    """Whether many names are in two classes (or splits)."""
    return bool((_spread(whole, column)[whole] > 1).mean() >= _RESTARTS)


def _spread(codes: np.ndarray, column: np.ndarray) -> np.ndarray:
    """For each code, how many values of a column its images have."""
    first = np.unique(joint_codes(codes, column), return_index=True)[1]
    return np.bincount(codes[first])


def _in_folders(paths: Sequence[str], images: _Images) -> Candidate | None:
    fields, rows = folder_fields(paths, images.classes, images.split_codes), np.arange(len(paths))
    for stop in range(1, len(fields) + 1):
        chosen = fields[:stop]
        if all(field.is_index for field in chosen) or _are_buckets(chosen[-1], paths):
            continue
        texts = ["/".join(filter(None, parts)) for parts in zip(*(field.texts for field in chosen), strict=True)]
        codes = np.where(np.array([bool(text) for text in texts]), codes_of(texts), -1)
        groups = _checked(codes, chosen, rows, images)
        if groups is not None:
            return Candidate(tuple(_named(groups, texts, rows, images)), "folders")
    return None


def _are_buckets(field: Field, paths: Sequence[str]) -> bool:
    """Whether folders only hold the files whose names begin like them, such as `a7/a7f3c9.png`."""
    names = [path.rpartition("/")[2] for path in paths]
    starts = [
        bool(text) and name.startswith(text) and name[len(text) :][:1].isalnum()
        for text, name in zip(field.texts, names, strict=True)
    ]
    return sum(starts) > _MOST * len(paths)


def _in_forms(forms: Sequence[NameForm], images: _Images) -> Candidate | None:
    """The groups in the names of each form, if together they are plausible."""
    names: list[str | None] = [None] * len(images.labels)
    where = ""
    others = []
    for form in sorted(forms, key=lambda form: -len(form.rows)):
        found = _in_form(form, images)
        if found is None:
            others.append(form)
            continue
        where = where or found.where
        for row, name in zip(form.rows.tolist(), found.names, strict=True):
            names[row] = name
    # An original without a suffix, such as `part12` next to `part12_flipped`.
    known = {*names} - {None}
    for form in others if known else ():
        for row, text in zip(form.rows.tolist(), _joined(form.fields), strict=False):
            names[row] = next((name for name in (text, f"{images.labels[row]}/{text}") if name in known), None)
    codes = np.where(np.array([name is not None for name in names]), codes_of(names), -1)
    return Candidate(tuple(names), where) if is_plausible(codes, images.classes) else None


def _in_form(form: NameForm, images: _Images) -> Candidate | None:
    rows = form.rows
    for chosen, before in _ranges(form.fields):
        if before and _checked(_codes((*before, *chosen)), chosen, rows, images) is None:
            continue
        others = [field for field in form.fields if field not in chosen]
        for where, codes, texts in _groupings(chosen):
            groups = _checked(codes, chosen, rows, images)
            if groups is not None and not _tears_identifiers(groups, others):
                return Candidate(tuple(_named(groups, texts or _joined(chosen), rows, images)), where)
    return None


def _ranges(fields: Sequence[Field]) -> Iterator[tuple[tuple[Field, ...], tuple[Field, ...]]]:
    """Consecutive fields that may name the group of an image, the likeliest first.

    Each comes with the fields that must be plausible with it, because it is only a coarser choice than they are: the
    parts of two lots that both number them from 1. Words alone name kinds of things, and folders alone have been tried.
    """
    yield from _ranges_of([position for position, field in enumerate(fields) if not field.is_index], fields)
    yield from _ranges_of(range(len(fields)), fields)


def _ranges_of(keys: Sequence[int], fields: Sequence[Field]) -> Iterator[tuple[tuple[Field, ...], tuple[Field, ...]]]:
    few = next((place for place, position in enumerate(keys) if fields[position].distinct >= MIN_GROUPS), 0)
    for start in dict.fromkeys([few, *range(len(keys))]):
        for stop in range(start + 1, len(keys) + 1):
            chosen = tuple(fields[position] for position in keys[start:stop])
            before = tuple(fields[: keys[start]])
            if all(field.is_word or field.is_folder for field in chosen):
                continue
            if len(chosen) == len(fields) and not any(field.moments for field in chosen):
                continue
            if _are_views(before, chosen):
                yield chosen, ()
            elif start == few:
                yield chosen, before


def _are_views(before: Sequence[Field], chosen: Sequence[Field]) -> bool:
    """Whether the fields before those chosen only tell apart images of one thing."""
    if not before:
        return True
    views, groups = (int(_codes(fields).max()) + 1 for fields in (before, chosen))
    if views > _MAX_VIEWS_PER_GROUP * groups:
        return False
    return all(field.is_view for field in before) or chosen[-1].is_sparse


def _groupings(chosen: Sequence[Field]) -> Iterator[tuple[str, np.ndarray, list[str]]]:
    """Where, (N,) int as the group of each image, and if it is a session its name; one session for each gap."""
    timed = next((field for field in chosen if field.moments), None)
    if timed is None:
        yield "file names", _codes(chosen), []
        return
    others = [field for field in chosen if field is not timed]
    for what, names in sessions(timed.moments, _joined(others) or [""] * len(timed.texts)):
        yield f"times in file names ({what})", codes_of(names), names


def _codes(fields: Sequence[Field]) -> np.ndarray:
    return joint_codes(*(field.codes for field in fields))


def _joined(fields: Sequence[Field]) -> list[str]:
    return ["_".join(parts) for parts in zip(*(field.texts for field in fields), strict=True)]


def _checked(codes: np.ndarray, chosen: Sequence[Field], rows: np.ndarray, images: _Images) -> np.ndarray | None:
    """The groups if they are plausible, divided by class or split where each is numbered anew; else `None`."""
    classes = images.classes[rows]
    if images.restarts_in_split:
        codes = _divided(codes, images.split_codes[rows])
    is_counted = len(np.unique(codes)) < _MIN_SHARED or all(field.is_counter for field in chosen)
    is_shared = not (images.restarts_in_class and is_counted)
    if is_shared and is_plausible(codes, classes):
        return codes
    if images.restarts_in_class and is_plausible(by_class := _divided(codes, classes), classes):
        return by_class
    return None


def _divided(codes: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The groups divided by a column; -1 stays -1."""
    return np.where(codes < 0, -1, joint_codes(np.maximum(codes, 0), column))


def _named(groups: np.ndarray, texts: Sequence[str], rows: np.ndarray, images: _Images) -> Iterator[str | None]:
    """The name of each row's group: its text, after the class or split by which groups of one text were divided."""
    codes = codes_of(texts)
    classes, splits = images.classes[rows], images.split_codes[rows]
    is_grouped = groups >= 0
    parts: list[Sequence[str]] = []
    for column, values in ((splits, images.splits), (classes, images.labels)):
        is_divided = (_spread(groups[is_grouped], column[is_grouped]) <= 1).all()
        if is_divided and (_spread(codes[is_grouped], column[is_grouped]) > 1).any():
            parts.append([values[row] for row in rows.tolist()])
    for grouped, *words in zip(is_grouped.tolist(), *parts, texts, strict=True):
        yield "/".join(words) if grouped else None


def _tears_identifiers(groups: np.ndarray, others: Sequence[Field]) -> bool:
    """Whether images with the same identifier in another field would be in different groups.

    In `exp1_num_108889` to `exp6_num_108889` the number is the thing, and `exp1` is none.
    """
    for field in others:
        if field.distinct > len(np.unique(groups)) and field.is_sparse:
            spread = _spread(field.codes, np.maximum(groups, 0))
            if (spread[field.codes] > 1).mean() >= _MOST:
                return True
    return False
