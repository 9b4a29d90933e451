"""Recipes of earlier releases under today's keys, so that their runs still open and their files still run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_KEYS = {"stored_as": "cache_dtype", "decide": "decision"}
_PHASE_VALUES = {"solver": {"steps": "optimizer"}, "inputs": {"stored": "cached"}}
_COST = re.compile(r"\s*(.+?)\s*>\s*(.+?)\s*=\s*([0-9.eE+-]+)\s*")


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a recipe with the keys and values of release 0.1 renamed; others as they are."""
    found = {_KEYS.get(key, key): value for key, value in values.items()}
    if found.get("strategy") == "as_written":
        found["strategy"] = "manual"
    if isinstance(found.get("target"), str):
        found["target"] = parse_fractions(found["target"])
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
            found[name] = parse_fractions(found[name])
    if isinstance(found.get("costs"), str):
        found["costs"] = parse_costs(found["costs"])
    return {key: value for key, value in found.items() if value is not None}


def parse_names(text: str) -> list[str]:
    """`tensorboard,mlflow` as a list; `none` for an empty one."""
    return [] if text == "none" else [item.strip() for item in text.split(",")]


def parse_candidates(given: str | Sequence[str]) -> dict[str, str]:
    """`starter,resnet50=resnet50.safetensors`, or the list of these, as {name: weights}."""
    names = parse_names(given) if isinstance(given, str) else given
    pairs = (str(name).partition("=") for name in names)
    return {name: file or "published" for name, _, file in pairs}


def parse_fractions(text: str) -> dict[str, Any]:
    """`crack=0.99,pits=0.9` as a mapping; what cannot be read stays text, for the check to refuse."""
    found: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.rpartition("=")
        found[name.strip()] = _number(value)
    return found


def parse_costs(text: str) -> dict[str, dict[str, Any]]:
    """`crack>ok=50,ok>crack=2` as {true: {predicted: cost}}."""
    found: dict[str, dict[str, Any]] = {}
    for part in text.split(","):
        match = _COST.fullmatch(part)
        true, predicted, cost = match.groups() if match else (part.strip(), "", "")
        found.setdefault(true, {})[predicted] = _number(cost)
    return found


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text.strip()
