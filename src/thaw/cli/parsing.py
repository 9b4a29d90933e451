"""Settings as text on the command line; everywhere else they are values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import yaml

from thaw.errors import RecipeError
from thaw.recipe.upgrade import parse_candidates, parse_costs, parse_fractions, parse_names

_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "candidates": parse_candidates,
    "loggers": parse_names,
    "folders.exclude": parse_names,
    "target": parse_fractions,
    "decision.recall": parse_fractions,
    "decision.precision": parse_fractions,
    "decision.costs": parse_costs,
}


def parsed(key: str, text: str) -> Any:
    """The value that a text means for a setting.

    Mappings and lists have a short form (`crack=0.99`, `tensorboard,mlflow`) and can be YAML (`{crack: 0.99}`); any
    other setting is a YAML scalar, such as `1e-5`, `true` or `null`. Raises `RecipeError`.
    """
    if key in _PARSERS and not text.lstrip().startswith(("{", "[")) and text != "null":
        return _PARSERS[key](text)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{key}: {text!r} cannot be read as a value: {error}") from error
    if isinstance(value, str):
        # YAML 1.1 reads 1e-5 as text.
        try:
            return float(value)
        except ValueError:
            return value
    return value


def parsed_items(key: str, texts: Iterable[str]) -> dict[str, Any]:
    """The mapping that a repeated option means for a setting; raises `RecipeError`."""
    found: dict[str, Any] = {}
    for text in texts:
        for name, value in parsed(key, text).items():
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
