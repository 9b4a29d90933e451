"""Every setting of a recipe with its default, its allowed values and its description, for `thaw settings` and docs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from thaw.recipe.recipe import Recipe

_BOUNDS = {"minimum": ">= {}", "exclusiveMinimum": "> {}", "maximum": "<= {}", "exclusiveMaximum": "< {}"}


@dataclass(frozen=True)
class Setting:
    """One setting.

    key: dotted, with `N` for the number of a phase. default: as YAML, or "required". allowed: values or range, in
    words. section: the group that the key belongs to, empty at the top level.
    """

    key: str
    default: str
    allowed: str
    description: str

    @property
    def section(self) -> str:
        """The group that the setting belongs to; empty at the top level."""
        return self.key.rpartition(".")[0]


def settings() -> tuple[Setting, ...]:
    """Every setting: those of the top level first, then section by section."""
    schema = Recipe.model_json_schema()
    found = list(_settings(schema, schema["$defs"], ""))
    return tuple(sorted(found, key=lambda setting: bool(setting.section)))


def find(words: str) -> tuple[Setting, ...]:
    """Settings whose key or description contains every word, in any case."""
    wanted = words.lower().split()
    return tuple(
        setting
        for setting in settings()
        if all(word in f"{setting.key} {setting.description}".lower() for word in wanted)
    )


def _settings(section: Mapping[str, Any], sections: Mapping[str, Any], prefix: str) -> Iterator[Setting]:
    for name, schema in section["properties"].items():
        key = f"{prefix}{name}"
        if child := _section(schema, sections):
            yield from _settings(child, sections, f"{key}.")
        elif child := _section(schema.get("items", {}), sections):
            yield from _settings(child, sections, f"{key}.N.")
        else:
            default = json.dumps(schema["default"]) if "default" in schema else "required"
            yield Setting(key, default.strip('"'), _allowed(schema), schema["description"])


def _section(schema: Mapping[str, Any], sections: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The section that a schema refers to, if it refers to one."""
    return sections[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else None


def _allowed(schema: Mapping[str, Any]) -> str:
    """Values or range in words, such as `cosine, plateau` or `integer >= 1 or null`."""
    if "anyOf" in schema:
        options = list(dict.fromkeys(_allowed(option) for option in schema["anyOf"]))
        return (", " if all("enum" in option or "const" in option for option in schema["anyOf"]) else " or ").join(
            options
        )
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    match schema.get("type"):
        case "array":
            return f"list of {_allowed(schema['items'])}" if "items" in schema else "list of 3 numbers"
        case "object":
            return f"mapping to {_allowed(schema['additionalProperties'])}"
        case "boolean":
            return "true or false"
        case "string":
            return "text"
        case kind:
            bounds = [
                text.format(f"{schema[name]:,}".removesuffix(".0")) for name, text in _BOUNDS.items() if name in schema
            ]
            return " ".join([str(kind), *bounds[:1], *(f"and {bound}" for bound in bounds[1:])])
