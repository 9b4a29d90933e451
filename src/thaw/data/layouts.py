"""Reads the images of folders, with the labels and splits that the folders define; nothing is decoded.

Supported layouts:

    ROOT/CLASS/**/IMAGE             folders below a class folder belong to that class
    ROOT/SPLIT/CLASS/**/IMAGE       SPLIT is train, val or test, or a usual spelling; see `split_names`
    ROOT/metadata.{csv,jsonl,parquet} or ROOT/SPLIT/metadata.*     an image folder of the Hub; see `tables`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from thaw.data.class_names import normalised
from thaw.data.manifest import new_table
from thaw.data.split_folders import deeper_hint, exclude_option, split_folders
from thaw.data.split_names import spelling_note, split_of, splits_of
from thaw.data.walk import IMAGE_SUFFIXES, Omitted, existing_folder, images_below, kinds_in
from thaw.errors import DataError
from thaw.formats import command, count, listed
from thaw.recipe import FolderSettings

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")
EXPORT_SUFFIXES = (".json", ".xml")
"""Of the files that annotation tools export; see `thaw.data.annotations`."""

METADATA_FILES = ("metadata.csv", "metadata.parquet", "metadata.jsonl")
DEFAULTS = FolderSettings()


@dataclass(frozen=True)
class Rows:
    """The images of a folder or table.

    Attributes:
        table: A table with the manifest's schema; paths are relative to `root` or absolute.
        root: The folder of the data set.
        source: The folder or table.
        row_names: The name of each row in messages; empty for folders.
        ignored: (suffix, count) of other files, `hidden` for hidden ones.
        notes: Remarks for the user.
        hint: What may be wrong if there is only one class, for the end of a message.
    """

    table: pa.Table
    root: Path
    source: Path
    row_names: Sequence[str] = ()
    ignored: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    hint: str = ""


def read_folder(root: Path, settings: FolderSettings = DEFAULTS, known: Sequence[str] = ()) -> Rows:
    """The images of a folder with class folders, or with split folders that contain class folders, in natural order.

    Folders that Thaw wrote are left out, and a note says so.

    Args:
        root: The folder.
        settings: How to read it.
        known: Classes of an existing classifier, of which a folder may have no image.

    Raises:
        DataError: The folder is missing, empty, has another layout, or has a class without an image.
    """
    omitted = Omitted(exclude=settings.exclude)
    images = list(images_below(root, omitted))
    _check_excluded(root, settings, omitted)
    if not images:
        supported = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"{root}: no image in this folder, {omitted.kinds()}; supported are {supported}")
    splits = split_folders(root, images, settings, known)
    depth = 1 if splits else 0
    outside = [path for path in images if path.count("/") <= depth]
    if outside:
        raise DataError(_outside_message(root, images, outside, depth))
    parts = [path.split("/", depth + 1) for path in images]
    labels = [part[depth] for part in parts]
    empty = _empty_class_folders(root, omitted, set(labels), splits)
    if empty and not known and len(set(labels)) > 1:
        raise DataError(_empty_message(root, empty))
    return Rows(
        table=new_table(images, [[label] for label in labels], [splits[part[0]] for part in parts] if splits else None),
        root=root,
        source=root,
        ignored=tuple(sorted(omitted.files.items())),
        notes=(
            *spelling_note(splits, "folders"),
            *omitted.notes(),
            *(f"{folder} has no usable image: {what}" for folder, what in empty.items()),
            *_missing_in_a_split(root, omitted, images, splits),
        ),
        hint=deeper_hint(root, images),
    )


def table_hint(place: Path) -> str:
    """A hint for the end of a message: a table in the folder that may contain the labels."""
    entries = place.iterdir() if place.is_dir() else ()
    tables = sorted(file.name for file in entries if file.suffix.lower() in TABLE_SUFFIXES)
    return f"; if {tables[0]} contains the labels, pass that file instead" if tables else ""


def metadata_files(root: Path) -> list[tuple[Path, str | None]]:
    """The Hub metadata files in a folder, or in its split folders with the split of each."""
    here = [root / name for name in METADATA_FILES if (root / name).is_file()]
    if here:
        return [(file, None) for file in here]
    below = [folder for folder in sorted(existing_folder(root).iterdir()) if split_of(folder.name)]
    files = [folder / name for folder in below for name in METADATA_FILES if (folder / name).is_file()]
    splits = splits_of(file.parent.name for file in files)
    return [(file, splits[file.parent.name]) for file in files]


def applicable(settings: FolderSettings, place: Path) -> FolderSettings:
    """What applies to another place of the settings that a folder was read with.

    These are the folders to leave out that it has, and its layout where it can have that; for a table there is none.
    """
    if not place.is_dir() or metadata_files(place):
        return DEFAULTS
    omitted = Omitted(exclude=settings.exclude)
    folders = {path.partition("/")[0] for path in images_below(place, omitted)}
    can_be_splits = all(split_of(name) for name in folders)
    return FolderSettings(
        layout=None if settings.layout == "splits" and not can_be_splits else settings.layout,
        exclude=tuple(name for name in settings.exclude if omitted.has_excluded(name)),
    )


def _check_excluded(root: Path, settings: FolderSettings, omitted: Omitted) -> None:
    for name in settings.exclude:
        if not omitted.has_excluded(name):
            raise DataError(f"{root}: exclude names {name}, but there is no such folder in it")


def _empty_class_folders(root: Path, omitted: Omitted, labels: set[str], splits: Mapping[str, str]) -> dict[str, str]:
    """The class folders without an image in any split, and what each holds instead."""
    classes = {normalised(label) for label in labels}
    empty = {}
    for folder in omitted.folders:
        above, _, name = folder.rpartition("/")
        is_class_folder = above in splits if splits else not above
        if is_class_folder and normalised(name) not in classes and not _holds_omitted(folder, omitted):
            empty[folder] = kinds_in(root / folder)
    return empty


def _missing_in_a_split(
    root: Path, omitted: Omitted, images: Sequence[str], splits: Mapping[str, str]
) -> tuple[str, ...]:
    """Remarks on folders without an image whose class has images in another split, and on splits without any."""
    if not splits:
        return ()
    filled = {folder for path in images for folder in (path.split("/", 1)[0], "/".join(path.split("/", 2)[:2]))}
    classes = {normalised(path.split("/", 2)[1]) for path in images}
    notes = []
    for folder in omitted.folders:
        above, _, name = folder.rpartition("/")
        is_concerned = normalised(name) in classes if above in splits else not above and split_of(name)
        if is_concerned and folder not in filled and not _holds_omitted(folder, omitted):
            notes.append(f"{folder} has no usable image: {kinds_in(root / folder)}")
    return tuple(notes)


def _holds_omitted(folder: str, omitted: Omitted) -> bool:
    """Whether a folder holds folders that Thaw wrote, or that were excluded."""
    return any(path.startswith(f"{folder}/") for path in (*omitted.written_by_thaw, *omitted.excluded))


def _empty_message(root: Path, empty: Mapping[str, str]) -> str:
    (first, what), names = next(iter(empty.items())), list(empty)
    others = f", like {listed(names[1:])}" if len(names) > 1 else ""
    unique = list(dict.fromkeys(name.rpartition("/")[2] for name in names))
    return (
        f"{root}: the class folder {first} has no usable image: {what}{others}; add images, or leave it out with "
        f"{exclude_option(unique)}"
    )


def _outside_message(root: Path, images: Sequence[str], outside: Sequence[str], depth: int) -> str:
    if len(outside) < len(images):
        found = count(len(outside), "image")
        folders = list(dict.fromkeys(path.split("/", 1)[0] for path in outside if "/" in path))
        labelled = {path.split("/", 1)[0] for path in images if path.count("/") > depth}
        # Test images are often not labelled.
        hint = (
            f", or leave them out with {command('--exclude', ','.join(folders))}"
            if folders and not labelled & {*folders}
            else ""
        )
        return f"{root}: {found} outside the class folders ({listed(outside)}); move or remove them{hint}"
    where = "split folders have" if depth else "folder has"
    hint = table_hint(root)
    return f"{root}: the {where} no class folders; put the images of each class into a folder named after it{hint}"
