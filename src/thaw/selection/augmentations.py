"""The augmentations that are compared, from mild to strong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from thaw.data.augment import DEFAULT_PRESET, PRESETS, Augmentation
from thaw.recipe import Preset

_STRENGTH: dict[str, float] = {"none": 0, "light": 1, "standard": 3, "strong": 4}
_WITHOUT_ONE = 2.0


@dataclass(frozen=True)
class AugmentationOption:
    """One augmentation: its name, the settings under `augment` that give it, and what it does to images."""

    name: str
    settings: Mapping[str, Any]
    augmentation: Augmentation

    @classmethod
    def of(cls, preset: Preset) -> AugmentationOption:
        """A preset."""
        return cls(preset, {"preset": preset}, PRESETS[preset])


def without_one_kind() -> list[AugmentationOption]:
    """The default preset without each of its kinds of transformation in turn."""
    default, neutral = PRESETS[DEFAULT_PRESET], Augmentation()
    options = []
    for kind in (field.name for field in fields(Augmentation)):
        value = getattr(neutral, kind)
        if getattr(default, kind) != value:
            name = f"{DEFAULT_PRESET} without {kind.replace('_', ' ')}"
            settings = {"preset": DEFAULT_PRESET, kind: value}
            options.append(AugmentationOption(name, settings, replace(default, **{kind: value})))
    return options


def by_strength(options: Sequence[AugmentationOption]) -> list[AugmentationOption]:
    """From mild to strong; the default without one kind lies below the default."""
    return sorted(options, key=lambda option: _STRENGTH.get(option.name, _WITHOUT_ONE))
