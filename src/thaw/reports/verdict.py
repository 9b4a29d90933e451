"""The verdict of a report: the quality of the classifier in one sentence, and what limits that statement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.classifier.decision import Decision
from thaw.data.manifest import Manifest
from thaw.evaluation.evaluate import ClassResult
from thaw.evaluation.thresholds import required_classes
from thaw.formats import count, percent
from thaw.inspection.findings import Finding, most_severe_first
from thaw.metrics import METRICS, Estimate, rates_of_class
from thaw.recipe import Monitor
from thaw.reports.results import SPLIT_NAMES, Results
from thaw.terminal.metric_text import fraction_text, value_text
from thaw.terminal.results import NO_TEST_SET

_WIDE_INTERVAL = 0.1
"""Width of a 95 % interval from which a set is too small for a reliable estimate."""


@dataclass(frozen=True)
class Verdict:
    """The sentence, and notes with the most severe first."""

    sentence: str
    notes: tuple[Finding, ...]


def verdict(results: Results, decision: Decision, class_of_interest: int | None, monitor: Monitor) -> Verdict:
    """State how good a classifier is.

    Args:
        results: Metrics and predictions of the run.
        decision: Decision rule of the classifier.
        class_of_interest: Index of the class that the classifier is meant to find, if there is one.
        monitor: Metric that selected the best epoch.
    """
    notes = [
        *_sample_size(results, class_of_interest),
        *_agreement(results, monitor),
        *_elsewhere(results),
        *_flagged_for_review(results),
        *_decision_rule(decision),
    ]
    sentence = _sentence(results, class_of_interest)
    if results.estimates and results.estimates.differ:
        expected, grouping = results.estimates.expected_elsewhere, results.estimates.grouping
        sentence += f" On {grouping} that training has not seen, expect an accuracy of {expected}."
    return Verdict(sentence, most_severe_first(notes))


def find_class_of_interest(decision: Decision, manifest: Manifest) -> int | None:
    """The class whose recall and false-positive rate matter: one that something is required of, or the rarer of two."""
    if required := required_classes(decision, manifest.classes):
        return required[0]
    if manifest.task != "binary":
        return None
    counts = manifest.counts()
    return min(range(2), key=lambda index: sum(counts[manifest.classes[index]].values()))


def _sentence(results: Results, index: int | None) -> str:
    evaluation, records = results.evaluation, results.record
    images = count(evaluation.images, f"{SPLIT_NAMES[results.split]} image")
    if index is not None:
        rates = rates_of_class(records.scored, index)
        if rates.recall is not None:
            return (
                f"Recall of {records.classes[index]} is {fraction_text(rates.recall)} at a false-positive rate of "
                f"{fraction_text(rates.false_positive_rate)}, on {images}."
            )
    if records.scored.task == "multilabel":
        text = (
            f"Mean average precision is {fraction_text(evaluation.overall.get('mean_average_precision'))} on {images}"
        )
        weakest = _weakest(results, "average_precision")
        if weakest is None:
            return f"{text}."
        precision = fraction_text(weakest.metrics.get("average_precision"))
        return f"{text}; the weakest label is {weakest.name} with {precision}."
    text = f"Accuracy is {fraction_text(evaluation.overall.get('accuracy'))} on {images}"
    weakest = _weakest(results, "recall")
    recall = weakest.metrics.get("recall") if weakest else None
    if weakest is None or recall is None or recall.value >= 1:
        return f"{text}."
    return f"{text}; the weakest class is {weakest.name} with a recall of {fraction_text(recall)}."


def _weakest(results: Results, metric: str) -> ClassResult | None:
    """The class with the lowest value; `None` where fewer than two classes have one."""
    known = [(found.value, item) for item in results.evaluation.per_class if (found := item.metrics.get(metric))]
    return min(known, key=lambda pair: pair[0])[1] if len(known) > 1 else None


def _sample_size(results: Results, index: int | None) -> list[Finding]:
    """Whether there is a test set, whether it is large enough, and whether its images are independent."""
    notes, evaluation = [], results.evaluation
    if results.split == "val":
        notes.append(Finding("warning", NO_TEST_SET))
    name = "mean_average_precision" if results.record.scored.task == "multilabel" else "accuracy"
    metric, estimate, images = METRICS[name].title, evaluation.overall.get(name), count(evaluation.images, "image")
    recall = None if index is None else rates_of_class(results.record.scored, index).recall
    if index is not None and recall is not None:
        metric, estimate = "recall", recall
        images = f"{count(evaluation.per_class[index].images, 'image')} of {results.record.classes[index]}"
    if estimate and estimate.high - estimate.low > _WIDE_INTERVAL:
        text = (
            f"Small sample: with {images}, the 95% interval of the {metric} is {percent(estimate.low)} to "
            f"{percent(estimate.high)}; four times as many would halve it."
        )
        notes.append(Finding("warning", text))
    if evaluation.groups < evaluation.images:
        groups = count(evaluation.groups, "group")
        notes.append(Finding("note", f"The images form {groups}; intervals are bootstrapped over groups."))
    return notes


def _agreement(results: Results, monitor: Monitor) -> list[Finding]:
    """Whether validation and test differ by more than sampling noise, in the metric that selected the best epoch."""
    if results.split != "test":
        return []
    val, test = (results.evaluations[split].overall.get(monitor) for split in ("val", "test"))
    if val is None or test is None:
        return []
    metric = METRICS[monitor]
    noise = float(np.hypot(_half_width(val), _half_width(test)))
    before, after = (value_text(item.value, metric) for item in (val, test))
    values = f"{metric.title} is {before} on validation and {after} on test"
    if abs(val.value - test.value) <= noise:
        return [Finding("good", f"Validation and test agree within sampling noise: {values}.")]
    is_worse = (test.value < val.value) == metric.higher_is_better
    cause = (
        "model selection overfitted validation, or the test images come from another distribution"
        if is_worse
        else "the test images are easier or come from another distribution"
    )
    return [Finding("warning", f"Validation and test differ by more than sampling noise: {values}; {cause}.")]


def _elsewhere(results: Results) -> list[Finding]:
    """What cross-validation before training says about parts, scenes or sessions that training has not seen."""
    estimates = results.estimates
    if estimates is None:
        return []
    text = f"Accuracy of a linear head, cross-validated before training: {estimates.sentence()}."
    return [Finding("warning" if estimates.differ else "note", text)]


def _half_width(estimate: Estimate) -> float:
    return (estimate.high - estimate.low) / 2


def _flagged_for_review(results: Results) -> list[Finding]:
    review, records = results.evaluation.review, results.record
    if review is None:
        return []
    flagged, images = int(records.flagged.sum()), len(records.paths)
    if not flagged:
        # Labels that are decided on each alone have no candidates that could be ambiguous.
        limits = {} if records.scored.task == "multilabel" else {"ambiguous": review.ambiguous}
        limits["out-of-distribution"] = review.out_of_distribution
        if unset := [kind for kind, rate in limits.items() if rate is None]:
            too_few = f"validation has too few images to tell which are {' or '.join(unset)}"
            return [Finding("note", f"No images are flagged for review; {too_few}.")]
        return [Finding("good", f"No images are flagged for review: none is {' or '.join(limits)}.")]
    kinds = [
        f"{int(flags.sum()):,} {kind}"
        for flags, kind in ((records.ambiguous, "ambiguous"), (records.out_of_distribution, "out-of-distribution"))
        if flags.any()
    ]
    text = f"Flagged for review: {flagged:,} of {count(images, 'image')} ({percent(flagged / images)}), "
    rest = f"; accuracy on the rest is {fraction_text(review.accuracy_of_rest)}" if review.accuracy_of_rest else ""
    return [Finding("note", f"{text}{' and '.join(kinds)}{rest}.")]


def _decision_rule(decision: Decision) -> list[Finding]:
    if not decision.reason:
        return []
    return [Finding("note", f"Decision rule, chosen on validation: {decision.reason}.")]
