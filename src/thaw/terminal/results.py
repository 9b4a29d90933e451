"""Evaluation results on the console: metrics with their intervals, thresholds, review, comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from thaw import formats
from thaw.evaluation.compare import Comparison
from thaw.evaluation.evaluate import Evaluation
from thaw.evaluation.folds import CrossValidation
from thaw.evaluation.test_time_options import Option
from thaw.evaluation.thresholds import ThresholdResult
from thaw.formats import shortened
from thaw.metrics import METRICS, Metric
from thaw.progress import Reporter
from thaw.run_folder import RunFolder
from thaw.terminal.classes import ROWS, show_class_metrics, show_confusion
from thaw.terminal.metric_text import difference_text, estimate_text, fraction_text, value_text

NO_TEST_SET = (
    "There is no test set. These metrics are from validation, which also selected the best epoch, the temperature and "
    "every threshold, so they are optimistic."
)
_UNREADABLE_SHOWN = 5
_USES = {"train": "trained on", "val": "validated on"}


def show_results(run: RunFolder, results: Mapping[str, Evaluation], reporter: Reporter) -> None:
    """The metrics of a finished classifier on each split, and the files of the run."""
    header = ("metric", *(f"{split}, {formats.count(result.images, 'image')}" for split, result in results.items()))
    reporter.table("Results with 95% confidence intervals", header, metric_rows(list(results.values())))
    for split, result in results.items():
        _show_thresholds(split, result.thresholds, reporter)
        _show_review(split, result, reporter)
    if "test" not in results:
        reporter.say(NO_TEST_SET)
    reporter.say(f"run {run.path}, bundle {run.model}")


def show_decided(before: Mapping[str, Evaluation], after: Mapping[str, Evaluation], reporter: Reporter) -> None:
    """What another decision gives on each split: the metrics that it changes, its thresholds, and the review."""
    header = ("metric", *(f"{split}, {when}" for split in before for when in ("before", "now")))
    pairs = [result for split in before for result in (before[split], after[split])]
    changed = [row for row in metric_rows(pairs) if row[1::2] != row[2::2]]
    if changed:
        reporter.table("Changed by the decision, 95% confidence intervals", header, changed)
    for split, result in after.items():
        _show_thresholds(split, result.thresholds, reporter)
        _show_review(split, result, reporter)


def show_evaluation(result: Evaluation, reporter: Reporter) -> None:
    """The metrics of one set, overall and by class, its confusion matrix, thresholds and review."""
    images = formats.count(result.images, "image")
    known = _images_of_run_text(result)
    title = f"Metrics on {images}{f' ({known})' if known else ''}, 95% confidence intervals"
    reporter.table(title, ("metric", "value"), metric_rows([result]))
    show_class_metrics(result, reporter)
    show_confusion(result, reporter)
    _show_thresholds("these images", result.thresholds, reporter)
    _show_review("these images", result, reporter)
    for path, reason in result.unreadable[:_UNREADABLE_SHOWN]:
        reporter.say(f"cannot be read, excluded: {path}: {reason}")
    if (more := len(result.unreadable) - _UNREADABLE_SHOWN) > 0:
        reporter.say(f"… and {more:,} more; --out FILE lists all")
    if known:
        reporter.say(
            f"WARNING: of these images, {known} (equal bytes): the metrics are no estimate for new images; "
            "evaluate on others"
        )
    elif result.images_of_run is None:
        reporter.say("whether the classifier was trained on these images is not known; give its run to find out")


def _images_of_run_text(result: Evaluation) -> str:
    """How many images the classifier was trained or validated on; empty for none."""
    counts = result.images_of_run or {}
    known = [(number, text) for split, text in _USES.items() if (number := counts.get(split))]
    return " and ".join(f"{number:,} {'was' if number == 1 else 'were'} {text}" for number, text in known)


def metric_rows(results: Sequence[Evaluation]) -> list[tuple[str, ...]]:
    """One row per metric that any of the results has: its title and its estimate in each."""
    return [
        (metric.title, *(estimate_text(result.overall.get(name), metric) for result in results))
        for name, metric in METRICS.items()
        if any(result.overall.get(name) for result in results)
    ]


def show_cross_validation(found: CrossValidation, reporter: Reporter) -> None:
    """The metrics of each seed with their intervals, and their mean and standard deviation over the seeds."""
    seeds = range(len(found.by_seed))
    rows = []
    for name, metric in METRICS.items():
        if any(estimates.get(name) for estimates in found.by_seed):
            by_seed = (estimate_text(estimates.get(name), metric) for estimates in found.by_seed)
            rows.append((metric.title, *by_seed, _mean_text(found, metric)))
    images, folds = formats.count(found.images, "image"), formats.count(found.folds, "fold")
    title = f"{found.method}: {folds} of {images}, 95% confidence intervals"
    reporter.table(title, ("metric", *(f"seed {seed}" for seed in seeds), "mean ± standard deviation"), rows)


def show_comparison(first: Path, second: Path, found: Comparison, reporter: Reporter) -> None:
    """Which run is better, by how much, and on which images."""
    reporter.say(f"first run: {first}")
    reporter.say(f"second run: {second}")
    reporter.say(found.verdict)
    excluded = f" ({found.excluded:,} tested by one run only are excluded)" if found.excluded else ""
    p_value = "" if found.p_value is None else f" (McNemar p = {found.p_value:.3g})"
    reporter.say(
        f"{formats.count(found.images, 'image')}{excluded}; correct in the first run only: {found.only_first:,}, "
        f"in the second only: {found.only_second:,}{p_value}"
    )
    rows = [
        (metric.title, difference_text(difference, metric))
        for name, metric in METRICS.items()
        if (difference := found.differences.get(name)) is not None
    ]
    reporter.table("Second minus first, 95% confidence intervals", ("metric", "difference"), rows)


def show_options(options: Sequence[Option], images: int, reporter: Reporter) -> None:
    """What each test-time option changes, and the best one that lowers the loss."""
    rows = [
        (
            option.name,
            difference_text(option.accuracy, METRICS["accuracy"]),
            difference_text(option.loss, METRICS["loss"]),
            f"{option.cost:.2f}x",
            "better" if option.pays else "",
        )
        for option in options
    ]
    title = f"Compared with plain prediction on {formats.count(images, 'validation image')}, 95% confidence intervals"
    reporter.table(title, ("test-time option", "accuracy", "loss", "time", ""), rows)
    if best := min((option for option in options if option.pays), key=lambda option: option.loss.value, default=None):
        flags = ("--mirrored " if best.mirrored else "") + f"--size {best.size}"
        reporter.say(f"lowest loss: thaw predict {flags}, at {best.cost:.1f}x the time")
    else:
        reporter.say("no option is significantly better; use plain thaw predict")


def _show_thresholds(split: str, results: Sequence[ThresholdResult], reporter: Reporter) -> None:
    """What each threshold gives on a set of images."""
    for item in results[:ROWS]:
        reporter.say(
            f"{split}: {shortened(item.class_name)} if p >= {item.threshold:.3f}: recall {fraction_text(item.recall)}, "
            f"false-positive rate {fraction_text(item.false_positive_rate)}, precision {fraction_text(item.precision)}"
        )
    if len(results) > ROWS:
        reporter.say(f"{split}: … and {formats.count(len(results) - ROWS, 'more threshold')}")


def _show_review(split: str, result: Evaluation, reporter: Reporter) -> None:
    if rates := result.review:
        kinds = {"ambiguous": rates.ambiguous, "out-of-distribution": rates.out_of_distribution}
        flagged = ", ".join(f"{fraction_text(rate)} {kind}" for kind, rate in kinds.items() if rate)
        rest = f"accuracy on the rest {fraction_text(rates.accuracy_of_rest)}"
        text = f"{flagged}; {rest}" if flagged else "no images, because validation has too few to set a limit"
        reporter.say(f"{split}: flagged for review: {text}")


def _mean_text(found: CrossValidation, metric: Metric) -> str:
    deviation = found.standard_deviation(metric.name)
    spread = "" if deviation is None else f" ± {value_text(deviation, metric)}"
    return value_text(found.mean(metric.name), metric) + spread
