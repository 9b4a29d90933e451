"""Class names: which spellings mean one class, and which texts cannot name a class.

Two spellings that show the same text are one class: Unicode has several forms of an accented letter (file systems and
archives of macOS use the decomposed one), and blanks at the ends cannot be seen. Names that differ only in case, or in
characters that cannot be seen, are refused, because they are nearly always one class spelled twice.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thaw.errors import DataError

_REFUSED = {"Cc": "a control character", "Cs": "half a character", "Zl": "a line break", "Zp": "a line break"}
_INVISIBLE = "Cf"


@dataclass(frozen=True)
class ClassNames:
    """The class of each spelling in a data set, and remarks on spellings that were changed."""

    class_of: Mapping[str, str]
    notes: tuple[str, ...] = ()


def normalised(text: str) -> str:
    """A text in Unicode's composed form (NFC), without blanks at its ends."""
    return unicodedata.normalize("NFC", text).strip()


def unify(places: Mapping[str, str], given: Sequence[str] = ()) -> ClassNames:
    """One class for each spelling of a label.

    Args:
        places: Where each spelling occurs first, such as `{"crack": "labels.csv: row 3"}`, for messages.
        given: Classes of an existing classifier, which keep their spelling.

    Raises:
        DataError: A label contains a control character, or two classes can hardly be told apart.
    """
    class_of: dict[str, str] = {}
    similar: dict[str, str] = {_similarity_key(name): name for name in given}
    known = {normalised(name): name for name in given}
    spellings: dict[str, list[str]] = {}
    for text, place in places.items():
        _check_characters(text, place)
        name = known.setdefault(normalised(text), normalised(text))
        other = similar.setdefault(_similarity_key(name), name)
        if other != name and not (other in given and name in given):
            raise DataError(_too_similar(place, name, other, [places[text] for text in spellings.get(other, ())]))
        class_of[text] = name
        spellings.setdefault(name, []).append(text)
    notes = (
        f"{places[text]}: the label {_visible(text)} is read as class {name}"
        for text, name in class_of.items()
        if text != name and (text != text.strip() or len(spellings[name]) > 1)
    )
    return ClassNames(class_of, tuple(notes))


def _check_characters(text: str, place: str) -> None:
    for character in text.strip():
        if what := _REFUSED.get(unicodedata.category(character)):
            raise DataError(f"{_escaped(place)}: the class name {_visible(text)} contains {what}; rename it")


def _similarity_key(name: str) -> str:
    """Equal for names that can hardly be told apart; single letters may be classes of their own in each case."""
    if len(name) == 1:
        return name
    visible = "".join(character for character in name if unicodedata.category(character) != _INVISIBLE)
    return unicodedata.normalize("NFC", " ".join(visible.split()).casefold())


def _too_similar(place: str, name: str, other: str, other_places: Sequence[str]) -> str:
    if name.casefold() == other.casefold():
        difference = f"{name} and {other} differ only in case"
    else:
        difference = f"{name!a} and {other!a} differ only in characters that cannot be seen"
    where = f" (see {other_places[0]})" if other_places else ""
    return f"{place}: the classes {difference}{where}; give both the same name"


def _escaped(text: str) -> str:
    """A text with escapes for the characters that no class name may contain."""
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in _REFUSED else c for c in text)


def _visible(text: str) -> str:
    """A text in quotes, with escapes for characters that cannot be seen."""
    return repr(unicodedata.normalize("NFC", text))
