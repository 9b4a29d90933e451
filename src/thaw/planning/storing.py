"""Which phases read stored features, as what, and how many views of each image: what fits and what pays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from thaw.data import augment
from thaw.features.store import StoredType
from thaw.planning.costs import GIB
from thaw.planning.measurements import Choice, Measurements
from thaw.recipe import Phase, Recipe

HEAD_VIEWS, THAWED_VIEWS = 4, 2
"""Stored views of each image: where the head alone trains on them, and where stages do, which is the least anywhere.

Test accuracy with 1, 2, 4, 8 and 16 (fresh) views; MobileNetV2, 16 epochs, 3 seeds, bench/views_curve.py. Solar
cells, both phases: 84.4, 86.5, 86.4, 86.4, 85.9; head alone: 80.8, 81.4, 82.8, 84.2, 84.8. Rolled steel, both phases:
98.2, 98.0, 96.9, 96.7, 98.0; head alone: 97.1, 97.1, 97.9, 97.1, 97.9. One split each, whose test has a standard
error of 1.4 and 1.2: only the head alone gains from more than two. Planned runs of the starter on five splits each
(bench/regret.py), two views against four: rubbish 82.5 and 81.2, solar cells 84.4 and 84.1, steel 97.3 and 97.1."""

MOST_LOOKS = 16_000
"""Views of all images together beyond which more variety is not worth the look: many images are varied themselves."""


@dataclass(frozen=True)
class CachePlan:
    """Which phases read stored features, as what, and how many views of each training image."""

    phases: tuple[Phase, ...]
    views: int
    dtype: StoredType
    disk_bytes: int
    choices: tuple[Choice, ...]


def wanted_views(recipe: Recipe, stored: Iterable[int], images: int) -> tuple[int, str]:
    """How many stored views the recipe asks for or the training of phases `stored` can use, and why."""
    if recipe.views != "auto":
        return recipe.views, "as asked"
    if not augment.resolve(recipe.augment).changes:
        return 1, "no augmentation: every view is the same"
    reading = [recipe.phases[index] for index in stored]
    epochs = max((phase.epochs for phase in reading), default=1)
    thaws = any(phase.cut != "head" for phase in reading)
    enough = THAWED_VIEWS if thaws else HEAD_VIEWS
    most = min(enough, max(THAWED_VIEWS, MOST_LOOKS // max(1, images)))
    if epochs < most:
        return epochs, f"no phase reads more in its {epochs} epochs"
    if most < enough:
        return most, f"{images:,} images are varied themselves"
    return most, f"{most} stored views train {'stages' if thaws else 'a head'} as well as fresh ones each epoch"


def plan_cache(recipe: Recipe, measured: Measurements, budget: int) -> CachePlan:
    """As many views as fit: eight bits give way to fewer views, and those to running the deepest cut anew."""
    stored = [
        index for index, phase in enumerate(recipe.phases) if phase.inputs != "fresh" and measured.positions[index] > 0
    ]
    wanted, why = wanted_views(recipe, stored, measured.train_images)
    asked = recipe.stored_as
    dtype: StoredType = "float16" if asked == "auto" else asked
    views, dropped = wanted, []
    while stored and _disk(measured, stored, views, dtype) > budget:
        if dtype == "float16" and asked == "auto":
            dtype = "uint8"
        elif views > 1 and recipe.views == "auto":
            views //= 2
        else:
            deepest = min(stored, key=lambda index: measured.positions[index])
            stored.remove(deepest)
            dropped.append(deepest)
            wanted, why = wanted_views(recipe, stored, measured.train_images)
            views, dtype = wanted, "float16" if asked == "auto" else asked
    phases = tuple(
        phase.model_copy(update={"inputs": "stored" if index in stored else "fresh"})
        for index, phase in enumerate(recipe.phases)
    )
    if views < wanted:
        size = _disk(measured, stored, wanted, dtype)
        why = f"{wanted} would take {size / GIB:.1f} GiB, the budget is {budget / GIB:.1f}"
    choices = []
    if stored:
        choices = [Choice("views", str(views), why), Choice("stored_as", dtype, _why_stored_as(recipe, dtype))]
    for index, phase in enumerate(phases):
        choices.append(_inputs(measured, phase, index, views, dtype, index in dropped))
    return CachePlan(phases, views, dtype, _disk(measured, stored, views, dtype), tuple(choices))


def _why_stored_as(recipe: Recipe, dtype: StoredType) -> str:
    if recipe.stored_as != "auto":
        return "as asked"
    if dtype == "uint8":
        return "half precision would not fit; eight bits a value with a scale for each channel train as well"
    return "half precision fits"


def _inputs(measured: Measurements, phase: Phase, index: int, views: int, dtype: StoredType, dropped: bool) -> Choice:
    setting = f"phases.{index}.inputs"
    if phase.inputs == "stored":
        size = _disk(measured, [index], views, dtype)
        reason = f"{size / 1e6:,.0f} MB for {views} views of {measured.train_images} images at cut {phase.cut}"
        return Choice(setting, "stored", reason)
    if dropped:
        size = _disk(measured, [index], 1, dtype)
        return Choice(setting, "fresh", f"one view alone would take {size / GIB:.1f} GiB, more than the cache may")
    return Choice(setting, "fresh", "nothing is frozen" if measured.positions[index] == 0 else "as asked")


def _disk(measured: Measurements, stored: Sequence[int], views: int, dtype: StoredType) -> int:
    """Bytes of the stores of some phases; phases with the same cut share one."""
    sizes = {measured.positions[index]: measured.sizes[index].of(dtype) for index in stored}
    return sum(sizes.values()) * (measured.train_images * views + measured.plain_images)
