"""What a trained classifier still has to learn from validation: how sure to be, how to decide, and what it knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.classifier.outputs import LabelledOutputs
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import OnProgress, PixelStore
from thaw.evaluation.calibration import Calibration, apply_temperature, fit_temperature
from thaw.evaluation.evaluate import Evaluation, evaluate_outputs, score
from thaw.evaluation.metrics import Estimate, calibration_error
from thaw.evaluation.review import fit_review_policy
from thaw.evaluation.thresholds import choose_decision
from thaw.features.engines import REFERENCE
from thaw.prediction.predictor import Predictor
from thaw.recipe import DecisionSettings

_BATCH = 32


@dataclass(frozen=True)
class SplitOutputs:
    """What the trained classifier makes of a view of each training image, and of each set as it is.

    train_rows: the rows of the manifest that `train` is of. judged: the outputs of "val", and of "test" where there is
    one; groups: which images of it belong together.
    """

    train: LabelledOutputs
    train_rows: np.ndarray
    judged: Mapping[str, LabelledOutputs]
    groups: Mapping[str, np.ndarray | None]


@dataclass(frozen=True)
class Finalized:
    """What came of it: outputs after calibration, figures of each set, the temperature, and wishes that stay unmet."""

    sets: SplitOutputs
    evaluations: dict[str, Evaluation]
    calibration: Calibration
    unmet: tuple[str, ...]


def finalize(classifier: Classifier, sets: SplitOutputs, settings: DecisionSettings, seed: int) -> Finalized:
    """Calibrate the classifier, choose its decision and the borders of what it knows, and judge it.

    Changes the classifier.
    """
    val, task = sets.judged["val"], classifier.task
    temperature = fit_temperature(val.probabilities, score(classifier, val.probabilities, val.targets).truth, task)
    before = _errors(classifier, sets)
    classifier.head.apply_temperature(temperature)
    sets = replace(
        sets,
        train=_scaled(sets.train, temperature, classifier),
        judged={name: _scaled(outputs, temperature, classifier) for name, outputs in sets.judged.items()},
    )
    val = sets.judged["val"]
    unscored = score(classifier, val.probabilities, val.targets, sets.groups["val"])
    decided = choose_decision(settings, classifier.classes, unscored)
    classifier.decision = decided.decision
    scored = score(classifier, val.probabilities, val.targets, sets.groups["val"])
    classifier.review_policy = fit_review_policy(
        sets.train.features, sets.train.targets, val.features, scored, settings, seed
    )
    return Finalized(
        sets=sets,
        evaluations={
            name: evaluate_outputs(classifier, outputs, sets.groups[name]) for name, outputs in sets.judged.items()
        },
        calibration=Calibration(temperature, len(val.targets), before, _errors(classifier, sets)),
        unmet=decided.unmet,
    )


def outputs_of_rows(
    classifier: Classifier, manifest: Manifest, pixels: PixelStore, rows: np.ndarray, on_progress: OnProgress
) -> LabelledOutputs:
    """What the classifier makes of rows as they are, through the very path that predicts, in fp32."""
    predictor = Predictor(classifier, REFERENCE, classifier.device)
    features, probabilities = [], []
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        answers = predictor.answers(np.stack([pixels.plain(int(row)) for row in part]))
        features.append(answers.features)
        probabilities.append(answers.probabilities)
        on_progress(start + len(part), len(rows))
    return LabelledOutputs(np.concatenate(features), np.concatenate(probabilities), manifest.targets()[rows])


def _scaled(outputs: LabelledOutputs, temperature: float, classifier: Classifier) -> LabelledOutputs:
    scaled = apply_temperature(outputs.probabilities, temperature, classifier.task).astype(np.float32)
    return replace(outputs, probabilities=scaled)


def _errors(classifier: Classifier, sets: SplitOutputs) -> dict[str, Estimate]:
    """The calibration error of each set."""
    return {
        name: calibration_error(score(classifier, outputs.probabilities, outputs.targets, sets.groups[name]))
        for name, outputs in sets.judged.items()
    }
