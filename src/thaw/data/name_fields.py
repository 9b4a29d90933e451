"""The parts of file names and folders that differ between images: counters, dates, serial numbers, views.

Names of one form, such as `part12_003.png`, are divided into *fields*, here `part12` and `003`. Fields that are
constant, or that only repeat the class or the split, do not tell which images belong together and are left out.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from math import gcd

import numpy as np

from thaw.data.split_names import split_of

_YEAR, _MONTH, _DAY = r"(?:19[89]\d|20[0-4]\d)", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_DATE = rf"{_YEAR}(?P<sep>[-_.]?){_MONTH}(?P=sep){_DAY}|{_DAY}(?P<dot>[-_.]){_MONTH}(?P=dot){_YEAR}"
_TIME = r"[-_. T]{0,3}(?:[01]\d|2[0-3])(?P<colon>[-_.:h]?)[0-5]\d(?P=colon)[0-5]\d(?:\.?\d{3})?"
_HEX = r"[0-9a-fA-F]"
_UUID = rf"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"
_MILLISECONDS = r"1[3-8]\d{11}"
"""Since 1970, as phones and chats number images: from 2011 to 2030."""

_DATED = re.compile(rf"(?<!\d)(?:{_DATE}|{_MILLISECONDS})(?![^\W_])")
_TIMED = re.compile(rf"(?<!\d)(?:(?:{_DATE}){_TIME}|{_MILLISECONDS})(?![^\W_])")
_COARSE = re.compile(rf"{_UUID}|[^\W_]+")
"""Pieces between separators."""

_FINE = re.compile(rf"{_UUID}|\d+|[^\W\d_]+")
"""Runs of letters and of digits."""

_MIN_OF_FORM = 0.05
"""Fraction of the images whose names have a form, at least, for it to be considered."""

_MAX_PARTS = 12
"""Parts of a name above which it is a sentence or a hash, and not considered."""

_YEAR_FIRST = re.compile(rf"{_YEAR}{_MONTH}{_DAY}")
_MIN_WITH_TIME = 0.95
"""Fraction of the names with a date that need a time after it; else what follows is a counter."""

_CONSISTENT = 0.95
"""Fraction of the images of each class (or split) that share a field which only repeats the class (or split)."""

_NUMBERED = re.compile(r"([^\W\d_]*)(\d+)[^\W\d_]?")
"""A number with a word before and a letter after it, such as `frame003` and `12a`; anything else is opaque."""

_WORD = re.compile(r"[^\W\d_]?[^\W\d_A-Z]{2,}|[A-Z]{3,}")
"""A word, such as `Abyssinian`, but not `sampleA` and `b`, which tell samples apart."""

_DENSE = 0.25
"""Fraction of the numbers between the lowest and the highest that a counter takes at least."""

_BEFORE_INDEX = re.compile(
    r"frame|frm|view|cam|camera|angle|side|shot|exp|exposure|aug|augmented|crop|patch|rot|rotation|flip|scale|copy|light|"
    r"illumination|zoom|channel|step|slice|page|layer",
    re.IGNORECASE,
)
"""What is numbered after such a word are images of one thing, not things."""

_VIEW = re.compile(
    r"left|right|top|bottom|front|back|side|up|down|upper|lower|rgb|ir|nir|uv|thermal|depth|bright|dark|original|"
    r"horizontal|vertical|[lrhv]",
    re.IGNORECASE,
)
"""What tells images of one thing apart."""


@dataclass(frozen=True, eq=False)
class Field:
    """One part of the names of a form, in the order of its rows.

    Attributes:
        texts: The text in each name.
        is_folder: Whether it is a folder instead of a part of the file name.
        is_index: Whether a word before it says that it numbers images of one thing, such as `frame`.
        is_date: Whether it is a date, with or without a time.
        moments: Date and time of each name, where the field is both.
    """

    texts: tuple[str, ...]
    is_folder: bool = False
    is_index: bool = False
    is_date: bool = False
    moments: tuple[datetime, ...] = ()

    @cached_property
    def codes(self) -> np.ndarray:
        """(N,) int, equal for equal texts."""
        return codes_of(self.texts)

    @property
    def distinct(self) -> int:
        """The number of different texts."""
        return int(self.codes.max()) + 1

    @cached_property
    def is_word(self) -> bool:
        """Whether the field of a file name has words, which name kinds of things rather than things."""
        kinds = set(self.texts)
        return not self.is_folder and sum(bool(_WORD.fullmatch(text)) for text in kinds) > len(kinds) / 2

    @cached_property
    def is_view(self) -> bool:
        """Whether it says which of several images of one thing this is: `left`, or the number after `frame`."""
        return self.is_index or all(_VIEW.fullmatch(text) for text in set(self.texts))

    @cached_property
    def is_counter(self) -> bool:
        """Whether these are numbers without large gaps, which may be counted anew in each class."""
        return not (self.is_date or self.is_sparse) and all(text.isdecimal() for text in set(self.texts))

    @cached_property
    def is_sparse(self) -> bool:
        """Whether these are identifiers rather than a counter: numbers with large gaps, or opaque texts.

        Two images with the same identifier show the same thing, because numbers with large gaps do not recur by chance.
        """
        if self.is_date:
            return False
        found = [_NUMBERED.fullmatch(text) for text in set(self.texts)]
        numbers = sorted({int(match[2]) for match in found if match})
        if None in found or len(numbers) < 2:
            return None in found and not self.is_word
        step = gcd(*(after - before for before, after in pairwise(numbers)))
        return len(numbers) / ((numbers[-1] - numbers[0]) / step + 1) < _DENSE


@dataclass(frozen=True)
class NameForm:
    """Names of one form: rows (N,) int, and the fields in which they differ."""

    rows: np.ndarray
    fields: tuple[Field, ...]


def codes_of(values: Sequence[object]) -> np.ndarray:
    """(N,) int, equal for equal values, numbered from 0 in the order of their first occurrence."""
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)


def joint_codes(*columns: np.ndarray) -> np.ndarray:
    """(N,) int, equal where all columns (N,) int are."""
    joined = columns[0]
    for column in columns[1:]:
        joined = np.unique(joined * (int(column.max(initial=0)) + 1) + column, return_inverse=True)[1]
    return joined


def name_forms(paths: Sequence[str], classes: np.ndarray, splits: np.ndarray, is_fine: bool) -> list[NameForm]:
    """The common forms of names and the fields of each.

    Args:
        paths: Paths with forward slashes.
        classes: (N,) int, the class of each image.
        splits: (N,) int, its split.
        is_fine: Divide names between letters and digits too (`part12frame003`), not only at separators.
    """
    stems = [_stem(path) for path in paths]
    dated = [stem for stem in stems if _DATED.search(stem)]
    has_time = bool(dated) and sum(bool(_TIMED.search(stem)) for stem in dated) >= _MIN_WITH_TIME * len(dated)
    moment = _TIMED if has_time else _DATED
    piece = _FINE if is_fine else _COARSE
    rows: defaultdict[str, list[int]] = defaultdict(list)
    names: defaultdict[str, list[list[str]]] = defaultdict(list)
    for row, (path, stem) in enumerate(zip(paths, stems, strict=True)):
        *folders, _ = path.split("/")
        found = moment.search(stem) if dated else None
        parts = piece.findall(stem[: found.start()] if found else stem)
        kinds = _kinds(parts)
        if found:
            after = piece.findall(stem[found.end() :])
            parts, kinds = [*parts, found[0], *after], f"{kinds}t{_kinds(after)}"
        # What comes last may be anything, such as `flip`, `rot90` or the hash of an export.
        if kinds and not kinds.endswith("t") and not is_fine:
            kinds = f"{kinds[:-1]}p"
        form = f"{len(folders)} {kinds}"
        rows[form].append(row)
        names[form].append([*folders, *parts])
    return [
        NameForm(np.array(rows[form]), _fields(form, names[form], classes[rows[form]], splits[rows[form]], has_time))
        for form in rows
        if len(rows[form]) >= _MIN_OF_FORM * len(paths) and len(names[form][0]) <= _MAX_PARTS
    ]


def folder_fields(paths: Sequence[str], classes: np.ndarray, splits: np.ndarray) -> list[Field]:
    """The levels of folders that say more than the class and the split; the text is empty where there is none."""
    folders = [path.split("/")[:-1] for path in paths]
    deepest = max(map(len, folders), default=0)
    levels = [tuple(parts[level] if level < len(parts) else "" for parts in folders) for level in range(deepest)]
    fields = [Field(level, is_folder=True, is_index=_is_index(level, ())) for level in levels]
    return [field for field in fields if _varies(field, classes, splits)]


def moment_of(text: str) -> datetime | None:
    """The date and time of a text whose digits are one, the year first or last; `None` for an impossible one."""
    digits = re.sub(r"\D", "", text)[:14]
    if re.fullmatch(_MILLISECONDS, digits):
        return datetime.fromtimestamp(int(digits) // 1000, UTC).replace(tzinfo=None)
    year_first = digits if _YEAR_FIRST.match(digits) else f"{digits[4:8]}{digits[2:4]}{digits[:2]}{digits[8:]}"
    try:
        return datetime.strptime(year_first, "%Y%m%d%H%M%S")
    except ValueError:
        return None


def _stem(path: str) -> str:
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _kinds(parts: Sequence[str]) -> str:
    """What the parts of a name are: n for numbers, w for words, m for those with letters and digits."""
    return "".join(["n" if part.isdecimal() else "w" if part.isalpha() else "m" for part in parts])


def _fields(
    form: str, names: Sequence[Sequence[str]], classes: np.ndarray, splits: np.ndarray, has_time: bool
) -> tuple[Field, ...]:
    """The fields of a form that say more than the class and the split."""
    depth, _, kinds = form.partition(" ")
    columns = list(zip(*names, strict=True))
    fields = []
    for position, texts in enumerate(columns):
        is_folder = position < int(depth)
        is_date = not is_folder and kinds[position - int(depth)] == "t"
        before = columns[position - 1] if position > int(depth) else ()
        found = [moment_of(text) for text in texts] if is_date and has_time else []
        moments = tuple(moment for moment in found if moment)
        is_index = not is_date and _is_index(texts, before)
        field = Field(texts, is_folder, is_index, is_date, moments if len(moments) == len(found) else ())
        if _varies(field, classes, splits):
            fields.append(field)
    return tuple(fields)


def _is_index(texts: Sequence[str], before: Sequence[str]) -> bool:
    """Whether the word before each number, in the same or the previous part, says that it numbers images."""
    for text in dict(zip(texts, before or texts, strict=True)).items():
        match = _NUMBERED.fullmatch(text[0])
        word = match[1] if match and match[1] else text[1] if match and before else ""
        if not _BEFORE_INDEX.fullmatch(word):
            return False
    return True


def _varies(field: Field, classes: np.ndarray, splits: np.ndarray) -> bool:
    """Whether a field says more than the class and the split."""
    if field.distinct < 2 or (field.is_folder and all(split_of(text) for text in set(field.texts))):
        return False
    return not any(repeats(field.codes, column) for column in (classes, splits))


def repeats(codes: np.ndarray, column: np.ndarray) -> bool:
    """Whether (nearly) all images with one value of a column have one code."""
    _, first, images = np.unique(joint_codes(column, codes), return_index=True, return_counts=True)
    most = np.zeros(int(column.max()) + 1, int)
    np.maximum.at(most, column[first], images)
    return bool((most >= _CONSISTENT * np.bincount(column)).all())
