"""From the settings of a trial to its recipe, and recipes that other tools and guides would take."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from thaw.data.augment import PRESETS, preset_of, resolve
from thaw.recipe import FINE_TUNE_PHASE, HEAD_PHASE, Phase, Preset, Recipe, ResolvedRecipe
from thaw.recipe.ranges import Searched
from thaw.settings import value_at

KNOWN: Mapping[str, Mapping[str, Any]] = {
    # The Keras guide to transfer learning: ten epochs of the head at 1e-3, then the top at 1e-5, BatchNorm frozen.
    "guide": {
        "phases.0.solver": "optimizer",
        "phases.0.optimizer": "adam",
        "phases.0.lr": 1e-3,
        "phases.0.epochs": 10,
        "phases.1.cut": "stages:3",
        "phases.1.optimizer": "adam",
        "phases.1.lr": 1e-5,
        "phases.1.epochs": 10,
        "phases.1.schedule": "constant",
        "phases.1.freeze_after": (),
        "phases.1.layer_decay": 1.0,
    },
    # fastai's `fine_tune(4)`: one epoch of the head at 2e-3, then all layers in one cycle, from a hundredth of 1e-3.
    "fastai": {
        "phases.0.solver": "optimizer",
        "phases.0.lr": 2e-3,
        "phases.0.epochs": 1,
        "phases.1.cut": "pixels",
        "phases.1.lr": 1e-3,
        "phases.1.epochs": 4,
        "phases.1.schedule": "one_cycle",
        "phases.1.freeze_after": (),
        "phases.1.layer_decay": 0.5,
        "phases.1.batchnorm": "train",
    },
    # AutoGluon's MultiModalPredictor: all layers at 1e-4 with layer-wise decay 0.9 and cosine decay, ten epochs.
    "autogluon": {
        "phases.1.cut": "pixels",
        "phases.1.lr": 1e-4,
        "phases.1.epochs": 10,
        "phases.1.layer_decay": 0.9,
        "phases.1.weight_decay": 1e-3,
        "phases.1.warmup_epochs": 1.0,
        "phases.1.freeze_after": (),
        "phases.1.batchnorm": "train",
    },
}
"""Where trials of thawed stages begin, besides the plan: a search that finds nothing better says so against these."""


AS_PLANNED = "as planned"
"""The origin of a trial with the phases of the plan on another head, which is the first one with that head."""


def known_settings(origin: str, fixed: Collection[str], given: Mapping[str, Searched], base: Recipe) -> dict[str, Any]:
    """The settings of another tool or guide, but for those that the search keeps; within the ranges that were given.

    Args:
        origin: A key of `KNOWN`.
        fixed: Settings that the search keeps.
        given: Ranges: a number is moved into its own; for anything else outside of it, such as a cut, it is that of the
            plan, where the range has it.
        base: What all trials share.
    """
    found = {key: value for key, value in KNOWN[origin].items() if key not in fixed}
    for key in found.keys() & given.keys():
        nearest = given[key].nearest(found[key])
        is_moved = nearest == found[key] or isinstance(found[key], int | float)
        found[key] = nearest if is_moved else given[key].nearest(value_at(base, key))
    return found


def trains_head_only(requested: Recipe) -> bool:
    """Whether a recipe asks to train nothing but the head."""
    is_named = requested.strategy == "manual" and all(phase.cut == "head" for phase in requested.phases)
    return is_named or requested.strategy == "head"


def base_recipe(requested: Recipe, planned: ResolvedRecipe) -> Recipe:
    """What all trials share: what was requested, with what the plan has decided where no trial varies it.

    Engine, precision and cache are left to each trial's own plan, because they depend on the network and the cut; so
    are solver and inputs, where they were not requested.
    """
    head, of_cuts = planned.phases[0], (each for each in enumerate(planned.phases) if each[1].cut != "head")
    index, thawed = next(of_cuts, (1, FINE_TUNE_PHASE))
    below = {"name": FINE_TUNE_PHASE.name, **({"cut": "head"} if trains_head_only(requested) else {})}
    phases = [
        HEAD_PHASE if head.cut != "head" else _open_again(head, requested, 0),
        _open_again(thawed, requested, index).model_copy(update=below),
    ]
    kept = requested.model_dump(mode="json")
    decided = planned.model_dump(mode="json")
    for key in ("task", "monitor", "keep_phase", "split", "backbone", "weights", "head", "class_weights", "augment"):
        kept[key] = decided[key]
    for key in ("crop_mode", "image_size"):
        kept["preprocessing"][key] = decided["preprocessing"][key]
    kept |= {"strategy": "manual", "loggers": [], "measure": {"seconds": 0}, "phase_settings": {}}
    kept["phases"] = [phase.model_dump(mode="json") for phase in phases]
    return Recipe.from_values(kept)


def _open_again(planned: Phase, requested: Recipe, index: int) -> Phase:
    """A planned phase whose solver and inputs are open again, unless those were requested that are never planned.

    A solved head has as many epochs as there are penalties, so those are as requested too.
    """
    asked = requested.phases[index] if index < len(requested.phases) else FINE_TUNE_PHASE

    def wanted(name: str) -> Any:
        return requested.phase_settings.get(f"phases.{index}.{name}", getattr(asked, name))

    changes: dict[str, Any] = {
        "optional": False,
        "solver": "optimizer" if planned.cut == "head" and wanted("solver") == "optimizer" else "auto",
        "inputs": "fresh" if wanted("inputs") == "fresh" else "auto",
    }
    if planned.solver == "lbfgs":
        changes["epochs"] = HEAD_PHASE.epochs if wanted("solver") == "lbfgs" else wanted("epochs")
    return Phase(**{**planned.model_dump(), **changes})


def recipe_of(base: Recipe, settings: Mapping[str, Any], weights: Mapping[str, str]) -> Recipe:
    """The recipe of a trial: the shared one with its settings; without the second phase where nothing thaws."""
    changed = dict(settings)
    if name := changed.get("backbone"):
        changed["weights"] = weights.get(name, base.weights)
    recipe = base.with_settings(changed)
    if len(recipe.phases) > 1 and recipe.phases[1].cut == "head":
        recipe = recipe.model_copy(update={"phases": recipe.phases[:1]})
    return recipe


def relevant(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without those that change nothing: dropout of a linear head, and how stages train where none do."""
    kept = dict(settings)
    if kept.get("head.hidden") == [] and not kept.get("phases.0.mixup"):
        kept.pop("head.dropout", None)
    if kept.get("phases.1.cut") == "head":
        kept = {key: value for key, value in kept.items() if not key.startswith("phases.1.") or key.endswith(".cut")}
    return kept


def settings_of_plan(planned: ResolvedRecipe) -> dict[str, Any]:
    """The settings of the plan that a search varies, by key; the plan itself is trial 0."""
    thawed = next((phase for phase in planned.phases if phase.cut != "head"), None)
    found: dict[str, Any] = {
        "backbone": planned.backbone,
        "preprocessing.image_size": planned.preprocessing.image_size,
        "head.features": planned.head.features,
        "phases.0.augment": _preset(planned, planned.phases[0]),
        "class_weights": planned.class_weights,
        "head.hidden": list(planned.head.hidden),
        "head.dropout": planned.head.dropout,
        "phases.0.mixup": planned.phases[0].mixup,
        "phases.0.label_smoothing": planned.phases[0].label_smoothing,
        "views": planned.views,
        "phases.1.cut": thawed.cut if thawed else "head",
    }
    if thawed:
        for name in ("lr", "layer_decay", "epochs", "mixup", "label_smoothing"):
            found[f"phases.1.{name}"] = getattr(thawed, name)
        found["phases.1.augment"] = _preset(planned, thawed)
    return found


def _preset(planned: ResolvedRecipe, phase: Phase) -> Preset | None:
    """The preset that a phase trains with; `None` where that of the recipe has other settings than any preset."""
    preset = preset_of(planned.augment)
    return phase.augment or (preset if resolve(planned.augment) == PRESETS[preset] else None)
