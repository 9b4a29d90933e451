"""What is planned before a trial can begin: images decoded and split, the network, and the plan for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from thaw.backbones import build
from thaw.backbones.contract import Backbone
from thaw.cache import cache_folder
from thaw.classifier.classifier import Classifier, new_head, outputs_of, start_from_trained_head
from thaw.clock import Clock
from thaw.data.ahead import remember_geometry
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.data.prepare import DataPreparation, Prepared
from thaw.device import use_threads
from thaw.evaluation.thresholds import check_requirements
from thaw.planning.backbone_choice import choose_backbone
from thaw.planning.draft import Draft, Material, draft_plan
from thaw.planning.measurements import PlannedRecipe
from thaw.planning.plan import Plan
from thaw.planning.time_limit import TimeLimit, concluding_seconds_of
from thaw.planning.trained_head import with_trained_head
from thaw.progress import NullReporter, Reporter
from thaw.recipe import Recipe
from thaw.seeds import derive_seed
from thaw.terminal.planning import show_data, show_plan


@dataclass(frozen=True)
class PlannedTrial:
    """A plan, the data that it is for, and a classifier with a new head for them."""

    plan: Plan
    prepared: Prepared
    classifier: Classifier


def plan_trial(
    dataset: Dataset,
    requested: Recipe,
    previous: Manifest | None,
    reporter: Reporter,
    on_baseline: Callable[[PlannedTrial], None] | None = None,
    limit: TimeLimit | None = None,
) -> PlannedTrial:
    """Choose the backbone, decode and split the images, plan everything else, and show it.

    Args:
        dataset: The images.
        requested: The recipe.
        previous: The manifest of an earlier run, whose images keep their split.
        reporter: Shows progress and the plan.
        on_baseline: Called once with a linear head on plain views, where measuring and training will take much longer.
        limit: What the plan has to fit into; by default the time limit of the recipe, from now on.

    Raises:
        RecipeError: Settings contradict each other, or the decision is for a class that the images do not have.
    """
    requested.check_strategy()
    requested.check_choice()
    check_requirements(requested.decision, dataset.classes, dataset.task)
    if limit is None and requested.time_limit is not None:
        limit = TimeLimit(Clock(requested.time_limit))
    use_threads(requested.threads)
    chosen = choose_backbone(requested, dataset, _preparation(requested, previous, reporter), reporter.say)
    prepared, backbone = prepare(dataset, chosen.recipe, previous, reporter)
    chosen = with_trained_head(chosen, backbone, prepared.manifest)
    if limit:
        limit = replace(limit, concluding=concluding_seconds_of(prepared.manifest))
    cache = cache_folder()
    remember_geometry(requested, backbone.facts.pixels, cache)

    def drafted() -> Draft:
        classifier = with_new_head(backbone, prepared, chosen.recipe)
        return draft_plan(Material(chosen, prepared, classifier, cache))

    def planned(plan: Plan) -> PlannedTrial:
        # The plan may have decided which features the head takes.
        return PlannedTrial(plan, prepared, with_new_head(backbone, prepared, plan.recipe))

    draft = drafted()
    questions = draft.questions(reporter.bar, on_baseline is not None, limit)
    if crop := questions.crop():
        if crop.squashes:
            squashing = chosen.recipe.with_settings({crop.choice.setting: crop.choice.value})
            chosen = PlannedRecipe(squashing, (*chosen.choices, crop.choice))
            prepared, backbone = prepare(dataset, squashing, prepared.manifest, NullReporter())
            draft = drafted()
        else:
            draft = draft.explained(crop.choice)
        questions = draft.questions(reporter.bar, on_baseline is not None, limit, crop.seconds)
    if on_baseline and (baseline := draft.baseline(questions)):
        on_baseline(planned(baseline))
    draft = draft.timed()
    fitted = draft.within(limit, questions.spent(draft.measuring_seconds))
    selected = questions.all(fitted.measuring_seconds, fitted.unmeasured_seconds)
    if selected.preprocessing:
        # Decoded and timed anew for images of another size, with the split that was measured on.
        chosen = replace(chosen, recipe=chosen.recipe.with_settings(selected.preprocessing))
        prepared, backbone = prepare(dataset, chosen.recipe, prepared.manifest, NullReporter())
        draft = drafted().timed()
    if selected.preprocessing or limit:
        # With the time that is left now.
        fitted = draft.within(limit)
    plan = fitted.with_int8_offer().finished(selected)
    show_plan(plan, reporter)
    return planned(plan)


def prepare(
    dataset: Dataset, recipe: Recipe, previous: Manifest | None, reporter: Reporter
) -> tuple[Prepared, Backbone]:
    """The images decoded and split, and the network for them."""
    backbone = build(recipe)
    prepared = _preparation(recipe, previous, reporter).prepare(dataset, backbone.facts.pixels)
    manifest = prepared.manifest
    show_data(manifest, prepared.notes, reporter)
    return prepared, backbone


def with_new_head(backbone: Backbone, prepared: Prepared, recipe: Recipe) -> Classifier:
    """A classifier on the features that the recipe asks for, with the head that came with them or a new one."""
    manifest = prepared.manifest
    backbone.use_features(recipe.head.taken)
    outputs, seed = outputs_of(manifest.task, manifest.classes), derive_seed(recipe.seed, "head")
    head = new_head(backbone, outputs, recipe.head.hidden, recipe.head.dropout, seed)
    classifier = Classifier(backbone, head, manifest.classes, manifest.task, recipe.decode)
    start_from_trained_head(classifier)
    return classifier


def _preparation(recipe: Recipe, previous: Manifest | None, reporter: Reporter) -> DataPreparation:
    return DataPreparation(recipe.decode, recipe.split, previous, cache_folder(), reporter.bar)
