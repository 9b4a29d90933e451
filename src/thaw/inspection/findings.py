"""Findings of an inspection as sentences, the same on the terminal and on the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from thaw.formats import count, interval, percent, points
from thaw.inspection.inspect import Inspection
from thaw.inspection.linear_probe import MOST_IMAGES, TOO_FEW, LinearProbe, untested_sentence
from thaw.training.loss import IMBALANCE

_RELIABLE = 0.9
"""Accuracy from which a head that contradicts a label is more often right than wrong, in sets with planted errors."""

_MANY_LABEL_ERRORS = 0.02
"""Fraction of the labels from which label errors are a warning."""

_MIN_GAIN_OVER_MAJORITY = 0.05

Severity = Literal["alarm", "warning", "note", "good"]
"""How much a finding matters, the most severe first."""


@dataclass(frozen=True)
class Finding:
    """One sentence and how much it matters."""

    severity: Severity
    text: str


def findings(inspection: Inspection) -> tuple[Finding, ...]:
    """All findings, the most severe first."""
    return most_severe_first(
        [
            *_leaks(inspection),
            *_files(inspection),
            *_spread(inspection),
            *_outliers(inspection),
            *_duplicates(inspection),
            *_groups(inspection),
            *_label_errors(inspection),
            *_class_balance(inspection),
            *_similarity(inspection),
            *_accuracy(inspection),
        ]
    )


def most_severe_first(listed: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings by severity, in their order within each."""
    order = get_args(Severity)
    return tuple(sorted(listed, key=lambda finding: order.index(finding.severity)))


def _leaks(inspection: Inspection) -> list[Finding]:
    listed = []
    for leak in inspection.leaks:
        first, second = leak.splits
        text = f"Leak between the given splits: {count(len(leak.duplicates), 'duplicate pair')} in {first} and {second}"
        if leak.accuracy is not None and leak.accuracy_without_leaks is not None:
            text += (
                f"; a linear head reaches {percent(leak.accuracy)} accuracy on {second}, "
                f"{percent(leak.accuracy_without_leaks)} without these duplicates"
            )
        listed.append(Finding("alarm", f"{text}."))
    return listed


def _files(inspection: Inspection) -> list[Finding]:
    listed = []
    if errors := inspection.manifest.errors():
        path, reason = errors[0]
        listed.append(Finding("warning", f"{count(len(errors), 'file')} cannot be read, for example {path}: {reason}."))
    issues = Counter(flag.issue for flag in inspection.quality_flags)
    if issues:
        text = ", ".join(f"{number:,} {issue}" for issue, number in issues.most_common())
        listed.append(Finding("note", f"Images of doubtful quality: {text}."))
    return listed


def _spread(inspection: Inspection) -> list[Finding]:
    if inspection.map_points:
        return []
    return [Finding("alarm", "All images have the same features, so nothing tells them apart; there is no map.")]


def _outliers(inspection: Inspection) -> list[Finding]:
    if not inspection.outliers:
        return []
    text = f"{count(len(inspection.outliers), 'outlier')}, far from all other images of their class"
    if max(sum(counts.values()) for counts in inspection.counts().values()) > MOST_IMAGES:
        text += f"; of larger classes, from a random sample of {MOST_IMAGES:,} of them"
    return [Finding("note", f"{text}.")]


def _duplicates(inspection: Inspection) -> list[Finding]:
    if not inspection.duplicates:
        return [Finding("good", "No duplicate images.")]
    exact = sum(pair.exact for pair in inspection.duplicates)
    near = len(inspection.duplicates) - exact
    text = (
        f"{count(exact, 'pair')} of identical files and {count(near, 'pair')} of near-duplicates; "
        "splits made by Thaw keep each pair together."
    )
    listed = [Finding("note", text)]
    if conflicting := len(inspection.conflicting_labels):
        listed.append(Finding("warning", f"{count(conflicting, 'duplicate pair')} with conflicting labels."))
    return listed


def _groups(inspection: Inspection) -> list[Finding]:
    return [Finding("note", f"{text[0].upper()}{text[1:]}.") for text in inspection.groups]


def _label_errors(inspection: Inspection) -> list[Finding]:
    probe, errors = inspection.probe, len(inspection.label_errors)
    if probe is None and inspection.manifest.task != "multilabel":
        return [Finding("warning", f"Accuracy, label errors and the learning curve are not measured: {TOO_FEW}.")]
    if probe is None:
        return []
    if not errors:
        return [Finding("good", "No label errors found.")]
    fraction, accuracy = errors / int(probe.tested.sum()), probe.accuracy
    verb = "is" if errors == 1 else "are"
    text = f"{count(errors, 'label')} ({percent(fraction)}) {verb} probably wrong according to a linear head with "
    if accuracy < _RELIABLE:
        text += f"{percent(accuracy)} accuracy, so expect false positives; most likely errors first."
        return [Finding("note", text)]
    severity: Severity = "warning" if fraction > _MANY_LABEL_ERRORS else "note"
    return [Finding(severity, f"{text}{percent(accuracy)} accuracy; most likely errors first.")]


def _class_balance(inspection: Inspection) -> list[Finding]:
    totals = {name: sum(counts.values()) for name, counts in inspection.counts().items()}
    largest, smallest = max(totals, key=lambda name: totals[name]), min(totals, key=lambda name: totals[name])
    if not totals[smallest]:
        return [Finding("alarm", f"Class {smallest} has no readable images.")]
    if totals[largest] == totals[smallest]:
        return [Finding("good", f"Every class has {count(totals[largest], 'image')}.")]
    ratio = totals[largest] / totals[smallest]
    text = (
        f"the largest class, {largest}, has {count(totals[largest], 'image')}, the smallest, {smallest}, "
        f"{totals[smallest]:,} ({ratio:.1f} to 1)"
    )
    if ratio > IMBALANCE:
        return [Finding("note", f"The classes are imbalanced: {text}; the plan measures whether class weights help.")]
    return [Finding("good", f"The classes are balanced: {text}.")]


def _similarity(inspection: Inspection) -> list[Finding]:
    similarity = inspection.similarity
    if similarity.shift is None:
        return []
    relation = "similar to" if similarity.verdict == "similar" else f"{similarity.verdict} from"
    evidence = f"feature shift {similarity.shift:.2f}; {inspection.backbone}"
    return [Finding("note", f"The images are {relation} the pre-training data ({evidence}).")]


def _accuracy(inspection: Inspection) -> list[Finding]:
    """What a linear head reaches, and what it would reach with more images."""
    listed, probe, curve = [], inspection.probe, inspection.curve
    if probe is not None:
        text = (
            f"A linear head on frozen features reaches {percent(probe.accuracy)} accuracy in {probe.folds}-fold "
            f"cross-validation (nearest neighbours {percent(probe.knn_accuracy)}, majority class "
            f"{percent(probe.majority_accuracy)}){_of_sample(probe)}."
        )
        is_useful = probe.accuracy > probe.majority_accuracy + _MIN_GAIN_OVER_MAJORITY
        listed.append(Finding("good" if is_useful else "warning", text))
        if probe.untested:
            names = {inspection.manifest.classes[label]: images for label, images in probe.untested.items()}
            listed.append(Finding("warning", f"{untested_sentence(names)} by cross-validation."))
    if curve is not None and curve.forecast:
        doubled = curve.forecast[0]
        # The curve through all points may lie below the last one.
        gain = max(doubled.accuracy - curve.measured[-1].accuracy, 0.0)
        images = "the number of images"
        if probe is not None and probe.sample is not None:
            images = f"a random sample of {count(probe.sample, 'image')}"
        text = (
            f"Doubling {images} would add about {points(gain)} points to a linear head: "
            f"{interval(doubled.accuracy, doubled.low, doubled.high)}."
        )
        listed.append(Finding("note", text))
    return listed


def _of_sample(probe: LinearProbe) -> str:
    if probe.sample is None:
        return ""
    return f"; heads, neighbours and the learning curve are fitted on a random sample of {count(probe.sample, 'image')}"
