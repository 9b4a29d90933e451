"""How good a classifier is, in one sentence made from its numbers, and what a person should know beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from thaw.classifier.decision import Decision
from thaw.data.manifest import Manifest
from thaw.evaluation.evaluate import ClassResult, Evaluation
from thaw.evaluation.records import Records
from thaw.inspection.findings import Finding
from thaw.metrics import METRICS, Estimate, rates_of_class
from thaw.recipe import Monitor

_WIDE = 0.1
"""Width of a 95 % interval from which on a set is too small to tell much."""
SET_NAMES = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Verdict:
    """The sentence, and what goes with it, what matters most first."""

    sentence: str
    notes: tuple[Finding, ...]


@dataclass(frozen=True)
class Judged:
    """What is judged: figures and predictions of each set that there is, "val" and perhaps "test"."""

    evaluations: Mapping[str, Evaluation]
    records: Mapping[str, Records]

    @property
    def split(self) -> str:
        """The set that counts: the test set, or validation where there is none."""
        return "test" if "test" in self.evaluations else "val"

    @property
    def evaluation(self) -> Evaluation:
        """Figures of the set that counts."""
        return self.evaluations[self.split]

    @property
    def record(self) -> Records:
        """Predictions on the set that counts."""
        return self.records[self.split]


def verdict(judged: Judged, decision: Decision, sought: int | None, monitor: Monitor) -> Verdict:
    """The sentence and its notes; `sought` is the class that the classifier is there to find, if there is one."""
    order = ("alarm", "warning", "note", "good")
    notes = [*_about_the_set(judged, sought), *_agreement(judged, monitor), *_people(judged), *_rule(decision)]
    return Verdict(_sentence(judged, sought), tuple(sorted(notes, key=lambda note: order.index(note.weight))))


def class_to_find(decision: Decision, manifest: Manifest) -> int | None:
    """The class whose recall and false alarms matter: one with a threshold, or the rarer one of two."""
    if decision.thresholds:
        return decision.thresholds[0][0]
    if manifest.task != "binary":
        return None
    counts = manifest.counts()
    return min(range(2), key=lambda index: sum(counts[manifest.classes[index]].values()))


def recall_and_false_positive_rate(records: Records, index: int) -> tuple[Estimate | None, Estimate | None]:
    """The share of the images of a class that are called it, and the share of the others that are."""
    rates = rates_of_class(records.scored, index)
    return rates.recall, rates.false_positive_rate


def percent(estimate: Estimate | None) -> str:
    """A share with its interval, as 97.1 % (94.8 to 98.6)."""
    if estimate is None:
        return "-"
    return f"{100 * estimate.value:.1f} % ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def _sentence(judged: Judged, sought: int | None) -> str:
    evaluation, records = judged.evaluation, judged.record
    on = f"{evaluation.images:,} {SET_NAMES[judged.split]} image{'s' if evaluation.images != 1 else ''}"
    if sought is not None:
        recall, alarms = recall_and_false_positive_rate(records, sought)
        if recall is not None:
            name = records.classes[sought]
            return f"Finds {percent(recall)} of {name} at {percent(alarms)} false alarms, on {on}."
    if records.scored.task == "multilabel":
        text = f"Mean average precision {percent(evaluation.overall.get('mean_average_precision'))} on {on}"
        weak = _weakest(evaluation, "average_precision")
        if weak is None:
            return f"{text}."
        return f"{text}; weakest is {weak.name} with {percent(weak.metrics.get('average_precision'))}."
    text = f"Right on {percent(evaluation.overall.get('accuracy'))} of {on}"
    weak = _weakest(evaluation, "recall")
    recall = weak.metrics.get("recall") if weak else None
    if weak is None or recall is None or recall.value >= 1:
        return f"{text}."
    return f"{text}; weakest is {weak.name}, of which it finds {percent(recall)}."


def _weakest(evaluation: Evaluation, figure: str) -> ClassResult | None:
    known = [(found.value, item) for item in evaluation.per_class if (found := item.metrics.get(figure))]
    return min(known, key=lambda pair: pair[0])[1] if len(known) > 1 else None


def _about_the_set(judged: Judged, sought: int | None) -> list[Finding]:
    """Whether there is a test set, and whether it is large enough to tell much."""
    notes, evaluation = [], judged.evaluation
    if judged.split == "val":
        text = (
            "There is no test set: these are figures of validation, on which the best epoch, the temperature and every "
            "threshold were chosen, so they are better than new images will show."
        )
        notes.append(Finding("warning", text))
    of, what, images, found = "", "accuracy", evaluation.images, evaluation.overall.get("accuracy")
    if judged.record.scored.task == "multilabel":
        what, found = "mean average precision", evaluation.overall.get("mean_average_precision")
    if sought is not None:
        recall, _ = recall_and_false_positive_rate(judged.record, sought)
        if recall is not None:
            name = judged.record.classes[sought]
            of, what = f" of {name}", "the share that is found"
            images, found = evaluation.per_class[sought].images, recall
    if found and found.high - found.low > _WIDE:
        text = (
            f"{images:,} images{of} tell little: with 95 % confidence {what} lies between {100 * found.low:.0f} % and "
            f"{100 * found.high:.0f} %; four times as many would halve that."
        )
        notes.append(Finding("warning", text))
    if evaluation.groups < evaluation.images:
        text = f"The images come in {evaluation.groups:,} groups that belong together; intervals are drawn over those."
        notes.append(Finding("note", text))
    return notes


def _agreement(judged: Judged, monitor: Monitor) -> list[Finding]:
    """Whether validation and test differ by more than chance explains, in the metric that training watched."""
    if judged.split != "test":
        return []
    val, test = (judged.evaluations[split].overall.get(monitor) for split in ("val", "test"))
    if val is None or test is None:
        return []
    noise = float(np.hypot(_half_width(val), _half_width(test)))
    name = monitor.replace("_", " ")
    values = f"validation {val.value:.3f}, test {test.value:.3f}"
    if abs(val.value - test.value) <= noise:
        return [Finding("good", f"Validation and test agree within what chance explains: {name} is {values}.")]
    worse = (test.value < val.value) == METRICS[monitor].higher_is_better
    why = (
        "what was chosen fits validation too well, or the test images are of another kind"
        if worse
        else "the test images are easier or of another kind"
    )
    text = f"Validation and test differ by more than chance explains: {name} is {values}; {why}."
    return [Finding("warning", text)]


def _half_width(estimate: Estimate) -> float:
    return (estimate.high - estimate.low) / 2


def _people(judged: Judged) -> list[Finding]:
    person, records = judged.evaluation.review, judged.record
    if person is None:
        return []
    left = int(records.flagged.sum())
    kinds = [
        f"{int(flags.sum()):,} {what}"
        for flags, what in ((records.ambiguous, "unsure"), (records.out_of_distribution, "unlike any training image"))
        if flags.any()
    ]
    if not left:
        return [Finding("good", "Leaves no image to a person: none is unsure or unlike those of training.")]
    text = f"Leaves {left:,} of {len(records.paths):,} images ({100 * left / len(records.paths):.1f} %) to a person"
    rest = f"; of the rest {percent(person.accuracy_of_rest)} are right" if person.accuracy_of_rest else ""
    return [Finding("note", f"{text}: {', '.join(kinds)}{rest}.")]


def _rule(decision: Decision) -> list[Finding]:
    return [Finding("note", f"Decided as asked, chosen on validation: {decision.reason}.")] if decision.reason else []
