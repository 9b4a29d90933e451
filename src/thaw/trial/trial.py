"""A trial that can be trained, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from thaw.cache import cache_folder
from thaw.checksums import sha256_of
from thaw.classifier.classifier import Classifier
from thaw.data.prepare import Prepared
from thaw.device import choose_device
from thaw.evaluation.evaluate import bootstrap_groups
from thaw.evaluation.finalize import TrainedWeights
from thaw.features.cache import FeatureCache
from thaw.metrics import METRICS, Scored, truth_of
from thaw.planning.baseline import baseline_identity
from thaw.processes import ALONE, Process
from thaw.progress import Reporter
from thaw.recipe import Monitor, ResolvedRecipe
from thaw.run_folder import RunFolder
from thaw.seeds import derive_seed
from thaw.training.context import FitSettings
from thaw.training.loss import class_weights
from thaw.training.phases import PhaseInputs, input_plans


@dataclass(frozen=True)
class Trial:
    """A trial that can be trained: where it writes, what was planned, and on what."""

    folder: RunFolder
    recipe: ResolvedRecipe
    prepared: Prepared
    classifier: Classifier
    inputs: PhaseInputs


@dataclass(frozen=True)
class TrialContext:
    """What a trial is begun or resumed with, besides its data and its recipe.

    Attributes:
        runs: Where the folders of runs are.
        reporter: Shows progress.
        process: This process, if several train the trial.
        on_baseline: Called with a trial of a linear head on plain views, before the plan measures what takes longer;
            `None` for no baseline.
    """

    runs: Path
    reporter: Reporter
    process: Process = ALONE
    on_baseline: Callable[[Trial], None] | None = None


def trial_in(
    folder: RunFolder, recipe: ResolvedRecipe, prepared: Prepared, classifier: Classifier, context: TrialContext
) -> Trial:
    """A trial with its inputs, on its device."""
    classifier.backbone.use_memory_format(recipe.memory_format)
    classifier.to(choose_device(recipe.device).device)
    inputs = PhaseInputs(
        plans=input_plans(recipe),
        pixels=prepared.pixels,
        backbone=classifier.backbone,
        engine=recipe.engine,
        train=prepared.rows("train"),
        val=prepared.rows("val"),
        test=prepared.rows("test"),
        cache=FeatureCache(cache_folder(), recipe.cache_dtype, recipe.cache_bytes),
        seed=derive_seed(recipe.seed, "views"),
        device=classifier.device,
        bar=context.reporter.bar,
        process=context.process,
    )
    return Trial(folder, recipe, prepared, classifier, inputs)


def fit_settings(trial: Trial, checkpoints: Path, run: str, phase_seconds: Sequence[float] = ()) -> FitSettings:
    """How the phases of a trial are trained, with checkpoints that carry the identity `run`."""
    recipe, prepared, val = trial.recipe, trial.prepared, trial.inputs.val.rows
    weights, groups = trained_weights(trial), bootstrap_groups(prepared.manifest, val, prepared.duplicates)
    return FitSettings(
        seed=recipe.seed,
        precision=recipe.precision,
        steps=recipe.steps,
        monitor=recipe.monitor,
        class_weights=torch.from_numpy(weights.values).to(trial.classifier.device) if weights else None,
        checkpoints=checkpoints,
        val_images=len(val),
        target=recipe.target,
        target_trials=_trials(recipe.target or {}, trial, groups),
        run=run,
        val_groups=groups,
        phase_seconds=phase_seconds,
        keep_phase=recipe.keep_phase,
    )


def _trials(names: Iterable[Monitor], trial: Trial, groups: np.ndarray | None) -> dict[Monitor, int]:
    """On how many independent images of validation, or groups (N,) of them, each metric rests."""
    classifier, targets = trial.classifier, trial.inputs.val.targets
    truth = truth_of(targets, len(classifier.classes))
    scored = Scored(classifier.task, truth.astype(float), truth, truth, groups)
    trials = {name: METRICS[name].trials for name in names}
    return {name: int(count(scored)) if count else len(scored) for name, count in trials.items()}


def trained_weights(trial: Trial) -> TrainedWeights | None:
    """The class weights that a trial trains with; `None` for none."""
    kind, classifier = trial.recipe.class_weights, trial.classifier
    weights = class_weights(trial.inputs.train.targets, len(classifier.classes), classifier.task, kind)
    return None if weights is None else TrainedWeights(kind, weights.numpy())


def identity_of_baseline(trial: Trial) -> str:
    """The identity of what the baseline of a trial is trained on; the manifest must have been written."""
    return baseline_identity(trial.recipe, sha256_of(trial.folder.manifest))
