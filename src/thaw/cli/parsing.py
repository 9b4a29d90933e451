"""Settings as text on the command line; everywhere else they are values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import yaml

from thaw.durations import seconds_of
from thaw.errors import RecipeError
from thaw.recipe.upgrade import SHORT_FORMS, parse_setting
from thaw.yaml_text import read_yaml

_VERBATIM = frozenset({"split.group_by"})
"""Settings whose text is their value, whatever YAML would read: a regular expression such as `[a-z]+`."""


def parsed(key: str, text: str) -> Any:
    """The value that a text means for a setting.

    Mappings and lists have a short form (`crack=0.99`, `tensorboard,mlflow`) and can be YAML (`{crack: 0.99}`); any
    other setting is a YAML scalar, such as `1e-5`, `true` or `null`. Raises `RecipeError`.
    """
    if key in _VERBATIM:
        return text
    if key not in SHORT_FORMS or text == "null":
        return _scalar(key, text)
    if text.lstrip().startswith(("{", "[")):
        # What is not YAML is a name that begins with a bracket.
        with suppress(yaml.YAMLError, ValueError):
            return read_yaml(text)
    return parse_setting(key, text)


def _scalar(key: str, text: str) -> Any:
    if not text:
        raise RecipeError(f"{key}: has no value; null is none")
    try:
        return read_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"{key}: {text!r} cannot be read as a value: {reason}") from error


def parsed_items(key: str, texts: Iterable[str]) -> dict[str, Any]:
    """The mapping that a repeated option means for a setting; raises `RecipeError`."""
    found: dict[str, Any] = {}
    for text in texts:
        values = parsed(key, text)
        if not isinstance(values, Mapping):
            raise RecipeError(f"{key}: {text!r} is not a mapping")
        for name, value in values.items():
            found[name] = {**found[name], **value} if isinstance(value, Mapping) and name in found else value
    return found


def parsed_settings(assignments: Iterable[str]) -> dict[str, Any]:
    """The values of `KEY=VALUE` texts, by dotted key; raises `RecipeError`."""
    found = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise RecipeError(f"--set {assignment}: write it as KEY=VALUE, for example --set phases.1.lr=1e-5")
        found[key.strip()] = parsed(key.strip(), text.strip())
    return found


def parsed_seconds(option: str, text: str) -> float:
    """The seconds that a duration means, such as `90s`, `30m` or `1h30m`; raises `RecipeError`."""
    try:
        return seconds_of(text)
    except ValueError as error:
        raise RecipeError(f"{option} {text}: {error}") from error
