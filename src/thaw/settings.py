"""Groups of settings: frozen, refusing what they do not know, reached by dotted keys, explained in sentences."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from thaw.errors import RecipeError

_EXPECTED = "Input should be "


class Section(BaseModel):
    """A frozen group of settings that refuses a key it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def assign(values: Any, dotted: str, value: Any) -> None:
    """Put a value where a dotted key points, such as `phases.1.lr`; raises `RecipeError` where there is no such key."""
    *parents, last = dotted.split(".")
    for part in parents:
        values = _child(values, part, dotted)
    _child(values, last, dotted)
    values[int(last) if isinstance(values, list) else last] = value


def value_at(section: Any, dotted: str) -> Any:
    """The value where a dotted key points, which exists."""
    for part in dotted.split("."):
        section = section[int(part)] if isinstance(section, Sequence) else getattr(section, part)
    return section


def only_set(values: Mapping[str, Any], section: Section, changed: Iterable[str]) -> dict[str, Any]:
    """The plain values of a section, without those that are neither set nor changed by a dotted key."""
    below: dict[str, list[str]] = {}
    for first, _, rest in (key.partition(".") for key in changed):
        below.setdefault(first, []).append(rest)
    kept = {name: value for name, value in values.items() if name in section.model_fields_set or name in below}
    for name in kept:
        inner = getattr(section, name)
        if isinstance(inner, Section) and "" not in below.get(name, ()):
            kept[name] = only_set(kept[name], inner, below.get(name, ()))
    return kept


def _child(values: Any, part: str, dotted: str) -> Any:
    if isinstance(values, list):
        if part.isdecimal() and int(part) < len(values):
            return values[int(part)]
        raise RecipeError(f"{dotted}: there is no number {part}; it counts from 0 to {len(values) - 1}")
    if isinstance(values, dict) and part in values:
        return values[part]
    known = list(values) if isinstance(values, dict) else []
    raise RecipeError(f"{dotted}: {unknown(part, known)}")


def unknown(name: str, known: list[str]) -> str:
    """The sentence for a name that does not exist: the nearest that does, or all of them."""
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"unknown key {name!r}; did you mean {near[0]!r}?"
    return f"unknown key {name!r}; known are {', '.join(known) or 'none here'}"


def explain(error: ValidationError, root: type[Section], lists: Mapping[str, type[Section]]) -> Iterator[str]:
    """One line for each key that is wrong."""
    for path, details in _by_key(error).items():
        detail = details[0]
        if detail["type"] == "extra_forbidden":
            yield f"{'.'.join(path)}: {unknown(path[-1], _keys_at(list(path[:-1]), root, lists))}"
        else:
            value = detail.get("input")
            shown = "" if isinstance(value, dict | list | Section) or not path else f" (got {value!r})"
            expected = ", or ".join([detail["msg"], *(other["msg"].removeprefix(_EXPECTED) for other in details[1:])])
            yield f"{'.'.join(path) + ': ' if path else ''}{expected.removeprefix('Value error, ')}{shown}"


def _by_key(error: ValidationError) -> dict[tuple[str, ...], list[ErrorDetails]]:
    """What is wrong with each key; pydantic gives one error, with a name of its own, for each kind of value allowed."""
    paths = [(tuple(str(part) for part in detail["loc"]), detail) for detail in error.errors()]
    of_several_kinds = {path[:-1] for path, _ in paths if path and path[-1].startswith("literal[")}
    found: defaultdict[tuple[str, ...], list[ErrorDetails]] = defaultdict(list)
    for path, detail in paths:
        found[path[:-1] if path[:-1] in of_several_kinds else path].append(detail)
    return found


def _keys_at(path: list[str], section: type[Section], lists: Mapping[str, type[Section]]) -> list[str]:
    for part in path:
        if part in lists:
            section = lists[part]
        elif not part.isdecimal():
            section = type(section.model_fields[part].default)
    return list(section.model_fields)


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Plain values as (dotted key, value); a list of plain values is one value."""
    children: Iterator[tuple[Any, Any]]
    if isinstance(value, dict):
        children = iter(value.items())
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        children = iter(enumerate(value))
    else:
        yield prefix, value
        return
    for key, child in children:
        yield from flatten(child, f"{prefix}.{key}" if prefix else str(key))
