"""Whether an update is kept: how well old classes are recognised before and after it, on the same old images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from thaw.classifier.decision import Decision
from thaw.classifier.outputs import LabelledOutputs
from thaw.evaluation.class_changes import ClassChange, class_changes
from thaw.evaluation.evaluate import bootstrap_groups
from thaw.evaluation.records import read_records
from thaw.metrics import Scored, truth_of
from thaw.updating.learner import Learner

Changes = tuple[tuple[ClassChange, ...], tuple[ClassChange, ...]]
"""Of old classes on old images, and of all classes on new images."""


def judge(learner: Learner, evaluated: Mapping[str, LabelledOutputs]) -> Changes:
    """Compare the updated classifier, finalized, with the one of the run, by the decision that each of them makes.

    On validation and test images together: validation chose the epochs of both, so it favours the run, if any.

    Args:
        learner: The update.
        evaluated: Outputs for old and new images of each of these splits, old ones first.
    """
    run, new, classes = learner.run, learner.new, learner.classifier.classes
    splits, known = list(evaluated), len(run.manifest.classes)
    old_rows = {split: run.manifest.indices(split) for split in splits}
    records = [read_records(run.folder.predictions, split).scored for split in splits if len(old_rows[split])]
    before = [_padded(scored.predicted, len(classes)) for scored in records]
    after = [_part(evaluated[split], slice(len(old_rows[split]))) for split in splits]
    rows = np.concatenate(list(old_rows.values()))
    old = class_changes(*_scored(learner, before, after, rows), classes[:known], known)

    decided = run.classifier.decision
    before = [_padded(decided.labels(p, run.classifier.task), len(classes)) for p in learner.known.values()]
    after = [_part(evaluated[split], slice(len(old_rows[split]), None)) for split in learner.known]
    if not after:
        return old, ()
    rows = np.concatenate([new.first + new.rows(split) for split in learner.known])
    return old, class_changes(*_scored(learner, before, after, rows), classes, known)


def _scored(
    learner: Learner, before: Sequence[np.ndarray], after: Sequence[LabelledOutputs], rows: np.ndarray
) -> tuple[Scored, Scored]:
    """What was and is predicted for rows (N,) of the manifest."""
    classifier, manifest = learner.classifier, learner.new.manifest
    probabilities = np.concatenate([part.probabilities for part in after])
    truth = truth_of(np.concatenate([part.targets for part in after]), len(classifier.classes))
    groups = bootstrap_groups(manifest, rows, learner.new.duplicates)
    decision: Decision = classifier.decision
    predicted = decision.labels(probabilities, classifier.task), np.concatenate(before)
    now, then = (Scored(classifier.task, probabilities, truth, labels, groups) for labels in predicted)
    return then, now


def _part(outputs: LabelledOutputs, some: slice) -> LabelledOutputs:
    return LabelledOutputs(outputs.features[some], outputs.probabilities[some], outputs.targets[some])


def _padded(predicted: np.ndarray, classes: int) -> np.ndarray:
    """Predictions (N, C) of a classifier that never predicts the other classes."""
    return np.pad(predicted, ((0, 0), (0, classes - predicted.shape[1])))
