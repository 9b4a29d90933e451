"""Which columns of a table are the path, the labels, the split and the group, under the names that people give them.

The path is called `path` or `file_name`, the labels `label` or `labels`. Where there is no column `split`, another one
with names of splits such as `subset`, or flags such as `is_valid`, are taken; where there is no `group`, an identifier
such as `patient_id`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thaw.data.layouts import METADATA_FILES
from thaw.data.manifest import SPLITS
from thaw.data.split_names import spelling_note, split_of, splits_of
from thaw.data.table_cells import flag_of, is_empty, text_of
from thaw.data.table_files import RawTable
from thaw.errors import DataError
from thaw.formats import listed

_PATH, _LABEL, _SPLIT, _GROUP = ("path", "file_name"), ("label", "labels"), "split", "group"
_LIKE_SPLIT = ("subset", "set", "partition", "fold", "phase", "usage", "data_split")
_SPLIT_OF_FLAG = {
    **dict.fromkeys(("is_valid", "is_val", "is_validation"), "val"),
    **dict.fromkeys(("is_test", "is_holdout"), "test"),
    **dict.fromkeys(("is_train", "is_training", "is_training_image"), "train"),
}
_LIKE_GROUP = (
    *("group_id", "patient", "patient_id", "subject", "subject_id"),
    *("part_id", "specimen_id", "serial_number"),
)
_ALTERNATIVES = {
    "path": ("file", "filename", "filepath", "image", "image_path", "img"),
    "label": ("class", "category", "target", "y"),
}
KNOWN = frozenset((*_PATH, *_LABEL, _SPLIT, _GROUP, *_LIKE_SPLIT, *_SPLIT_OF_FLAG, *_LIKE_GROUP))
"""Every column whose cells may be used."""

_SHOWN = 6


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are.

    Attributes:
        path, label: The columns with the paths and the labels.
        splits: The split of each row, `None` if the table has none.
        groups: The group of each row or `None`; `None` if the table has none.
        notes: Which other columns were taken, and which are not used.
    """

    path: str
    label: str
    splits: Sequence[str] | None
    groups: Sequence[str | None] | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Split:
    """The columns that define the split, the split of each row, and what the words of each column mean."""

    splits: Sequence[str] | None
    meanings: Mapping[str, Mapping[str, str]]


def columns_of(table: RawTable, words: Iterable[str] = ()) -> Columns:
    """Find the columns of a table.

    Args:
        table: The cells.
        words: Names of splits in other tables of the same data set, on which the meaning of `eval` depends.

    Raises:
        DataError: A column is missing, ambiguous or malformed.
    """
    path, label = _required(table, _PATH), _required(table, _LABEL)
    split = _split(table, words)
    split_columns = list(split.meanings)
    group = _group_column(table)
    groups = [name or None for name in table.convert(group, text_of)] if group else None
    notes = []
    if split_columns and split_columns != [_SPLIT]:
        notes.append(f"{_column_text(split_columns)} defines the split")
    for name, meanings in split.meanings.items():
        notes += spelling_note(meanings, f"values of column {name}")
    if group and group != _GROUP:
        notes.append(f"column {group} is the group: images with the same {group} stay in the same split")
    used = {path, label, group, *split_columns}
    # An index of pandas has no name.
    unused = [name for name in table.names if name and not name.startswith("unnamed:") and name not in used]
    if unused:
        notes.append(f"{_column_text(unused)} not used")
    return Columns(path, label, split.splits, groups, tuple(notes))


def split_words(table: RawTable) -> list[str]:
    """The names of splits in a table; raises `DataError` where its columns contradict each other."""
    return [word for meanings in _split(table, ()).meanings.values() for word in meanings]


def _required(table: RawTable, wanted: tuple[str, str]) -> str:
    """The name under which a table has a required column."""
    present = [name for name in table.names if name in wanted]
    if len(present) == 1:
        return present[0]
    if present:
        raise DataError(f"{table.file}: has the columns {' and '.join(present)}; keep only one")
    near = [name for name in table.names if name in _ALTERNATIVES[wanted[0]]]
    near = near or difflib.get_close_matches(wanted[0], table.names, n=1)
    hint = f"; did you mean {near[0]!r}? rename it to {wanted[0]!r}" if near else ""
    found = listed(table.names, _SHOWN) or "none"
    if not near and KNOWN.isdisjoint(table.names) and table.file.suffix.lower() in (".csv", ".tsv"):
        hint = "; the first line must name the columns"
    if table.file.name in METADATA_FILES:
        hint += "; if this file does not label the images, rename it"
    raise DataError(f"{table.file}: has no column {wanted[0]!r}, only {found}{hint}")


def _split(table: RawTable, others: Iterable[str]) -> _Split:
    """The split that a table defines, with the names of splits in other tables."""
    if any(words := table.convert(_SPLIT, _split_word)):
        meanings = _meanings(words, others)
        splits = [meanings.get(word) for word in words]
        return _Split(_complete(splits, table, _SPLIT), {_SPLIT: meanings})
    found = [read for name in _LIKE_SPLIT if (read := _split_of_words(table, name, others))]
    if flags := [name for name in _SPLIT_OF_FLAG if _is_flag(table, name)]:
        found.append((_splits_of_flags(table, flags), {name: {} for name in flags}))
    if not found:
        return _Split(None, {})
    first, meanings_of = found[0]
    for other, columns in found[1:]:
        if other != first:
            names = " and ".join((*meanings_of, *columns))
            raise DataError(f"{table.file}: {names} define different splits; rename the right column to 'split'")
    return _Split(_complete(first, table, next(iter(meanings_of))), meanings_of)


def _split_word(cell: Any) -> str:
    """The name of a split in a cell, empty for none."""
    word = text_of(cell)
    if word and split_of(word) is None:
        raise ValueError(
            f"unknown split {word!r}; known are {', '.join(SPLITS)} and their usual spellings; write one of these"
        )
    return word


def _meanings(words: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """The split that each word in a column means, without words that mean none."""
    own = dict.fromkeys(words)
    return {word: split for word, split in splits_of(dict.fromkeys((*own, *others))).items() if word in own}


def _split_of_words(
    table: RawTable, name: str, others: Iterable[str]
) -> tuple[list[str | None], dict[str, dict[str, str]]] | None:
    """The splits in a column that may be one of splits, and its words; `None` where it is something else."""
    cells = [cell.strip() if isinstance(cell, str) else cell for cell in table.columns.get(name, ())]
    meanings = _meanings((cell for cell in cells if isinstance(cell, str)), others)
    splits = [meanings.get(cell) if isinstance(cell, str) else None for cell in cells]
    is_split = any(splits) and all(split or is_empty(cell) for split, cell in zip(splits, cells, strict=True))
    return (splits, {name: meanings}) if is_split else None


def _is_flag(table: RawTable, name: str) -> bool:
    flags = [flag_of(cell) for cell in table.columns.get(name, ()) if not is_empty(cell)]
    return bool(flags) and None not in flags


def _splits_of_flags(table: RawTable, names: Sequence[str]) -> list[str | None]:
    """The split whose flag is set; without one train, or test where flags tell what is train."""
    without = "test" if "train" in (_SPLIT_OF_FLAG[name] for name in names) else "train"
    splits: list[str | None] = []
    for place, *cells in zip(table.row_names, *(table.columns[name] for name in names), strict=True):
        flagged = {_SPLIT_OF_FLAG[name] for name, cell in zip(names, cells, strict=True) if flag_of(cell)}
        if len(flagged) > 1:
            raise DataError(f"{table.file}: {place}: {' and '.join(names)} contradict each other")
        unknown = all(map(is_empty, cells))
        splits.append(flagged.pop() if flagged else None if unknown else without)
    return splits


def _complete(splits: Sequence[str | None], table: RawTable, column: str) -> list[str]:
    """The splits, if every row has one."""
    for split, place in zip(splits, table.row_names, strict=True):
        if split is None:
            text = f"{table.file}: {place}: has no {column}, although other rows have one; fill in all or none"
            raise DataError(text)
    return [split for split in splits if split]


def _group_column(table: RawTable) -> str | None:
    if _GROUP in table.columns:
        return _GROUP
    found = [name for name in _LIKE_GROUP if not all(map(is_empty, table.columns.get(name, ())))]
    if len(found) > 1:
        raise DataError(
            f"{table.file}: has the columns {' and '.join(found)}; rename the one whose images must stay together to "
            "'group'"
        )
    return found[0] if found else None


def _column_text(names: Sequence[str]) -> str:
    return f"{'column' if len(names) == 1 else 'columns'} {listed(names, _SHOWN)}"
