"""A draft of the plan, whose settings are then measured on the features of images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from thaw.classifier.classifier import Classifier
from thaw.data.prepare import Prepared
from thaw.features.cache import FeatureCache
from thaw.features.engines import FrozenPart
from thaw.features.pooled import PROBE_IMAGES, plain_sample
from thaw.features.probe import ExtractionJob
from thaw.inspection.similarity import Similarity, remembered_similarity
from thaw.planning.baseline import baseline_recipe, baseline_seconds, can_have_baseline
from thaw.planning.freezing import with_freezing
from thaw.planning.int8_offer import OFFER_FROM, with_int8_offer
from thaw.planning.measurements import Choice, Measurements, PlannedRecipe
from thaw.planning.measuring import Trainable, measure
from thaw.planning.plan import Plan, resolve
from thaw.planning.sample_features import SampleFeatures
from thaw.planning.selected import Selected, with_selected
from thaw.planning.selecting import Questions
from thaw.planning.strategy import SHALLOWER, apply_strategy, choose_strategy, for_int8
from thaw.planning.time_limit import LEAST_EPOCHS, TimeLimit, shortened
from thaw.progress import Bar
from thaw.recipe import Phase, Recipe, Strategy
from thaw.seeds import derive_seed
from thaw.selection.budget import default_seconds
from thaw.selection.sample import draw_sample

MAX_PHASE_SECONDS = 2 * 3600.0
"""How long a phase may take that the recipe does not ask for."""

SIMILARITY_IMAGES = 32

BASELINE_FROM, BASELINE_FRACTION = 8.0, 1 / 4
"""Predicted seconds of measuring and training from which there is a baseline before them. It costs two or three; for
many outputs it costs more, and no more than this fraction of them."""


@dataclass(frozen=True)
class Material:
    """What a plan is made for: a recipe whose backbone is chosen, images, a classifier with a new head, and a cache."""

    requested: PlannedRecipe
    prepared: Prepared
    classifier: Classifier
    cache: Path


@dataclass(frozen=True)
class Draft:
    """A plan before settings are measured on features: a recipe with phases, what they take, and the plan it gives.

    Attributes:
        material: What it is for.
        strategy: The one that gave the phases, and why.
        planned: The recipe with phases.
        measured: What the plan is made from; training steps are assumed, or timed.
        trainable: What they are timed on.
        plan: Every "auto" resolved as well as it can be without measuring more.
        limit: The time limit that the phases were fitted into, if there is one.
        left_out: Phases that it left no time for.
    """

    material: Material
    strategy: tuple[Strategy, str]
    planned: PlannedRecipe
    measured: Measurements
    trainable: Trainable
    plan: Plan
    limit: TimeLimit | None = None
    left_out: tuple[Phase, ...] = ()

    @property
    def measuring_seconds(self) -> float:
        """How long the measurements on features may take."""
        seconds = self.planned.recipe.measure.seconds
        return default_seconds(self.plan.forecast.seconds) if seconds is None else seconds

    @property
    def unmeasured_seconds(self) -> float:
        """What extracting the views takes that the head alone trains on, as long as augmentation is not measured."""
        recipe, measured = self.plan.recipe, self.measured
        if any(phase.cut != "head" for phase in recipe.phases) or recipe.measure.seconds is not None:
            return 0.0
        return recipe.views * measured.images.train / measured.engine.images_per_second / measured.processes

    def explained(self, choice: Choice) -> Draft:
        """The draft with one more reason, for a setting that stays as it is."""
        return replace(self, planned=replace(self.planned, choices=(*self.planned.choices, choice)))

    def questions(
        self, bar: Bar, wants_baseline: bool, limit: TimeLimit | None = None, spent: float = 0.0
    ) -> Questions:
        """What the recipe leaves open, to be measured on the features of its training images.

        `spent`: what finding the crop has taken of the time for it.
        """
        seconds = self.measuring_seconds
        if limit is not None and self.planned.recipe.measure.seconds is None:
            seconds = min(seconds, default_seconds(limit.for_training(spent=0.0)))
        prepared, backbone = self.material.prepared, self.material.classifier.backbone
        recipe = self.planned.recipe.model_copy(update={"monitor": self.plan.recipe.monitor})
        frozen = FrozenPart(backbone, self.measured.device.device, self.measured.engine.engine)
        sample = draw_sample(prepared.manifest, prepared.duplicates, recipe.seed)
        seed = derive_seed(recipe.seed, "views")
        whole = wants_baseline and can_have_baseline(self.plan.recipe, self.measured) and frozen.all_serve_last
        cache = FeatureCache(self.material.cache, "float16", recipe.cache_bytes)
        features = SampleFeatures(prepared, sample, frozen, seed, cache, bar, whole)
        return Questions(recipe, self.measured, features, seconds, spent)

    def baseline(self, questions: Questions) -> Plan | None:
        """The plan of a baseline, where what is left to measure and to train takes longer than a baseline does."""
        if not can_have_baseline(self.plan.recipe, self.measured):
            return None
        selected, forecast = questions.of_plain_views(), self.plan.forecast
        if selected is None:
            return None
        seconds = sum(forecast.phase_seconds)
        if not selected.is_remembered:
            seconds += forecast.extraction_seconds + min(questions.seconds_ahead, self.measuring_seconds)
        if seconds < BASELINE_FROM or baseline_seconds(self.measured) > BASELINE_FRACTION * seconds:
            return None
        plan = self.finished(selected)
        if not can_have_baseline(plan.recipe, self._measured_for(plan.recipe)):
            return None
        return replace(plan, recipe=baseline_recipe(plan.recipe))

    def timed(self) -> Draft:
        """The draft with training steps that are timed."""
        measured = self.trainable.timed(self.planned.recipe, self.measured)
        return replace(self, measured=measured, plan=resolve(self.planned, measured))

    def within(self, limit: TimeLimit | None, spent: float | None = None) -> Draft:
        """The draft, whose steps are timed, with phases that do not train for too long.

        Within a time limit they are shortened; without one a phase may take `MAX_PHASE_SECONDS`. Where that is not
        enough, a strategy that the recipe does not ask for is replaced by a shallower one.

        Args:
            limit: The time limit, if there is one.
            spent: Seconds of the measurements of settings that are behind; `None` where nothing more is measured.
        """
        strategy, longest = self.strategy[0], max(self.plan.forecast.phase_seconds)
        if limit is None:
            if not self._can_be_shallower or longest < MAX_PHASE_SECONDS:
                return self
            return self._shallower(f"{strategy} would train for {longest / 3600:.1f} h here").within(None)
        seconds = limit.for_training(spent, self.planned.recipe.measure.seconds)
        fitted = replace(self._fitted(seconds), limit=limit)
        if fitted.plan.forecast.seconds <= seconds or not self._can_be_shallower:
            return fitted
        shallower = self._shallower(f"{LEAST_EPOCHS} epochs of {strategy} would exceed the time limit")
        return min(fitted, shallower.within(limit, spent), key=lambda each: each.plan.forecast.seconds)

    @property
    def _can_be_shallower(self) -> bool:
        """Whether a shallower strategy may replace this one, with all phases that the recipe has settings of."""
        requested, strategy = self.material.requested.recipe, self.strategy[0]
        if requested.strategy != "auto" or strategy not in SHALLOWER:
            return False
        deepest = max((int(key.split(".")[1]) for key in requested.phase_settings), default=0)
        return deepest == 0 or (deepest == 1 and SHALLOWER[strategy] == "top")

    def _shallower(self, why: str) -> Draft:
        """The draft of the next shallower strategy, with steps that are timed."""
        strategy, reason = self.strategy
        shallower = _drafted(self.material, SHALLOWER[strategy], f"{reason}; {why}")
        # Features may have been extracted by the engine that was chosen first.
        return replace(shallower, measured=replace(shallower.measured, engine=self.measured.engine)).timed()

    def _fitted(self, seconds: float) -> Draft:
        """The draft with phases that fit into a time, as far as they may be shortened."""
        requested, recipe = self.material.requested.recipe, self.planned.recipe
        if requested.strategy == "manual":
            return self
        phases = shortened(recipe.phases, self.plan.forecast, seconds, tuple(requested.phase_settings))
        if phases == recipe.phases:
            return self
        fewer = [
            Choice(f"phases.{index}.epochs", str(phase.epochs), f"instead of {full.epochs}, to fit into the time limit")
            for index, (full, phase) in enumerate(zip(recipe.phases, phases, strict=False))
            if phase.epochs < full.epochs
        ]
        gone = tuple(f"phases.{index}." for index in range(len(phases), len(recipe.phases)))
        choices = [choice for choice in self.planned.choices if not choice.setting.startswith(gone)]
        planned = with_freezing(
            PlannedRecipe(recipe.model_copy(update={"phases": phases}), (*choices, *fewer)),
            self.strategy[0] if len(phases) > 1 else "head",
            self.material.classifier.backbone,
            requested.phase_settings,
        )
        measured = self.measured.of_first(len(phases))
        left_out = recipe.phases[len(phases) :]
        return replace(self, planned=planned, measured=measured, plan=resolve(planned, measured), left_out=left_out)

    def with_int8_offer(self) -> Draft:
        """The draft whose reason for the engine tells what int8 would gain, where extracting features takes minutes."""
        if self.plan.forecast.extraction_seconds < OFFER_FROM:
            return self
        prepared, backbone, measured = self.material.prepared, self.material.classifier.backbone, self.measured
        pixels = plain_sample(prepared.pixels, prepared.manifest.indices("train"), PROBE_IMAGES)
        head = [backbone.head_position]
        job = ExtractionJob(backbone, measured.device.device, head, pixels, measured.images.train)
        offered = with_int8_offer(measured.engine, job, self.material.cache)
        return replace(self, measured=replace(self.measured, engine=offered))

    def finished(self, selected: Selected) -> Plan:
        """The plan with what was measured."""
        planned = with_selected(self.planned, selected)
        plan = resolve(planned, self._measured_for(planned.recipe), selected.estimates)
        if self.limit is None:
            return plan
        return replace(plan, choices=(*plan.choices, self.limit.choice(plan.forecast, self.left_out)))

    def _measured_for(self, recipe: Recipe) -> Measurements:
        """What was measured, with the sizes for a head that may take other features than the draft assumed."""
        if recipe.head.taken == self.planned.recipe.head.taken:
            return self.measured
        return self.trainable.sized(recipe, self.measured)


def draft_plan(material: Material) -> Draft:
    """Choose a strategy and an engine, and resolve every "auto" as well as it can be without measuring more."""
    recipe, backbone = material.requested.recipe, material.classifier.backbone
    manifest = material.prepared.manifest
    train = manifest.indices("train")

    def similarity() -> Similarity:
        pixels = plain_sample(material.prepared.pixels, train, SIMILARITY_IMAGES)
        return remembered_similarity(backbone, pixels, material.cache)

    if backbone.facts.int8:
        strategy, reason = for_int8(recipe)
    else:
        strategy, reason = choose_strategy(recipe, similarity, len(train), len(manifest.classes))
    return _drafted(material, strategy, reason)


def _drafted(material: Material, strategy: Strategy, reason: str) -> Draft:
    requested, prepared, classifier = material.requested, material.prepared, material.classifier
    train_images = len(prepared.manifest.indices("train"))
    phased = apply_strategy(requested.recipe, strategy, reason, classifier.backbone, train_images)
    phased = with_freezing(phased, strategy, classifier.backbone, requested.recipe.phase_settings)
    # A baseline may have taken other features meanwhile.
    with classifier.backbone.taking(phased.recipe.head.taken):
        measured, trainable = measure(phased.recipe, prepared, classifier, material.cache)
    planned = PlannedRecipe(phased.recipe, (*requested.choices, *phased.choices))
    return Draft(material, (strategy, reason), planned, measured, trainable, resolve(planned, measured))
