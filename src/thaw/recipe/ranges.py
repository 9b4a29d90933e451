"""What a search may try for a setting, declared where the setting is, as a part of its annotation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; `log` for a setting whose order of magnitude matters."""

    low: float
    high: float
    log: bool = False

    def nearest(self, value: Any) -> float:
        """The number in the range that is nearest to a value; the lowest for `None`."""
        return self.low if value is None else min(max(float(value), self.low), self.high)

    def to_json(self) -> Any:
        """As a file of ranges has it."""
        return {"low": self.low, "high": self.high, **({"log": True} if self.log else {})}


@dataclass(frozen=True)
class Values:
    """Some values."""

    values: tuple[Any, ...]

    @property
    def names(self) -> tuple[Any, ...]:
        """A scalar for each value, which tells them apart: the value itself, or a list as JSON."""
        return tuple(json.dumps(value) if isinstance(value, list | tuple) else value for value in self.values)

    def nearest(self, value: Any) -> Any:
        """The value itself where it is one of these, else the nearest number, or the first."""
        plain = list(value) if isinstance(value, tuple) else value
        for own in self.values:
            if (list(own) if isinstance(own, tuple) else own) == plain:
                return own
        numbers = [own for own in self.values if isinstance(own, int | float) and not isinstance(own, bool)]
        if numbers and isinstance(value, int | float):
            return min(numbers, key=lambda own: abs(own - value))
        return self.values[0]

    def to_json(self) -> Any:
        """As a file of ranges has it."""
        return [list(value) if isinstance(value, tuple) else value for value in self.values]


Searched = Range | Values


def declared(section: type[BaseModel]) -> Mapping[str, Searched]:
    """What may be tried for the settings of a section, by name; those without a declaration are left out."""
    found = {}
    for name, field in section.model_fields.items():
        for item in field.metadata:
            if isinstance(item, Range | Values):
                found[name] = item
    return found
