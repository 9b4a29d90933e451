"""The augmentations that are compared, from mild to strong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from thaw.data.augment import DEFAULT_PRESET, PRESETS, Augmentation
from thaw.recipe import Preset

KINDS = ("rotation", "horizontal_flip", "vertical_flip", "zoom", "shift", "brightness", "contrast", "crop")
"""The kinds of transformation that are left out one at a time where the default augmentation hurts."""

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

    @classmethod
    def without(cls, kind: str) -> AugmentationOption:
        """The default preset without one kind of transformation."""
        neutral = getattr(Augmentation(), kind)
        augmentation = replace(PRESETS[DEFAULT_PRESET], **{kind: neutral})
        name = f"{DEFAULT_PRESET} without {kind.replace('_', ' ')}"
        return cls(name, {"preset": DEFAULT_PRESET, kind: neutral}, augmentation)


def by_strength(options: Sequence[AugmentationOption]) -> list[AugmentationOption]:
    """From mild to strong; the default without one kind lies below the default."""
    return sorted(options, key=lambda option: _STRENGTH.get(option.name, _WITHOUT_ONE))
