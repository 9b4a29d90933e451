"""The baseline of a run: a linear head on plain views, as a bundle that can be used while the plan still measures.

It takes a few seconds, since training reads the same features later. What comes after is compared with it, so that the
run keeps the baseline where it is better on validation.
"""

from __future__ import annotations

import time
from pathlib import Path

from thaw.bundle import write_bundle
from thaw.evaluation.finalize import finalize
from thaw.formats import duration
from thaw.metrics import METRICS
from thaw.progress import NullReporter, Reporter
from thaw.reports import model_card
from thaw.temporary import temporary
from thaw.terminal.metric_text import estimate_text
from thaw.training import checkpoint
from thaw.training.baseline import BASELINE
from thaw.training.context import FitCallbacks, FitContext
from thaw.training.fit import fit
from thaw.trial import Trial, fit_settings, identity_of_baseline, trained_weights
from thaw.trial_outputs import golden_images, trial_outputs


def write_baseline(trial: Trial, started: float, reporter: Reporter) -> None:
    """Train a baseline, write its bundle into the folder of the run, and say how good it is.

    Args:
        trial: With the recipe of a baseline.
        started: When the run began, by `time.perf_counter`.
        reporter: Shows the result.
    """
    recipe, classifier, manifest = trial.recipe, trial.classifier, trial.prepared.manifest
    trial.folder.write_baseline_recipe(recipe)
    _fit(trial)
    golden = golden_images(trial)
    outputs = trial_outputs(trial, {BASELINE}, golden, NullReporter(), ("val",))
    finalized = finalize(classifier, outputs, recipe.decision, recipe.seed, trained_weights(trial))
    card = model_card.write(classifier, recipe, manifest, finalized.evaluations)
    write_bundle(classifier, trial.folder.baseline, golden.files, card)
    metric = METRICS[recipe.monitor]
    reached = estimate_text(finalized.evaluations["val"].overall[recipe.monitor], metric)
    reporter.say(
        f"baseline after {duration(time.perf_counter() - started)}: a linear head, validation {metric.title} "
        f"{reached}; usable from now on: {trial.folder.baseline}"
    )


def _fit(trial: Trial) -> None:
    """Fit the head; its best penalty on validation is in the classifier afterwards, and a checkpoint of the run."""
    with temporary(trial.folder.checkpoints, Path.mkdir) as checkpoints:
        callbacks = FitCallbacks(lambda records, is_best: None, lambda note: None)
        settings = fit_settings(trial, checkpoints, identity_of_baseline(trial))
        fit(FitContext(trial.classifier, trial.recipe.phases, settings, callbacks), trial.inputs.sources_of)
        best = checkpoint.read(checkpoints, "best")
        assert best is not None
        checkpoint.write(trial.folder.checkpoints, BASELINE, best)
