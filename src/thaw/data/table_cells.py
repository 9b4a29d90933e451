"""The cells of a table as paths, labels and flags.

A cell is text or a number; lists, objects and the like are refused rather than named after their Python text. The label
`1.0` is the label `1`, because pandas writes whole numbers in a column with empty cells that way.

Every function raises `ValueError` with what is wrong with the cell.
"""

from __future__ import annotations

import os
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

from thaw.data.class_names import normalised
from thaw.formats import shortened
from thaw.remote import address_of, is_remote

SEPARATOR = "|"
"""Separates several labels in one cell; everything that Thaw writes joins labels by it."""

_WHOLE_NUMBER = re.compile(r"(-?\d+)\.0+")
_PYTHON_TEXT = re.compile(r"""\[\s*\]|[\[({]\s*b?['"].*['"].*[\])}]|b'.*'|b".*\"""", re.DOTALL)
_WINDOWS_ROOT = re.compile(r"[a-zA-Z]:[\\/]|\\\\")
_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")
# With the words of German and French spreadsheets.
_FLAGS = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "wahr", "vrai"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "falsch", "faux"), False),
}


def is_empty(cell: Any) -> bool:
    """Whether there is nothing in a cell; pandas writes NaN for that."""
    return cell is None or cell != cell or not str(cell).strip()


def text_of(cell: Any) -> str:
    """A cell as text in Unicode's composed form, empty for none; whole numbers are written without a fraction."""
    if is_empty(cell):
        return ""
    cell = _decoded(cell)
    if not isinstance(cell, str | int | float | Decimal):
        raise ValueError(f"{shortened(str(cell))} is neither text nor a number")
    text = _storable(normalised(str(cell)))
    whole = _WHOLE_NUMBER.fullmatch(text)
    return whole[1] if whole else text


def labels_of(cell: Any, may_be_several: bool) -> list[str]:
    """The distinct labels in a cell, in order.

    Args:
        cell: A list of labels, or text with several separated by `|`.
        may_be_several: Whether the column is one of several labels, where another separator is likely to be meant.
    """
    if isinstance(cell, list | tuple):
        pieces = [text_of(piece) for piece in cell]
        if joined := next((piece for piece in pieces if SEPARATOR in piece), None):
            raise ValueError(f"the label {joined!r} contains {SEPARATOR}, which separates labels; rename it")
    else:
        text = text_of(cell)
        if _PYTHON_TEXT.fullmatch(text):
            raise ValueError(f"{shortened(text)} is a list or object as text; write labels as scratch{SEPARATOR}dent")
        if may_be_several and ("," in text or ";" in text):
            raise ValueError(
                f"{text!r}: separate several labels by {SEPARATOR}, as scratch{SEPARATOR}dent; if it is one label, "
                "call the column 'label'"
            )
        pieces = [text_of(piece) for piece in text.split(SEPARATOR)]
    return list(dict.fromkeys(filter(None, pieces)))


def path_of(cell: Any) -> str:
    """The path in a cell, with forward slashes where this system has no others, or the address on remote storage."""
    text = "" if is_empty(cell) else _decoded(cell)
    if not isinstance(text, str):
        raise ValueError(f"the path {shortened(str(cell))} is not text")
    text = _storable(text.strip())
    if not text:
        raise ValueError("the path is empty")
    if is_remote(text):
        return address_of(text)
    if os.sep == "/" and _WINDOWS_ROOT.match(text):
        raise ValueError(f"{shortened(text)} is a path on Windows; write paths relative to the folder of the table")
    return Path(text).as_posix()


def flag_of(cell: Any) -> bool | None:
    """Whether a cell says yes or no; `None` if it says neither."""
    return _FLAGS.get(str(cell).strip().lower().removesuffix(".0"))


def _decoded(cell: Any) -> Any:
    """The text of bytes; any other cell as it is."""
    if not isinstance(cell, bytes):
        return cell
    try:
        return cell.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{shortened(str(cell))} is not UTF-8 text") from error


def _storable(text: str) -> str:
    """The text unchanged, if it is whole characters that a path or a file can hold."""
    if _NOT_STORABLE.search(text):
        raise ValueError(f"{shortened(ascii(text))} contains a character that cannot be stored")
    return text
