"""Which phases read cached features, in which data type, and how many views of each image: what fits and what pays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from thaw.data import augment
from thaw.features.encoding import CacheDtype
from thaw.formats import count
from thaw.planning.costs import GIB
from thaw.planning.measurements import Choice, Measurements
from thaw.recipe import Phase, Recipe

HEAD_VIEWS, THAWED_VIEWS = 4, 2
"""Cached views of each image: where only the head trains on them, and where stages do, which is also the minimum.

Test accuracy with 1, 2, 4, 8 and 16 (fresh) views; MobileNetV2, 16 epochs, 3 seeds, bench/views_curve.py. Solar
cells, both phases: 84.4, 86.5, 86.4, 86.4, 85.9; head only: 80.8, 81.4, 82.8, 84.2, 84.8. Rolled steel, both phases:
98.2, 98.0, 96.9, 96.7, 98.0; head only: 97.1, 97.1, 97.9, 97.1, 97.9. One split each, with a standard error of 1.4 and
1.2 on test: only the head alone gains from more than two. Planned runs of the starter on five splits each
(bench/regret.py), two views against four: waste 82.5 and 81.2, solar cells 84.4 and 84.1, steel 97.3 and 97.1."""

MAX_EXTRACTED = 16_000
"""Views of all images together beyond which more variety does not pay: many images are varied enough."""


@dataclass(frozen=True)
class CachePlan:
    """Phases with their inputs planned, the views of each training image, the data type, and the bytes on disk."""

    phases: tuple[Phase, ...]
    views: int
    dtype: CacheDtype
    disk_bytes: int
    choices: tuple[Choice, ...]


def wanted_views(recipe: Recipe, cached: Iterable[int], images: int) -> tuple[int, str]:
    """How many cached views the recipe asks for or phases `cached` can use, and why."""
    if recipe.views != "auto":
        return recipe.views, "as requested"
    reading = [recipe.phases[index] for index in cached]
    reading = [phase for phase in reading if augment.of_phase(recipe.augment, phase.augment).changes]
    if not reading:
        return 1, "no augmentation: all views are equal"
    epochs = max((phase.epochs for phase in reading), default=1)
    thaws = any(phase.cut != "head" for phase in reading)
    enough = THAWED_VIEWS if thaws else HEAD_VIEWS
    most = min(enough, max(THAWED_VIEWS, MAX_EXTRACTED // max(1, images)))
    if epochs < most:
        return epochs, f"no phase uses more in its {epochs} epochs"
    if most < enough:
        return most, f"{images:,} images are varied enough"
    return most, f"{most} cached views train {'stages' if thaws else 'a head'} as well as new ones in every epoch"


def plan_cache(recipe: Recipe, measured: Measurements, budget: int) -> CachePlan:
    """As many views as fit: first eight bits, then fewer views, then no caching for the deepest cut.

    Args:
        recipe: Its phases are planned.
        measured: Sizes of the features at each cut, and how many images there are.
        budget: Bytes that cached features may take.
    """
    cached = [
        index for index, phase in enumerate(recipe.phases) if phase.inputs != "fresh" and measured.positions[index] > 0
    ]
    wanted, reason = wanted_views(recipe, cached, measured.images.train)
    first_dtype: CacheDtype = "float16" if recipe.cache_dtype == "auto" else recipe.cache_dtype
    dtype, views, dropped = first_dtype, wanted, []
    while cached and _disk_bytes(recipe, measured, cached, views, dtype) > budget:
        if dtype == "float16" and recipe.cache_dtype == "auto":
            dtype = "uint8"
        elif views > 1 and recipe.views == "auto":
            views //= 2
        else:
            deepest = min(cached, key=lambda index: measured.positions[index])
            cached.remove(deepest)
            dropped.append(deepest)
            wanted, reason = wanted_views(recipe, cached, measured.images.train)
            views, dtype = wanted, first_dtype
    phases = tuple(
        phase.model_copy(update={"inputs": "cached" if index in cached else "fresh"})
        for index, phase in enumerate(recipe.phases)
    )
    if views < wanted:
        size = _disk_bytes(recipe, measured, cached, wanted, dtype)
        reason = f"{wanted} would take {size / GIB:.1f} GiB, more than the {budget / GIB:.1f} GiB of the cache"
    choices = []
    if cached:
        choices = [Choice("views", str(views), reason), Choice("cache_dtype", dtype, _dtype_reason(recipe, dtype))]
    for index, phase in enumerate(phases):
        if index in cached:
            reason = _cached_reason(recipe, measured, index, views, dtype)
        elif index in dropped:
            size = _disk_bytes(recipe, measured, [index], 1, dtype)
            reason = f"a single view would take {size / GIB:.1f} GiB, more than the cache has"
        else:
            reason = "as requested" if measured.positions[index] else "nothing is frozen"
        choices.append(Choice(f"phases.{index}.inputs", phase.inputs, reason))
    size = _disk_bytes(recipe, measured, cached, views, dtype)
    return CachePlan(phases, views, dtype, size, tuple(choices))


def views_of(recipe: Recipe, phase: Phase, views: int) -> int:
    """How many of the cached views a phase trains on: one where nothing changes in them."""
    return views if augment.of_phase(recipe.augment, phase.augment).changes else 1


def _dtype_reason(recipe: Recipe, dtype: CacheDtype) -> str:
    if recipe.cache_dtype != "auto":
        return "as requested"
    if dtype == "uint8":
        return "half precision would not fit; eight bits with a scale per channel train as well"
    return "half precision fits"


def _cached_reason(recipe: Recipe, measured: Measurements, index: int, views: int, dtype: CacheDtype) -> str:
    phase, size = recipe.phases[index], _disk_bytes(recipe, measured, [index], views, dtype)
    images = f"{measured.images.train:,} images at cut {phase.cut}"
    return f"{size / 1e6:,.0f} MB for {count(views_of(recipe, phase, views), 'view')} of {images}"


def _disk_bytes(recipe: Recipe, measured: Measurements, cached: Sequence[int], views: int, dtype: CacheDtype) -> int:
    """Bytes of the cached features of some phases; phases with the same cut and views share them.

    Validation images are cached at every cut, test images only at the lowest one. Those above a stage that is frozen
    again are taken to be as large as those at the cut, which they hardly ever exceed.
    """
    frozen_again = {measured.positions[index] for index in cached if recipe.phases[index].freeze_after}
    plain = {measured.positions[index]: measured.sizes[index].of(dtype) for index in cached}
    times = {position: 2 if position in frozen_again else 1 for position in plain}
    per_image = {
        (measured.positions[index], recipe.phases[index].augment): measured.sizes[index].of(dtype)
        * views_of(recipe, recipe.phases[index], views)
        * times[measured.positions[index]]
        for index in cached
    }
    images, validated = measured.images, sum(size * times[position] for position, size in plain.items())
    tested = plain[min(plain)] if plain else 0
    return sum(per_image.values()) * images.train + validated * images.val + tested * images.test
