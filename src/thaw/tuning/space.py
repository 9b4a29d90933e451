"""What a search tries for each setting: the declared ranges, narrowed or widened by a file or by what is fixed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import floor, inf, isfinite, prod
from pathlib import Path
from typing import Any, cast

import yaml

from thaw.errors import RecipeError, first_line
from thaw.recipe import HeadSettings, Phase, PreprocessingSettings, Recipe
from thaw.recipe.network_files import absolute_file
from thaw.recipe.ranges import Range, Searched, Values, declared
from thaw.settings import Section, assign, unknown, value_at
from thaw.tuning.levels import LEVELS, Level
from thaw.yaml_text import read_yaml

_SECTIONS: Mapping[str, type[Section]] = {
    "preprocessing": PreprocessingSettings,
    "head": HeadSettings,
    "phases.0": Phase,
    "phases.1": Phase,
}

KEYS = tuple(key for level in LEVELS for key in level.settings)
"""Every setting that can be searched."""


@dataclass(frozen=True)
class Space:
    """What is tried, by dotted key of the setting."""

    ranges: Mapping[str, Searched]

    def of(self, level: Level) -> dict[str, Searched]:
        """What is tried at one level."""
        return {key: self.ranges[key] for key in level.settings if key in self.ranges}

    def values(self, key: str) -> tuple[Any, ...]:
        """The values that are tried for a setting; none where it is not varied, or is a range of numbers."""
        tried = self.ranges.get(key)
        return tried.values if isinstance(tried, Values) else ()

    def size(self, level: Level) -> float:
        """How many trials of a level differ; infinite where one of its settings is a range of numbers."""
        found = self.of(level).values()
        return prod(len(tried.values) if isinstance(tried, Values) else inf for tried in found)

    def nearest(self, level: Level, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of a level moved into the space, for settings that may lie outside of it."""
        return {key: tried.nearest(settings.get(key)) for key, tried in self.of(level).items()}

    def to_json(self) -> dict[str, Any]:
        """As a file of ranges has it."""
        return {key: tried.to_json() for key, tried in self.ranges.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Space:
        """What `to_json` gave, or a file of ranges has; raises `RecipeError`."""
        return cls({key: _searched(key, value) for key, value in values.items()})


def default_space(backbones: Collection[str], planned: Mapping[str, Any]) -> Space:
    """The ranges that are declared with the settings, and the networks to choose from.

    With an augmentation of the plan that is no preset: `None`, for that of the recipe.
    """
    ranges: dict[str, Searched] = {"backbone": Values(tuple(backbones))}
    for key in KEYS[1:]:
        section, _, name = key.rpartition(".")
        ranges[key] = declared(_SECTIONS[section] if section else Recipe)[name]
        if name == "augment" and key in planned and planned[key] is None:
            ranges[key] = Values((None, *cast(Values, ranges[key]).values))
    return Space(ranges)


def read_space(file: Path) -> Mapping[str, Any]:
    """What a file says about the space, by key; raises `RecipeError` that names the file and the key."""
    try:
        values = read_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RecipeError(f"{file}: cannot be read as YAML: {error}") from error
    if not isinstance(values, dict) or not values:
        raise RecipeError(f"{file}: is empty; write lines such as `phases.1.lr: {{low: 1e-5, high: 1e-3, log: true}}`")
    return values


def fixed_keys(fixed: str | Collection[str], given: Collection[str], recipe: Recipe) -> list[str]:
    """The settings that are fixed by name, and those that can be searched of a section that is, such as `head`.

    Args:
        fixed: Keys of settings or sections, or one of them.
        given: Keys of the ranges that are given.
        recipe: Has the settings.

    Raises:
        RecipeError: A key is unknown, or its range is given.
    """
    found: list[str] = []
    for key in (fixed,) if isinstance(fixed, str) else fixed:
        if key not in KEYS:
            try:
                assign(recipe.model_dump(mode="json"), key, None)
            except RecipeError as error:
                raise RecipeError(f"fixed: {key}: {unknown(key, list(KEYS))}") from error
        if key in given:
            raise RecipeError(f"fixed: {key}: has a range in space as well; omit it in either")
        found += [key, *(below for below in KEYS if below.startswith(f"{key}."))]
    return found


def narrowed(space: Space, given: Mapping[str, Any], fixed: Collection[str], recipe: Recipe) -> Space:
    """A space with some ranges replaced, and without the settings that are fixed.

    Args:
        space: The declared ranges.
        given: Ranges that replace them, by key: a list of values, or {low, high, log}.
        fixed: Settings that the recipe keeps.
        recipe: Has the settings, so that values which they do not allow are refused.

    Raises:
        RecipeError: A key or a value is unknown, a range is empty, or nothing is left to vary.
    """
    for key in given:
        if key not in KEYS:
            raise RecipeError(f"space: {key}: {unknown(key, list(KEYS))}")
    replaced = {**space.ranges, **{key: _searched(key, value) for key, value in given.items()}}
    for key in given:
        replaced[key] = _as_set(key, replaced[key], recipe)
    found = {key: tried for key, tried in replaced.items() if key in given or key not in fixed}
    if all(isinstance(tried, Values) and len(tried.values) == 1 for tried in found.values()):
        raise RecipeError("space: is empty: every setting is fixed, so there is nothing to search; use `thaw train`")
    return Space(found)


def _as_set(key: str, tried: Searched, recipe: Recipe) -> Searched:
    """Values as the recipe has them once they are set, each once: `"1e-4"` is a number there; a range as it is.

    Raises `RecipeError` where a value is not allowed.
    """
    if isinstance(tried, Values):
        return Values(tuple(dict.fromkeys(_set(key, value, recipe) for value in tried.values)))
    for value in (tried.low, tried.high):
        _set(key, value, recipe)
    _check_fractions(key, tried, recipe)
    return tried


def _set(key: str, value: Any, recipe: Recipe) -> Any:
    """A value as the recipe has it once it is set.

    Raises `RecipeError` where the setting does not allow it, or the plan would decide it anew in each trial.
    """
    if value == "auto":
        raise RecipeError(f"space: {key}: auto leaves it to the plan; name the values to try")
    try:
        known = value_at(recipe.with_settings({key: list(value) if isinstance(value, tuple) else value}), key)
    except RecipeError as error:
        raise RecipeError(f"space: {key}: {value!r} is not allowed: {first_line(error)}") from error
    return absolute_file(known) if key == "backbone" else known


def _check_fractions(key: str, tried: Range, recipe: Recipe) -> None:
    """Raise `RecipeError` where a setting has no values between whole numbers, which a range would try."""
    between = floor(tried.low) + 0.5
    between = between if tried.low < between < tried.high else (tried.low + tried.high) / 2
    try:
        recipe.with_settings({key: between})
    except RecipeError as error:
        raise RecipeError(f"space: {key}: takes whole numbers, so list the values to try, such as [4, 8]") from error


def _searched(key: str, value: Any) -> Searched:
    if isinstance(value, list):
        if not value:
            raise RecipeError(f"space: {key}: is empty; name at least one value, or leave the key out")
        return Values(tuple(tuple(item) if isinstance(item, list) else item for item in value))
    if isinstance(value, dict):
        low, high, log = value.get("low"), value.get("high"), value.get("log", False)
        if set(value) <= {"low", "high", "log"} and _are_numbers(low, high) and isinstance(log, bool):
            found = Range(float(low), float(high), log)  # type: ignore[arg-type]
            if found.low >= found.high or (log and found.low <= 0):
                raise RecipeError(f"space: {key}: is empty: low must be below high, and above 0 where log is true")
            return found
    raise RecipeError(f"space: {key}: {value!r} is neither a list of values nor {{low: …, high: …, log: true|false}}")


def _are_numbers(*values: Any) -> bool:
    """Whether all are finite numbers, or text that is one."""
    try:
        return all(not isinstance(value, bool) and isfinite(float(value)) for value in values)
    except (TypeError, ValueError):
        return False
