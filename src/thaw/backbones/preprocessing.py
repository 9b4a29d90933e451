"""What a recipe or a file may change about the preprocessing that came with weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from thaw.backbones.facts import Facts
from thaw.recipe import PreprocessingSettings


def with_preprocessing(facts: Facts, wanted: PreprocessingSettings, source: str) -> Facts:
    """Facts with some values of the preprocessing replaced, and their source noted."""
    given = wanted.model_dump(exclude_none=True)
    if not given:
        return facts
    mean = given.get("mean", facts.mean)
    pixels = replace(
        facts.pixels,
        size=given.get("image_size", facts.pixels.size),
        crop_pct=given.get("crop_pct", facts.pixels.crop_pct),
        crop_mode=given.get("crop_mode", facts.pixels.crop_mode),
        interpolation=given.get("interpolation", facts.pixels.interpolation),
        fill=fill_colour(mean) if "mean" in given else facts.pixels.fill,
    )
    return replace(
        facts,
        pixels=pixels,
        mean=mean,
        std=given.get("std", facts.std),
        preprocessing_origin=f"{facts.preprocessing_origin}; {', '.join(given)} {source}",
    )


def settings_of(facts: Facts) -> PreprocessingSettings:
    """The preprocessing of facts as a recipe has it; raises pydantic's `ValidationError` where no recipe can."""
    return PreprocessingSettings(
        image_size=facts.pixels.size,
        crop_pct=facts.pixels.crop_pct,
        crop_mode=facts.pixels.crop_mode,
        interpolation=facts.pixels.interpolation,
        mean=facts.mean,
        std=facts.std,
    )


def fill_colour(mean: Sequence[float]) -> tuple[int, int, int]:
    """The colour (R, G, B) 0..255 of padding: the mean of the training data as in timm, 0 after normalisation."""
    red, green, blue = (round(255 * value) for value in mean)
    return red, green, blue
