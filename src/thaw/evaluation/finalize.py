"""From trained weights to a finished classifier: calibration, decision rule, review policy and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from thaw.classifier.classifier import Classifier
from thaw.classifier.decision import Decision
from thaw.classifier.outputs import LabelledOutputs
from thaw.classifier.review import ReviewPolicy
from thaw.data.manifest import Manifest
from thaw.data.pixel_store import PixelStore
from thaw.evaluation.calibration import Calibration, apply_temperature, calibration_error, fit_temperature
from thaw.evaluation.class_prior import logit_shift, weighted_decision, without_weights
from thaw.evaluation.evaluate import Evaluation, evaluate_outputs, score
from thaw.evaluation.review import LIMITS, fit_review_policy, remembered_features, unmet_limits
from thaw.evaluation.thresholds import choose_decision
from thaw.metrics import Estimate, Scored, truth_of
from thaw.prediction.predictor import reference_predictor
from thaw.progress import OnProgress
from thaw.recipe import ClassWeights, DecisionSettings

_BATCH = 32


@dataclass(frozen=True)
class SplitOutputs:
    """Outputs of the trained classifier on every split.

    Attributes:
        train: Outputs for one view of each training image.
        train_rows: (N,) int, rows of `train` in the manifest.
        evaluated: Outputs for the unaugmented images of "val" and "test", as far as there are any.
        groups: For each of these, which images are dependent, (M,) int; `None` where all are independent.
    """

    train: LabelledOutputs
    train_rows: np.ndarray
    evaluated: Mapping[str, LabelledOutputs]
    groups: Mapping[str, np.ndarray | None]


@dataclass(frozen=True)
class Finalized:
    """What finalizing gave.

    Attributes:
        outputs: All outputs, calibrated.
        evaluations: Metrics of each evaluated split.
        calibration: The temperature and its effect.
        unmet: One sentence for each requirement that no threshold meets on validation, and for each limit of review
            that validation has too few images for.
    """

    outputs: SplitOutputs
    evaluations: dict[str, Evaluation]
    calibration: Calibration
    unmet: tuple[str, ...]


@dataclass(frozen=True)
class ValidatedChoices:
    """What validation chose for a classifier: temperature, decision rule, and the limits of the review policy."""

    calibration: Calibration
    decision: Decision
    review_policy: ReviewPolicy


@dataclass(frozen=True)
class TrainedWeights:
    """Class weights of training: which kind, and (C,) each class's."""

    kind: ClassWeights
    values: np.ndarray


def finalize(
    classifier: Classifier,
    outputs: SplitOutputs,
    settings: DecisionSettings,
    seed: int,
    weights: TrainedWeights | None = None,
) -> Finalized:
    """Calibrate the classifier, choose its decision rule, fit its review policy, and evaluate it.

    Everything is fitted on validation, except that the review policy remembers features of training images.

    Args:
        classifier: The trained classifier; it is changed in place.
        outputs: Its outputs before calibration.
        settings: Requirements on the decision, and coverage of the review policy.
        seed: Random seed of the choice of training images to remember.
        weights: The class weights that it was trained with; they move from the probabilities to the decision.
    """
    uncalibrated = _unweighted(classifier, outputs, weights)
    val = uncalibrated.evaluated["val"]
    truth = truth_of(val.targets, len(classifier.classes))
    temperature = fit_temperature(val.probabilities, truth, classifier.task)
    outputs = _calibrated(classifier, uncalibrated, temperature)

    val = outputs.evaluated["val"]
    trained = weighted_decision(weights.values, classifier.task, weights.kind) if weights else Decision()
    chosen = choose_decision(settings, classifier.classes, _score(classifier, outputs, "val"), trained)
    classifier.decision = chosen.decision

    scored = _score(classifier, outputs, "val")
    classifier.review_policy = fit_review_policy(outputs.train, val.features, scored, settings, seed)

    errors_before, errors_after = (_calibration_errors(classifier, each, outputs) for each in (uncalibrated, outputs))
    calibration = Calibration(temperature, len(val.targets), errors_before, errors_after)
    limits = LIMITS if classifier.task != "multilabel" else ("in_distribution",)
    unmet = (
        *(f"{sentence}; the requirement is ignored" for sentence in chosen.unmet),
        *unmet_limits(settings, classifier.task, len(val.targets), limits),
    )
    return Finalized(outputs, _evaluations(classifier, outputs), calibration, unmet)


def finalize_as(
    classifier: Classifier,
    outputs: SplitOutputs,
    earlier: ValidatedChoices,
    seed: int,
    weights: TrainedWeights | None = None,
) -> Finalized:
    """Finalize a classifier that has no validation images with what another one was given on them, and evaluate it.

    Args:
        classifier: Trained like the other one, on more images; it is changed in place.
        outputs: Its outputs before calibration.
        earlier: What was chosen for the other one.
        seed: Random seed of the choice of training images to remember.
        weights: The class weights that it was trained with.
    """
    uncalibrated = _unweighted(classifier, outputs, weights)
    outputs = _calibrated(classifier, uncalibrated, earlier.calibration.temperature)
    classifier.decision = earlier.decision
    features = remembered_features(outputs.train, seed)
    classifier.review_policy = replace(earlier.review_policy, train_features=features)
    before, after = (_calibration_errors(classifier, each, outputs) for each in (uncalibrated, outputs))
    calibration = replace(earlier.calibration, before=before, after=after)
    return Finalized(outputs, _evaluations(classifier, outputs), calibration, ())


def outputs_of_rows(
    classifier: Classifier, manifest: Manifest, pixels: PixelStore, rows: np.ndarray, on_progress: OnProgress
) -> LabelledOutputs:
    """Outputs for the unaugmented images of these rows (N,) of the manifest, in fp32 as in prediction."""
    predictor = reference_predictor(classifier)
    features, probabilities = [], []
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        outputs = predictor.outputs(np.stack([pixels.plain(int(row)) for row in batch]))
        features.append(outputs.features)
        probabilities.append(outputs.probabilities)
        on_progress(start + len(batch), len(rows))
    return LabelledOutputs(np.concatenate(features), np.concatenate(probabilities), manifest.targets()[rows])


def _unweighted(classifier: Classifier, outputs: SplitOutputs, weights: TrainedWeights | None) -> SplitOutputs:
    """The outputs without what class weights have moved, which the head is freed from too."""
    if weights is None:
        return outputs
    classifier.head.shift_logits(logit_shift(weights.values, classifier.task))
    return _mapped(outputs, lambda part: without_weights(part, weights.values, classifier.task))


def _calibrated(classifier: Classifier, outputs: SplitOutputs, temperature: float) -> SplitOutputs:
    """The outputs at a temperature, which the head is given too."""
    classifier.head.apply_temperature(temperature)
    return _mapped(outputs, lambda part: apply_temperature(part, temperature, classifier.task))


def _mapped(outputs: SplitOutputs, change: Callable[[np.ndarray], np.ndarray]) -> SplitOutputs:
    """The same outputs with other probabilities."""

    def changed(part: LabelledOutputs) -> LabelledOutputs:
        return replace(part, probabilities=change(part.probabilities).astype(np.float32))

    evaluated = {split: changed(part) for split, part in outputs.evaluated.items()}
    return replace(outputs, train=changed(outputs.train), evaluated=evaluated)


def _evaluations(classifier: Classifier, outputs: SplitOutputs) -> dict[str, Evaluation]:
    return {
        split: evaluate_outputs(classifier, evaluated, outputs.groups[split])
        for split, evaluated in outputs.evaluated.items()
    }


def _score(classifier: Classifier, outputs: SplitOutputs, split: str) -> Scored:
    part = outputs.evaluated[split]
    return score(classifier, part.probabilities, part.targets, outputs.groups[split])


def _calibration_errors(classifier: Classifier, outputs: SplitOutputs, calibrated: SplitOutputs) -> dict[str, Estimate]:
    """The calibration error by split, of the labels that the classifier gives: those for its calibrated outputs."""
    return {
        split: calibration_error(
            replace(_score(classifier, calibrated, split), probabilities=part.probabilities.astype(np.float64))
        )
        for split, part in outputs.evaluated.items()
    }
