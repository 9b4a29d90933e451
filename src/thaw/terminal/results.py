"""What a person is told of how good a classifier is: figures with their intervals, and comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from thaw.evaluation.compare import Comparison
from thaw.evaluation.evaluate import Evaluation
from thaw.evaluation.folds import Repeats
from thaw.evaluation.metrics import Estimate
from thaw.evaluation.test_time_options import Option
from thaw.evaluation.thresholds import ThresholdResult
from thaw.progress import Reporter
from thaw.run_folder import RunFolder


def show_results(run: RunFolder, results: Mapping[str, Evaluation], reporter: Reporter) -> None:
    """The metrics of the finished classifier, and where everything lies."""
    rows = [
        (
            split,
            f"{result.images}",
            percent(result.overall.accuracy),
            percent(result.overall.balanced_accuracy),
            figure(result.overall.macro_f1),
            figure(result.overall.mean_average_precision),
            percent(result.overall.calibration_error),
        )
        for split, result in results.items()
    ]
    header = ("set", "images", "accuracy", "balanced", "macro F1", "mean AP", "calibration error")
    reporter.table("Result, with 95 % intervals", header, rows)
    _show_people(results, reporter)
    reporter.say(f"run {run.path}, bundle {run.model}")


def show_evaluation(result: Evaluation, reporter: Reporter) -> None:
    """All figures of one set: overall, per class, and which classes are taken for which."""
    found = result.overall
    rows = [(field.name.replace("_", " "), figure(getattr(found, field.name))) for field in fields(found)]
    reporter.table(f"{result.images} images, with 95 % intervals", ("", ""), rows)
    classes = [
        (item.name, f"{item.images}", *(figure(getattr(item.metrics, field.name)) for field in fields(item.metrics)))
        for item in result.per_class
    ]
    reporter.table("", ("class", "images", "precision", "recall", "F1", "AP", "AUROC"), classes)
    if result.confusion:
        names = [item.name for item in result.per_class]
        counts = [(name, *map(str, row)) for name, row in zip(names, result.confusion, strict=True)]
        reporter.table("true class in rows, predicted in columns", ("", *names), counts)
    _show_people({"these images": result}, reporter)
    for path, reason in result.unreadable:
        reporter.say(f"cannot be read, left out: {path}: {reason}")


def show_repeats(found: Repeats, reporter: Reporter) -> None:
    """Figures for each seed with their intervals, and how far they move from seed to seed."""
    names = ("accuracy", "balanced_accuracy", "macro_f1")
    rows = [(f"{seed}", *(percent(getattr(item, name)) for name in names)) for seed, item in enumerate(found.by_seed)]
    means = []
    for name in names:
        move = found.deviation(name)
        means.append(f"{found.mean(name):.1%}" + ("" if move is None else f" ± {move:.1%}"))
    rows.append(("mean", *means))
    title = f"{found.how}: {found.folds} folds of {found.images:,} images, each tested once a seed"
    reporter.table(title, ("seed", "accuracy", "balanced", "macro F1"), rows)


def show_comparison(first: Path, second: Path, found: Comparison, reporter: Reporter) -> None:
    """Who is better, by how much, and on what."""
    reporter.say(f"first {first}")
    reporter.say(f"second {second}")
    reporter.say(found.verdict)
    left = f"; {found.left_out} images that only one was tested on are left out" if found.left_out else ""
    reporter.say(
        f"{found.images:,} images{left}; the first alone is right on {found.only_first}, the second alone on "
        f"{found.only_second}" + ("" if found.p_value is None else f" (McNemar p = {found.p_value:.3g})")
    )
    rows = [
        (name.replace("_", " "), f"{item.value:+.4f}", f"{item.low:+.4f} to {item.high:+.4f}")
        for name in ("accuracy", "balanced_accuracy", "macro_f1", "loss")
        for item in [getattr(found, name)]
    ]
    reporter.table("second less first", ("", "difference", "95 % interval"), rows)


def _show_people(results: Mapping[str, Evaluation], reporter: Reporter) -> None:
    """What thresholds do, and what is left to a person."""
    for split, result in results.items():
        show_threshold_results(split, result.thresholds, reporter)
        if result.review:
            person = result.review
            reporter.say(
                f"{split}: for a person to look at: {percent(person.ambiguous)} unsure, {percent(person.out_of_distribution)} unlike "
                f"any training image; of the rest {percent(person.accuracy_of_rest)} right"
            )


def show_threshold_results(split: str, found: Sequence[ThresholdResult], reporter: Reporter) -> None:
    """What thresholds do on a set."""
    for item in found:
        reporter.say(
            f"{split}: from {item.threshold:.3f} on it is {item.class_name}: finds {percent(item.recall)} of them, "
            f"false alarms {percent(item.false_positive_rate)}, right {percent(item.precision)}"
        )


def show_options(found: Sequence[Option], images: int, reporter: Reporter) -> None:
    """What each way to predict changes, and whether it pays."""
    rows = [
        (
            option.name,
            f"{option.accuracy.value:+.2%} ({option.accuracy.low:+.2%} to {option.accuracy.high:+.2%})",
            f"{option.loss.value:+.4f} ({option.loss.low:+.4f} to {option.loss.high:+.4f})",
            f"{option.cost:.2f}x",
            "pays" if option.pays else "",
        )
        for option in found
    ]
    header = ("way to predict", "accuracy", "log loss", "time", "")
    reporter.table(f"Beside plain prediction, {images:,} validation images, 95 % intervals", header, rows)
    if best := min((option for option in found if option.pays), key=lambda option: option.loss.value, default=None):
        how = ("--mirrored" if best.mirrored else "") + f" --size {best.size}"
        reporter.say(f"thaw predict {how.strip()}: the lowest log loss, at {best.cost:.1f}x the time")
    else:
        reporter.say("none of them is better beyond chance: predict plainly")


def percent(estimate: Estimate | None) -> str:
    """A share with its interval, as 97.1% (94.8% to 98.6%)."""
    return "-" if estimate is None else f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"


def figure(estimate: Estimate | None) -> str:
    """A figure with its interval, as 0.971 (0.948 to 0.986)."""
    return "-" if estimate is None else f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
