"""Recipes of earlier releases under today's keys, so that their runs still open and their files still run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from thaw.errors import RecipeError

_KEYS = {"stored_as": "cache_dtype", "decide": "decision"}
_PHASE_VALUES = {"solver": {"steps": "optimizer"}, "inputs": {"stored": "cached"}}
_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
# A name may contain = and commas: it ends where = and a number follow, and then a comma or the end.
_FRACTION = re.compile(rf"\s*(.+?)\s*=\s*{_NUMBER}\s*(?:,|$)")
_COST = re.compile(rf"\s*(.+?)\s*>\s*(.+?)\s*=\s*{_NUMBER}\s*(?:,|$)")


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a recipe with the keys and values of release 0.1 renamed; others as they are."""
    found = {_KEYS.get(key, key): value for key, value in values.items()}
    if found.get("strategy") == "as_written":
        found["strategy"] = "manual"
    if values.get("stored_as", "auto") != "auto":
        # A recipe that release 0.1 resolved; its heads took the last stage, and the best epoch of all phases was kept.
        found["head"] = {"features": "last", **(found.get("head") or {})}
        found.setdefault("keep_phase", "any_gain")
    if isinstance(found.get("target"), str):
        found["target"] = parse_setting("target", found["target"])
    if isinstance(found.get("loggers"), str):
        found["loggers"] = parse_names(found["loggers"])
    if isinstance(found.get("candidates"), str | list | tuple):
        found["candidates"] = parse_candidates(found["candidates"])
    if isinstance(found.get("decision"), Mapping):
        found["decision"] = _decision(found["decision"])
    if isinstance(found.get("phases"), list | tuple):
        found["phases"] = [_phase(phase) if isinstance(phase, Mapping) else phase for phase in found["phases"]]
    return found


def _phase(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _PHASE_VALUES.get(key, {}).get(value, value) if isinstance(value, str) else value
        for key, value in values.items()
    }


def _decision(values: Mapping[str, Any]) -> dict[str, Any]:
    found = {"in_distribution" if key == "familiar" else key: value for key, value in values.items()}
    for name in ("recall", "precision"):
        if isinstance(found.get(name), str):
            found[name] = parse_setting(f"decision.{name}", found[name])
    if isinstance(found.get("costs"), str):
        found["costs"] = parse_setting("decision.costs", found["costs"])
    return {key: value for key, value in found.items() if value is not None}


def parse_setting(key: str, text: str) -> Any:
    """The value of the short form of a setting, such as `crack=0.99`; raises `RecipeError` that names the setting."""
    try:
        return SHORT_FORMS[key](text)
    except RecipeError as error:
        raise RecipeError(f"{key}: {error}") from error


def parse_names(text: str) -> list[str]:
    """`tensorboard,mlflow` as a list; `none` for an empty one."""
    return [] if text == "none" else [item.strip() for item in text.split(",")]


def parse_candidates(given: str | Sequence[str]) -> dict[str, str]:
    """`starter,resnet50=resnet50.safetensors`, or the list of these, as {name: weights}."""
    names = parse_names(given) if isinstance(given, str) else given
    pairs = (str(name).partition("=") for name in names)
    return {name: file or "published" for name, _, file in pairs}


def parse_fractions(text: str) -> dict[str, float]:
    """`crack=0.99,pits=0.9` as a mapping; raises `RecipeError`."""
    return {name: float(value) for name, value in _parts(_FRACTION, text, "NAME=NUMBER")}


def parse_costs(text: str) -> dict[str, dict[str, float]]:
    """`crack>ok=50,ok>crack=2` as {true: {predicted: cost}}; raises `RecipeError`."""
    found: dict[str, dict[str, float]] = {}
    for true, predicted, cost in _parts(_COST, text, "TRUE>PREDICTED=COST"):
        found.setdefault(true, {})[predicted] = float(cost)
    return found


def _parts(pattern: re.Pattern[str], text: str, form: str) -> Iterator[tuple[str, ...]]:
    """The groups of each part of a text; raises `RecipeError` at the first part that does not have the form."""
    position = 0
    while position < len(text):
        match = pattern.match(text, position)
        if not match:
            raise RecipeError(f"{text[position:]!r} is not {form}, nor a mapping as YAML")
        yield match.groups()
        position = match.end()


SHORT_FORMS: Mapping[str, Callable[[str], Any]] = {
    "candidates": parse_candidates,
    "loggers": parse_names,
    "folders.exclude": parse_names,
    "target": parse_fractions,
    "decision.recall": parse_fractions,
    "decision.precision": parse_fractions,
    "decision.costs": parse_costs,
}
"""Settings that are mappings or lists, and what reads their short form."""
