"""A draft of the plan, whose settings are then measured on the features of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from thaw.backbones.contract import Backbone
from thaw.classifier.classifier import Classifier
from thaw.data.prepare import Prepared
from thaw.features.engines import FrozenPart
from thaw.features.pooled import plain_sample
from thaw.inspection.similarity import Similarity, remembered_similarity
from thaw.planning.baseline import baseline_recipe, can_have_baseline
from thaw.planning.measurements import Measurements, PlannedRecipe
from thaw.planning.measuring import measure
from thaw.planning.plan import Plan, resolve
from thaw.planning.sample_features import SampleFeatures
from thaw.planning.selecting import Selected, select, with_selected
from thaw.planning.strategy import SHALLOWER, apply_strategy, choose_strategy
from thaw.progress import Bar
from thaw.seeds import derive_seed
from thaw.selection.budget import default_seconds
from thaw.selection.sample import draw_sample

MAX_PHASE_SECONDS = 2 * 3600.0
"""How long a phase may take that the recipe does not ask for."""

SIMILARITY_IMAGES = 32

BASELINE_FROM = 8.0
"""Predicted seconds of measuring and training from which there is a baseline before them; it costs two or three."""


@dataclass(frozen=True)
class Draft:
    """A plan before settings are measured on features: a recipe with phases, what they take, and the plan it gives."""

    planned: PlannedRecipe
    measured: Measurements
    plan: Plan

    @property
    def measuring_seconds(self) -> float:
        """How long the measurements on features may take."""
        seconds = self.planned.recipe.measure.seconds
        return default_seconds(self.plan.forecast.seconds) if seconds is None else seconds

    def select(
        self,
        prepared: Prepared,
        backbone: Backbone,
        cache: Path,
        bar: Bar,
        on_baseline: Callable[[Plan], None] | None = None,
    ) -> Selected:
        """Measure the settings that the recipe leaves open on the features of its training images.

        `on_baseline` is called as soon as the head is planned, with the plan of a baseline, where what is left to
        measure and to train takes longer than a baseline does.
        """
        can_have = on_baseline is not None and can_have_baseline(self.plan.recipe)
        recipe = self.planned.recipe.model_copy(update={"monitor": self.plan.recipe.monitor})
        backbone.use_features(backbone.widest_features)
        frozen = FrozenPart(backbone, self.measured.device.device, self.measured.engine.engine)
        sample = draw_sample(prepared.manifest, prepared.duplicates, recipe.seed)
        seed = derive_seed(recipe.seed, "views")
        features = SampleFeatures(prepared, sample, frozen, seed, cache, bar, whole=can_have)

        def on_head(selected: Selected, measuring: float) -> None:
            forecast = self.plan.forecast
            extraction = 0.0 if selected.is_remembered else forecast.extraction_seconds
            if on_baseline and measuring + extraction + sum(forecast.phase_seconds) >= BASELINE_FROM:
                plan = self.finished(selected)
                # A baseline may take other features.
                with backbone.taking(backbone.features):
                    on_baseline(replace(plan, recipe=baseline_recipe(plan.recipe)))

        return select(recipe, self.measured, features, self.measuring_seconds, on_head if can_have else None)

    def finished(self, selected: Selected) -> Plan:
        """The plan with what was measured."""
        recipe = with_selected(self.planned.recipe, selected)
        planned = PlannedRecipe(recipe, (*self.planned.choices, *selected.choices))
        return resolve(planned, self.measured, selected.estimates)


def draft_plan(requested: PlannedRecipe, prepared: Prepared, classifier: Classifier, cache: Path) -> Draft:
    """Choose a strategy, measure what it takes, and resolve every "auto" as well as it can be without measuring more.

    A strategy that the recipe does not ask for is replaced by a shallower one where it would train for too long here.
    """
    recipe, backbone, train = requested.recipe, classifier.backbone, prepared.manifest.indices("train")

    def similarity() -> Similarity:
        return remembered_similarity(backbone, plain_sample(prepared.pixels, train, SIMILARITY_IMAGES), cache)

    strategy, reason = choose_strategy(recipe, similarity, len(train), len(prepared.manifest.classes))
    while True:
        phased = apply_strategy(recipe, strategy, reason, backbone, len(train))
        measured = measure(phased.recipe, prepared, classifier, cache)
        planned = PlannedRecipe(phased.recipe, (*requested.choices, *phased.choices))
        plan = resolve(planned, measured)
        longest = max(plan.forecast.phase_seconds)
        if recipe.strategy != "auto" or strategy not in SHALLOWER or longest < MAX_PHASE_SECONDS:
            return Draft(planned, measured, plan)
        reason = f"{reason}; {strategy} would train for {longest / 3600:.1f} h here"
        strategy = SHALLOWER[strategy]
