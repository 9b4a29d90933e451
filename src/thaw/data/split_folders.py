"""Whether the folders below the root of a data set are splits or classes; refused where it cannot be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from thaw.data.class_names import normalised
from thaw.data.split_names import is_plain, split_of, splits_of
from thaw.errors import DataError
from thaw.formats import command, listed
from thaw.recipe import FolderSettings

_NAMES_IN_OPTION = 5
_DIRECT = ""
"""Stands for images directly in a folder, among the names of the folders in it."""


def split_folders(
    root: Path, images: Sequence[str], settings: FolderSettings, known: Sequence[str] = ()
) -> dict[str, str]:
    """The split of each folder below the root; empty if these folders are the classes.

    Args:
        root: The folder of the data set, for messages.
        images: Paths of the images, relative to the root.
        settings: What the folders are; without a layout, their names and what is in them tell.
        known: Classes of an existing classifier; folders with these names are classes.

    Raises:
        DataError: The folders may be splits or classes, or do not fit the layout.
    """
    folders = _folders(images)
    splits = splits_of(folders)
    others = [name for name in folders if name not in splits]
    if settings.layout == "classes" or {normalised(name) for name in known} & {normalised(name) for name in folders}:
        return {}
    if settings.layout == "splits" and others:
        raise DataError(
            f"{root}: with layout splits every folder must be a split such as train, val or test, but these are not: "
            f"{listed(others)}; rename them, or leave them out with {exclude_option(others)}"
        )
    if not splits:
        _check_no_splits_below(root, images, folders)
        return {}
    if others:
        _check_all_are_classes(root, folders, splits, others)
        return {}
    if settings.layout is None:
        _check_all_are_splits(root, folders, splits)
    return splits


def deeper_hint(root: Path, images: Sequence[str]) -> str:
    """A hint for the end of a message: the folder further down that holds the splits or the classes."""
    place, folders = _first_branching(root, images)
    if place == root or len(folders) < 2:
        return ""
    return f"; if {listed(list(folders))} are the classes, pass {place} instead"


def exclude_option(names: Sequence[str]) -> str:
    """The option that leaves folders out, with the first few of their names."""
    option = command("--exclude", ",".join(names[:_NAMES_IN_OPTION]))
    return f"{option},…" if len(names) > _NAMES_IN_OPTION else option


def _first_branching(root: Path, images: Sequence[str]) -> tuple[Path, dict[str, set[str]]]:
    """The first folder with several folders or with images in it, and its folders."""
    folders = _folders(images)
    while len(folders) == 1 and all("/" in path for path in images):
        (name,) = folders
        below = [path.split("/", 1)[1] for path in images]
        if not (inner := _folders(below)):
            break
        root, images, folders = root / name, below, inner
    return root, folders


def _folders(images: Sequence[str]) -> dict[str, set[str]]:
    """The folders with images below a place, in order, each with the names of the folders with images in it."""
    found: dict[str, set[str]] = {}
    for path in images:
        first, slash, rest = path.partition("/")
        if slash:
            inner, below, _ = rest.partition("/")
            found.setdefault(first, set()).add(inner if below else _DIRECT)
    return found


def _check_no_splits_below(root: Path, images: Sequence[str], folders: Mapping[str, Set[str]]) -> None:
    """Raise `DataError` if the split folders are further down."""
    place, inner = _first_branching(root, images)
    if place != root and any(split_of(name) == "train" for name in inner):
        raise DataError(f"{root}: the splits ({listed(list(inner))}) are in {place}; pass that folder instead")
    for name in folders:
        splits = sorted(folder for folder in folders[name] if split_of(folder))
        kinds = {split_of(folder) for folder in splits}
        if len(kinds) > 1 and "train" in kinds:
            raise DataError(
                f"{root}: {name} contains the splits {listed(splits)}, but split folders must be outermost, with class "
                "folders in them; move them, use a table with a column split, or add --layout classes to ignore them"
            )


def _check_all_are_classes(
    root: Path, folders: Mapping[str, Set[str]], splits: Mapping[str, str], others: Sequence[str]
) -> None:
    """Raise `DataError` if folders named as splits, among others, look like splits."""
    named = listed(list(splits))
    if "train" in splits.values():
        raise DataError(
            f"{root}: contains {listed(others)} as well as {named}, but either all folders must be splits or all must "
            "be classes: if they are all classes, add --layout classes; otherwise move the others, or leave them out "
            f"with {exclude_option(others)}"
        )
    inner = {folder for name in others for folder in folders[name]} - {_DIRECT}
    if any(folders[name] & inner for name in splits):
        raise DataError(_ambiguous(root, list(splits)))


def _check_all_are_splits(root: Path, folders: Mapping[str, Set[str]], splits: Mapping[str, str]) -> None:
    """Raise `DataError` if folders that are all named as splits do not have class folders in them as splits do."""
    if all(inner == {_DIRECT} for inner in folders.values()):
        raise DataError(
            f"{root}: the split folders have no class folders; put the images of each class into a folder named after "
            f"it, or if {listed(list(splits))} are the classes, add --layout classes"
        )
    if all(is_plain(name) for name in splits):
        return
    train = {normalised(inner).casefold() for name in splits if splits[name] == "train" for inner in folders[name]}
    for name in splits:
        if not train & {normalised(inner).casefold() for inner in folders[name]}:
            raise DataError(_ambiguous(root, list(splits)))


def _ambiguous(root: Path, names: Sequence[str]) -> str:
    found = listed(names)
    return f"{root}: {found} may be splits or classes; add --layout splits or --layout classes to say which they are"
