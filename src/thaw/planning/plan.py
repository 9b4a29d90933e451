"""The plan: every "auto" of a recipe resolved, with the measured reason for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import sqrt
from typing import Any

from thaw.backbones.facts import Facts
from thaw.backbones.preprocessing import settings_of
from thaw.data import augment
from thaw.errors import RecipeError
from thaw.formats import percent
from thaw.metrics import METRICS, Metric
from thaw.planning.cache_plan import CachePlan, plan_cache, views_of
from thaw.planning.costs import GIB, Forecast, Throughput, forecast
from thaw.planning.device_memory import device_memory
from thaw.planning.freezing import if_it_fits
from thaw.planning.measurements import Choice, Measurements, PlannedRecipe
from thaw.planning.step_timings import Chosen
from thaw.recipe import (
    HEAD_PHASE,
    USUAL_BATCH,
    AugmentSettings,
    HeadSettings,
    Phase,
    Recipe,
    ResolvedRecipe,
)
from thaw.selection.estimates import Estimates
from thaw.training.head_solver import PENALTIES
from thaw.training.loss import IMBALANCE

FREE_DISK_FRACTION = 0.5
MAX_LBFGS_BYTES = 2 * GIB

GRADIENT_SETTINGS = (
    "optimizer",
    "lr",
    "weight_decay",
    "momentum",
    "schedule",
    "warmup_epochs",
    "batch_size",
    "patience",
)
"""Settings of a phase that only gradient steps use."""


@dataclass(frozen=True)
class Plan:
    """A recipe without "auto", the reasons, what it should take, and the accuracy to expect where it was measured."""

    recipe: ResolvedRecipe
    choices: tuple[Choice, ...]
    forecast: Forecast
    estimates: Estimates | None = None


def resolve(planned: PlannedRecipe, measured: Measurements, estimates: Estimates | None = None) -> Plan:
    """Resolve every "auto" of a recipe whose backbone and phases are planned."""
    budget, budget_choice = _budget(planned.recipe, measured)
    planned = if_it_fits(planned, measured, budget)
    recipe, reasons = planned.recipe, {choice.setting: choice for choice in planned.choices}
    recipe, batch_choices = _with_batch_sizes(recipe, measured)
    reasons |= {choice.setting: _joined(reasons.get(choice.setting), choice) for choice in batch_choices}
    caching = plan_cache(recipe, measured, budget)
    phases, solvers = _solvers(recipe, measured, caching.phases, caching.views)
    class_weights = reasons.pop("class_weights", None) or _class_weights(recipe, measured)
    monitor = _monitor(recipe, measured)
    keep_phase = _keep_phase(recipe, estimates, METRICS[monitor.value])
    features = reasons.pop("head.features", None) or _head_features(recipe)
    resolved = ResolvedRecipe.from_values(
        {
            **recipe.model_dump(mode="json"),
            **_measured_settings(measured),
            "split": {**recipe.split.model_dump(mode="json"), "group_by": measured.group_by.value},
            "views": caching.views,
            "cache_dtype": caching.dtype,
            "cache_gb": round(budget / GIB, 3),
            "head": {**recipe.head.model_dump(mode="json"), "features": features.value},
            "class_weights": class_weights.value,
            "monitor": monitor.value,
            "keep_phase": keep_phase.value,
            "augment": AugmentSettings(
                preset=augment.preset_of(recipe.augment), **asdict(augment.resolve(recipe.augment))
            ),
            "phases": [phase.model_dump(mode="json") for phase in phases],
            "strategy": "manual",
            # The phases fit into it already.
            "time_limit": None,
        }
    )
    published = Choice("backbone", recipe.backbone, f"weights: {measured.facts.origin}")
    choices = (
        _task(recipe, measured),
        measured.group_by,
        reasons.pop("backbone", published),
        Choice("preprocessing", _describe(measured.facts), measured.facts.preprocessing_origin),
        _device(recipe, measured, caching),
        Choice("engine", resolved.engine, measured.engine.reason),
        Choice("precision", resolved.precision, measured.steps.precision.reason),
        *_where_there_is_a_choice("steps", measured.steps.steps),
        *_where_there_is_a_choice("memory_format", measured.steps.memory_format),
        _threads(recipe, measured),
        features,
        class_weights,
        monitor,
        keep_phase,
        budget_choice,
        *_augment(recipe),
        *reasons.values(),
        *caching.choices,
        *solvers,
    )
    rates = (measured.engine.images_per_second, measured.steps.rates)
    throughput = Throughput(*rates, measured.processes, measured.solving)
    views = [views_of(recipe, phase, caching.views) for phase in phases]
    predicted = forecast(phases, throughput, measured.images, views, measured.stored(caching.disk_bytes))
    return Plan(resolved, choices, predicted, estimates)


def _measured_settings(measured: Measurements) -> dict[str, Any]:
    """The settings that have one value for every phase and that measurements alone decide."""
    return {
        "task": measured.task,
        "device": str(measured.device.device),
        "engine": measured.engine.engine,
        "precision": measured.steps.precision.value,
        "steps": measured.steps.steps.value,
        "memory_format": measured.steps.memory_format.value,
        "threads": measured.threads,
        "preprocessing": settings_of(measured.facts),
    }


def _task(recipe: Recipe, measured: Measurements) -> Choice:
    reasons = {
        "multiclass": "one label per image: softmax",
        "binary": "two classes: one sigmoid",
        "multilabel": "several labels per image: a sigmoid for each",
    }
    return Choice("task", measured.task, "as requested" if recipe.task != "auto" else reasons[measured.task])


def _device(recipe: Recipe, measured: Measurements, caching: CachePlan) -> Choice:
    reasons = (measured.device.reason, *device_memory(recipe, measured, caching))
    return Choice("device", str(measured.device.device), "; ".join(reasons))


def _where_there_is_a_choice(setting: str, chosen: Chosen[str]) -> list[Choice]:
    """What is decided on CUDA devices only."""
    return [Choice(setting, chosen.value, chosen.reason)] if chosen.reason else []


def _threads(recipe: Recipe, measured: Measurements) -> Choice:
    reason = "as many as PyTorch takes here" if recipe.threads is None else "as requested"
    return Choice("threads", str(measured.threads), reason)


def _describe(facts: Facts) -> str:
    spec = facts.pixels
    mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (facts.mean, facts.std))
    return f"{spec.size} px, {spec.crop_mode} {spec.crop_pct:.3g}, {spec.interpolation}, mean {mean}, std {std}"


def _head_features(recipe: Recipe) -> Choice:
    if recipe.head.features != "auto":
        return Choice("head.features", recipe.head.features, "as requested")
    return Choice("head.features", "last", "the last stage is enough for most images")


def _augment(recipe: Recipe) -> list[Choice]:
    """The preset that goes with values of the recipe, which are not measured."""
    given = [name for name, value in recipe.augment if name != "preset" and value is not None]
    if recipe.augment.preset != "auto" or not given:
        return []
    reason = f"not measured, because {', '.join(given)} {'is' if len(given) == 1 else 'are'} set"
    return [Choice("augment.preset", augment.DEFAULT_PRESET, reason)]


def _class_weights(recipe: Recipe, measured: Measurements) -> Choice:
    ratio = f"the largest class has {measured.imbalance:.1f}x the images of the smallest"
    if recipe.class_weights != "auto":
        return Choice("class_weights", recipe.class_weights, f"as requested; {ratio}")
    if measured.imbalance > IMBALANCE:
        return Choice("class_weights", "balanced", f"{ratio}, more than {IMBALANCE:g}x")
    return Choice("class_weights", "none", f"{ratio}, no more than {IMBALANCE:g}x")


def _monitor(recipe: Recipe, measured: Measurements) -> Choice:
    if recipe.monitor != "auto":
        return Choice("monitor", recipe.monitor, "as requested")
    if measured.task == "multilabel":
        return Choice("monitor", "mean_average_precision", "several labels per image: threshold-independent")
    if measured.imbalance > IMBALANCE:
        return Choice("monitor", "balanced_accuracy", "the classes are imbalanced")
    return Choice("monitor", "accuracy", "the classes are of similar size")


def _keep_phase(recipe: Recipe, estimates: Estimates | None, monitored: Metric) -> Choice:
    if recipe.keep_phase != "auto":
        return Choice("keep_phase", recipe.keep_phase, "as requested")
    if estimates is None or estimates.across is None:
        return Choice("keep_phase", "any_gain", "nothing indicates that validation is too optimistic")
    similar, across = (percent(each.accuracy) for each in (estimates.similar, estimates.across))
    found = f"on images like these, {across} on unseen {estimates.grouping}"
    if monitored.name == "accuracy" or monitored.kind != "fraction":
        found = f"too optimistic: a linear head reaches {similar} {found}"
    else:
        found = f"too optimistic in {monitored.title}: a linear head reaches an accuracy of {similar} {found}"
    if estimates.differ:
        return Choice("keep_phase", "standard_error", f"validation is {found}")
    return Choice("keep_phase", "any_gain", f"validation is not clearly {found}")


def _budget(recipe: Recipe, measured: Measurements) -> tuple[int, Choice]:
    if recipe.cache_bytes is not None:
        return recipe.cache_bytes, Choice("cache_gb", f"{recipe.cache_gb:g}", "as requested")
    budget = int(measured.free_bytes * FREE_DISK_FRACTION)
    reason = f"half of the {measured.free_bytes / GIB:.1f} GiB that are free or hold cached features"
    return budget, Choice("cache_gb", f"{budget / GIB:.1f}", reason)


def _solvers(
    recipe: Recipe, measured: Measurements, phases: Sequence[Phase], views: int
) -> tuple[tuple[Phase, ...], tuple[Choice, ...]]:
    """Which phases fit the head by L-BFGS instead of gradient steps; raises `RecipeError` where they cannot."""
    resolved, choices = [], []
    size = measured.bytes_to_solve(views)
    for index, phase in enumerate(phases):
        solver, reason = phase.solver, "as requested"
        if phase.solver == "auto":
            if not recipe.can_solve(phase):
                solver, reason = "optimizer", "trains more than a linear head"
            elif phase.inputs != "cached":
                solver, reason = "optimizer", "features are not cached"
            elif size > MAX_LBFGS_BYTES:
                solver, reason = "optimizer", f"all views at once would take {size / GIB:.1f} GiB of memory"
            else:
                features = measured.bytes_at_head(views) / 1e6
                solver, reason = "lbfgs", f"a linear head on {features:,.0f} MB of features is a convex problem"
        elif solver == "lbfgs" and phase.inputs == "fresh" and augment.of_phase(recipe.augment, phase.augment).changes:
            raise RecipeError(
                f"phases.{index}.solver: lbfgs fits cached views, and would see only plain ones with inputs fresh; "
                "use solver optimizer, inputs cached and a cache_gb that they fit into, or augment none"
            )
        epochs = min(phase.epochs, len(PENALTIES)) if solver == "lbfgs" else phase.epochs
        if solver == "lbfgs" and (unused := _unused_by_lbfgs(phase, recipe.head)):
            reason += f"; {', '.join(unused)} would need solver optimizer"
        resolved.append(phase.model_copy(update={"solver": solver, "epochs": epochs}))
        choices.append(Choice(f"phases.{index}.solver", solver, reason))
    return tuple(resolved), tuple(choices)


def _with_batch_sizes(recipe: Recipe, measured: Measurements) -> tuple[Recipe, list[Choice]]:
    """The recipe with a batch size in each phase, and learning rates for those that are not the usual ones.

    Square-root scaling for adaptive optimizers: Malladi et al. 2022, "On the SDEs and Scaling Rules for Adaptive
    Gradient Algorithms".
    """
    phases, choices = [], []
    for index, (phase, size) in enumerate(zip(recipe.phases, measured.steps.batch_sizes, strict=True)):
        changes: dict[str, Any] = {"batch_size": size}
        if phase.batch_size == "auto" and size != USUAL_BATCH:
            factor = sqrt(size / USUAL_BATCH)
            changes["lr"] = phase.lr * factor
            choices.append(Choice(f"phases.{index}.batch_size", str(size), measured.steps.batch_reason))
            scaled = f"times {factor:.2g} for the batch size"
            choices.append(Choice(f"phases.{index}.lr", f"{changes['lr']:.2g}", scaled))
        phases.append(phase.model_copy(update=changes))
    return recipe.model_copy(update={"phases": tuple(phases)}), choices


def _joined(first: Choice | None, second: Choice) -> Choice:
    """The second choice of a setting, with the reasons of both."""
    return second if first is None else replace(second, reason=f"{first.reason}; {second.reason}")


def _unused_by_lbfgs(phase: Phase, head: HeadSettings) -> list[str]:
    """The settings of a phase and its head that the recipe changes and L-BFGS does not use."""
    usual = HEAD_PHASE.model_copy(update={"batch_size": USUAL_BATCH})
    changed = [name for name in GRADIENT_SETTINGS if getattr(phase, name) != getattr(usual, name)]
    changed += [f"epochs above {len(PENALTIES)}"] * (phase.epochs > max(HEAD_PHASE.epochs, len(PENALTIES)))
    return changed + ["head.dropout"] * (head.dropout != HeadSettings().dropout)
