"""Groups: images of one part, sample, scene or session, which training must not see if another of them is tested on.

They are given by a column of the data or by a regular expression on the paths; else they are found in folders and file
names (`thaw.data.name_groups`) or in the times of EXIF data. A grouping that is found is a guess: it is used where it
is plausible, said in one sentence, and dropped where it would stop a run (`thaw.data.group_split`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from thaw.data.capture import Capture
from thaw.data.group_checks import is_plausible
from thaw.data.manifest import Manifest
from thaw.data.name_fields import codes_of
from thaw.data.name_groups import Candidate, find_in_names
from thaw.data.sessions import sessions
from thaw.errors import DataError
from thaw.formats import count, shortened
from thaw.recipe import SplitSettings

_NAMED_GROUP = "group"
_IMAGES_SHOWN = 2
_LONGEST_NAME = 60


@dataclass(frozen=True)
class FoundGroups:
    """Groups of images.

    Attributes:
        names: The name of each row's group, `None` for an image without one.
        sentence: What was found, with an example.
    """

    names: tuple[str | None, ...]
    sentence: str


@dataclass(frozen=True)
class Grouped:
    """A manifest whose column `group` is the one to use, and remarks for the user."""

    manifest: Manifest
    notes: tuple[str, ...] = ()


def group_images(manifest: Manifest, group_by: str, captures: Sequence[Capture]) -> Grouped:
    """Fill the column `group` by the setting `split.group_by`.

    Args:
        manifest: The images; its column `group` is what the data give.
        group_by: auto, column, found, none or a regular expression.
        captures: When and with what each image was captured; empty where it is not known.

    Raises:
        DataError: A regular expression matches no path.
    """
    is_given = any(manifest.column("group"))
    if group_by == "found":
        manifest, is_given, group_by = without_groups(manifest), False, "auto"
    if group_by == "none":
        notes = ("the groups of the data are not used (group_by: none)",) if is_given else ()
        return Grouped(without_groups(manifest), notes)
    if group_by == "column":
        return Grouped(manifest, () if is_given else ("group_by: column, but the data has no column of groups",))
    if group_by != "auto":
        found = groups_by_pattern(manifest, group_by)
        return Grouped(manifest.with_columns({"group": found.names}), (found.sentence,))
    searched = None if is_given else find_groups(manifest, captures)
    if searched is None:
        return Grouped(manifest)
    grouped = manifest.with_columns({"group": searched.names})
    return Grouped(replace(grouped, grouping=searched.sentence), (searched.sentence,))


def find_groups(manifest: Manifest, captures: Sequence[Capture]) -> FoundGroups | None:
    """The groups that names, folders or capture times tell; `None` where no grouping is plausible."""
    paths, has_classes = manifest.column("path"), manifest.task != "multilabel"
    labels = [names[0] if has_classes and names else "" for names in manifest.column("labels")]
    splits = [split or "" for split in manifest.column("split")]
    found = find_in_names(paths, labels, splits) or find_in_captures(captures, labels)
    if found is None:
        return None
    return FoundGroups(found.names, f"groups found in {found.where}: {_described(found.names, paths)}")


def find_in_captures(captures: Sequence[Capture], labels: Sequence[str]) -> Candidate | None:
    """The longest sessions of one device that are plausible groups, or `None`.

    Args:
        captures: When and with what each image was captured.
        labels: The class of each image.
    """
    known = [row for row, capture in enumerate(captures) if capture.time]
    moments = [moment for row in known if (moment := captures[row].moment)]
    classes = codes_of(labels)
    for where, of_known in sessions(moments, [captures[row].device for row in known]):
        names: list[str | None] = [None] * len(captures)
        for row, name in zip(known, of_known, strict=True):
            names[row] = name
        if is_plausible(codes_of(names), classes):
            return Candidate(tuple(names), f"EXIF capture times ({where})")
    return None


def groups_by_pattern(manifest: Manifest, pattern: str) -> FoundGroups:
    """The groups that a regular expression finds in the paths: its group `group`, else its first, else the whole match.

    Raises:
        DataError: It matches no path.
    """
    paths, compiled = manifest.column("path"), re.compile(pattern)
    key: str | int = _NAMED_GROUP if _NAMED_GROUP in compiled.groupindex else min(compiled.groups, 1)
    matches = [compiled.search(path) for path in paths]
    names = [(match[key] or None) if match else None for match in matches]
    if not any(names):
        example = f"; they are relative to it, such as {paths[0]}" if paths else ""
        raise DataError(f"{manifest.root}: group_by '{pattern}' matches none of the paths{example}")
    sentence = f"groups by '{pattern}': {_described(names, paths)}"
    if None in names:
        first = paths[names.index(None)]
        verb = "does" if names.count(None) == 1 else "do"
        sentence += f"; {count(names.count(None), 'path')} {verb} not match, such as {first}: each is its own group"
    return FoundGroups(tuple(names), sentence)


def without_groups(manifest: Manifest) -> Manifest:
    """The manifest without any group."""
    return replace(manifest.with_columns({"group": [None] * len(manifest)}), grouping="")


def with_groups_of(manifest: Manifest, began: Manifest) -> Manifest:
    """The manifest with the groups that an earlier manifest has for the same paths."""
    groups = dict(zip(began.column("path"), began.column("group"), strict=True))
    names = [groups.get(path) for path in manifest.column("path")]
    return replace(manifest.with_columns({"group": names}), grouping=began.grouping)


def origin_of_groups(split: SplitSettings, manifest: Manifest) -> tuple[str, str]:
    """The setting `group_by` after planning, and the reason.

    Args:
        split: The settings that were requested.
        manifest: The images, grouped and split by them.
    """
    if split.group_by != "auto":
        return split.group_by, "as requested"
    if manifest.grouping:
        return "found", manifest.grouping
    if any(manifest.column("group")):
        return "column", "the data has groups"
    return "none", "the data has no groups, and none to use were found"


def as_grouped(split: SplitSettings, manifest: Manifest) -> SplitSettings:
    """The settings that take the groups of a manifest as they are, without searching for others."""
    return split.model_copy(update={"group_by": "column" if any(manifest.column("group")) else "none"})


def _described(names: Sequence[str | None], paths: Sequence[str]) -> str:
    """Number and size of the groups, with an example, as `38 of 2 to 41 images, such as part1 (part1_0.png, …)`."""
    sizes = Counter(name for name in names if name is not None)
    low, high = min(sizes.values()), max(sizes.values())
    images = count(high, "image") if low == high else f"{low:,} to {high:,} images"
    name = next((name for name, size in sizes.items() if size > 1), next(iter(sizes)))
    files = [path.rpartition("/")[2] for path, own in zip(paths, names, strict=True) if own == name]
    shown = [shortened(file, _LONGEST_NAME) for file in files[:_IMAGES_SHOWN]]
    more = ["…"] if len(files) > _IMAGES_SHOWN else []
    return f"{len(sizes):,} of {images}, such as {shortened(name, _LONGEST_NAME)} ({', '.join([*shown, *more])})"
