"""What an inspection found, in sentences a person can act on; the terminal and the page say the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from thaw.inspection.inspect import Inspection
from thaw.training.loss import IMBALANCE

_SURE = 0.9
"""Accuracy from which a head that disagrees with a label is more often right than not, in sets with planted errors."""

Weight = Literal["good", "note", "warning", "alarm"]


@dataclass(frozen=True)
class Finding:
    """One sentence, and how much it matters."""

    weight: Weight
    text: str


def findings(found: Inspection) -> tuple[Finding, ...]:
    """Every finding, what matters most first."""
    order = ("alarm", "warning", "note", "good")
    listed = [*_leaks(found), *_files(found), *_duplicates(found), *_labels(found), *_classes(found), *_worth(found)]
    return tuple(sorted(listed, key=lambda finding: order.index(finding.weight)))


def _leaks(found: Inspection) -> list[Finding]:
    listed = []
    for leak in found.leaks:
        first, second = leak.splits
        text = f"The given splits leak: {_many(len(leak.duplicates), 'pair')} of twins stand in {first} and {second}"
        if leak.accuracy is not None and leak.accuracy_without is not None:
            text += f"; a linear head gets {leak.accuracy:.1%} on {second}, {leak.accuracy_without:.1%} without them"
        listed.append(Finding("alarm", f"{text}."))
    return listed


def _files(found: Inspection) -> list[Finding]:
    listed = []
    if errors := found.manifest.errors():
        path, reason = errors[0]
        listed.append(Finding("warning", f"{_many(len(errors), 'file')} cannot be read, such as {path}: {reason}."))
    kinds = Counter(flag.kind for flag in found.flags)
    if kinds:
        text = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        listed.append(Finding("note", f"Pictures that stand out from the set: {text}."))
    if found.outliers:
        listed.append(
            Finding("note", f"{_many(len(found.outliers), 'picture')} far from the rest of their class; look at them.")
        )
    return listed


def _duplicates(found: Inspection) -> list[Finding]:
    exact = sum(pair.exact for pair in found.duplicates)
    near = len(found.duplicates) - exact
    if not found.duplicates:
        return [Finding("good", "No picture is there twice.")]
    listed = [
        Finding(
            "note",
            f"{_many(exact, 'pair')} of equal files and {_many(near, 'pair')} of near-duplicates (twins); "
            "Thaw keeps each on one side of its split.",
        )
    ]
    if found.conflicting_labels:
        text = (
            f"{_many(len(found.conflicting_labels), 'pair')} of twins under different labels; one of each may be wrong."
        )
        listed.append(Finding("warning", text))
    return listed


def _labels(found: Inspection) -> list[Finding]:
    if found.probe is None:
        return []
    if not found.label_errors:
        return [Finding("good", "No label looks wrong.")]
    fraction, right = len(found.label_errors) / len(found.probe.probabilities), found.probe.linear
    text = (
        f"{_many(len(found.label_errors), 'label')} ({fraction:.1%}) look wrong to a head that gets {right:.0%} right"
    )
    if right < _SURE:
        return [Finding("note", f"{text}: many will be right, the surest come first.")]
    return [Finding("warning" if fraction > 0.02 else "note", f"{text}; the surest come first.")]


def _classes(found: Inspection) -> list[Finding]:
    totals = {name: sum(counts.values()) for name, counts in found.counts().items()}
    largest, smallest = max(totals, key=lambda name: totals[name]), min(totals, key=lambda name: totals[name])
    if not totals[smallest]:
        return [Finding("alarm", f"{smallest} has no readable picture.")]
    if totals[largest] == totals[smallest]:
        return [Finding("good", f"Every class has {totals[largest]:,} pictures.")]
    ratio = totals[largest] / totals[smallest]
    text = f"{largest} has {totals[largest]:,} pictures, {smallest} has {totals[smallest]:,} ({ratio:.1f}x fewer)"
    if ratio > IMBALANCE:
        return [Finding("note", f"The classes are imbalanced: {text}; training will weight them.")]
    return [Finding("good", f"The classes are of similar size: {text}.")]


def _worth(found: Inspection) -> list[Finding]:
    listed = []
    if found.similarity.shift is not None:
        text = (
            f"The pictures are {found.similarity.verdict} to what {found.backbone.partition(',')[0]} was trained on "
            f"(shift {found.similarity.shift:.2f})."
        )
        listed.append(Finding("note", text.replace("different to", "different from")))
    if found.probe is not None:
        probe = found.probe
        text = (
            f"A linear head alone gets {probe.linear:.1%} under {probe.folds}-fold cross-validation "
            f"(nearest neighbours {probe.neighbours:.1%}, always the largest class {probe.majority:.1%})."
        )
        listed.append(Finding("good" if probe.linear > probe.majority + 0.05 else "warning", text))
    if found.curve is not None and found.curve.forecast:
        now, double = found.curve.measured[-1], found.curve.forecast[0]
        gain = double.accuracy - now.accuracy
        text = (
            f"Twice as many pictures would bring a linear head about {100 * gain:+.1f} points "
            f"({double.low:.1%} to {double.high:.1%})."
        )
        listed.append(Finding("note", text))
    return listed


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
