"""What a trained classifier still has to learn from validation: how sure to be, how to decide, and what it knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.classifier.outputs import LabelledOutputs
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import OnProgress, PixelStore
from thaw.evaluation.calibration import Calibration, cool, fit_temperature
from thaw.evaluation.evaluate import Evaluation, evaluate_outputs, score
from thaw.evaluation.metrics import Estimate, calibration_error
from thaw.evaluation.review import learn_familiar
from thaw.evaluation.thresholds import decide
from thaw.features.engines import REFERENCE
from thaw.prediction.predictor import Predictor
from thaw.recipe import DecideSettings

_BATCH = 32


@dataclass(frozen=True)
class Sets:
    """What the trained classifier makes of a view of each training image, and of each set as it is.

    train_rows: the rows of the manifest that `train` is of. judged: the outputs of "val", and of "test" where there is
    one; groups: which images of it belong together.
    """

    train: LabelledOutputs
    train_rows: np.ndarray
    judged: Mapping[str, LabelledOutputs]
    groups: Mapping[str, np.ndarray | None]


@dataclass(frozen=True)
class Settled:
    """What came of it: outputs after calibration, figures of each set, the temperature, and wishes that stay unmet."""

    sets: Sets
    evaluations: dict[str, Evaluation]
    calibration: Calibration
    unmet: tuple[str, ...]


def settle(classifier: Classifier, sets: Sets, settings: DecideSettings, seed: int) -> Settled:
    """Calibrate the classifier, choose its decision and the borders of what it knows, and judge it.

    Changes the classifier.
    """
    val, task = sets.judged["val"], classifier.task
    temperature = fit_temperature(val.probabilities, score(classifier, val.probabilities, val.targets).truth, task)
    before = _errors(classifier, sets)
    classifier.head.cool(temperature)
    sets = replace(
        sets,
        train=_cooled(sets.train, temperature, classifier),
        judged={name: _cooled(outputs, temperature, classifier) for name, outputs in sets.judged.items()},
    )
    val = sets.judged["val"]
    unscored = score(classifier, val.probabilities, val.targets, sets.groups["val"])
    decided = decide(settings, classifier.classes, unscored)
    classifier.decision = decided.decision
    scored = score(classifier, val.probabilities, val.targets, sets.groups["val"])
    classifier.familiar = learn_familiar(sets.train.features, sets.train.targets, val.features, scored, settings, seed)
    return Settled(
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


def _cooled(outputs: LabelledOutputs, temperature: float, classifier: Classifier) -> LabelledOutputs:
    cooled = cool(outputs.probabilities, temperature, classifier.task).astype(np.float32)
    return replace(outputs, probabilities=cooled)


def _errors(classifier: Classifier, sets: Sets) -> dict[str, Estimate]:
    """The calibration error of each set."""
    return {
        name: calibration_error(score(classifier, outputs.probabilities, outputs.targets, sets.groups[name]))
        for name, outputs in sets.judged.items()
    }
