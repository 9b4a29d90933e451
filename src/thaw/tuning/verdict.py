"""Whether the best trial is better than the plan: both trained afresh, compared on images that no trial has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from thaw.classifier.decision import Decision
from thaw.data.manifest import Manifest
from thaw.evaluation.compare import Comparison, compare
from thaw.evaluation.records import Records, read_records
from thaw.evaluation.thresholds import REQUIREMENTS, decided
from thaw.formats import count, points
from thaw.metrics import METRICS, values_of
from thaw.recipe import Recipe
from thaw.reports.results import SPLIT_NAMES
from thaw.run_folder.search_folder import SearchFolder
from thaw.run_folder.trial_record import TrialRecord
from thaw.seeds import derive_seed
from thaw.tuning.final import PLAN, WINNER, trained_afresh

_ROUNDS = 1_000
_BY_DECISION = "Labels are those of the decision of each, chosen on validation; trials are ranked without one."


@dataclass(frozen=True)
class Verdict:
    """What a search has found.

    Attributes:
        is_better: Whether the best trial is better than the plan beyond noise.
        sentence: The answer.
        comparison: Best trial and plan on the same images; `None` where the plan is the best trial.
        optimism: How much of the best trial's value is luck of having been the best of several.
    """

    is_better: bool
    sentence: str
    comparison: Comparison | None = None
    optimism: float = 0.0


def judge(plan: Recipe, winner: Recipe, folder: SearchFolder, manifest: Manifest, luck: float) -> Verdict:
    """Train plan and winner afresh, with a seed that no trial has used, and compare them.

    Args:
        plan, winner: Their recipes.
        folder: Their runs are in its folder `final`, and are resumed if they were interrupted.
        manifest: The images with their splits.
        luck: The optimism of the winner's value.
    """
    split = split_of_comparison(manifest)
    runs = [trained_afresh(plan, PLAN, folder, manifest), trained_afresh(winner, WINNER, folder, manifest)]
    first, second = (read_records(run_.predictions, split) for run_ in runs)
    verdict = verdict_on(compare(first, second), plan.monitor, split, luck)
    if _is_by_decision(plan, (first, second)):
        return replace(verdict, sentence=f"{verdict.sentence} {_BY_DECISION}")
    return verdict


def _is_by_decision(plan: Recipe, compared: Sequence[Records]) -> bool:
    """Whether what is required of the decision changes the metric that counts, without which trials are ranked."""
    if not any(getattr(plan.decision, name) for name in REQUIREMENTS):
        return False
    pairs = [(records.scored, decided(Decision(), records.scored)) for records in compared]
    return any(values_of(own)[plan.monitor] != values_of(default)[plan.monitor] for own, default in pairs)


def split_of_comparison(manifest: Manifest) -> str:
    """The split that plan and best trial are compared on: test, or validation where there are no test images."""
    return "test" if len(manifest.indices("test")) else "val"


def verdict_on(found: Comparison, monitor: str, split: str, luck: float) -> Verdict:
    """What a comparison of the plan with the best trial says about a search, by the rule of `thaw compare`.

    On validation images, which have chosen the best trial, it cannot be better beyond noise.

    Args:
        found: The plan is the first, the best trial the second.
        monitor: The metric that counts; accuracy where the images do not have it.
        split: Of the images.
        luck: The optimism of the best trial's value.
    """
    monitor = monitor if monitor in found.differences else "accuracy"
    difference, metric, better = found.differences[monitor], METRICS[monitor], found.better_in(monitor)
    seen = "no trial has seen" if split == "test" else "have chosen the best trial"
    where = f"{count(found.images, f'{SPLIT_NAMES[split]} image')} that {seen}"
    if metric.kind != "fraction":
        value, interval = f"{difference.value:+.4f}", f"{difference.low:+.4f} to {difference.high:+.4f}"
    else:
        value, interval = f"{points(difference.value)} points", f"{points(difference.low)} to {points(difference.high)}"
    shown = f"{value} {metric.title} (95% interval {interval})"
    if better == "second" and split != "test":
        return Verdict(False, f"No test images, so the plan stays: the best trial has {shown} on {where}.", found, luck)
    if better == "second":
        return Verdict(True, f"The best trial is better than the plan: {shown} on {where}.", found, luck)
    if better == "first":
        return Verdict(False, f"The plan is better: the best trial has {shown} on {where}.", found, luck)
    return Verdict(
        False, f"No gain beyond noise: the best trial compared with the plan has {shown} on {where}.", found, luck
    )


def optimism(full: Sequence[TrialRecord], units: np.ndarray, seed: int) -> float:
    """How much the best of several values is too good for having been chosen, on the same images.

    In bootstrap samples of the images the best trial is chosen anew, and tested on the images left out (Tsamardinos et
    al. 2018, "Bootstrapping the out-of-sample predictions"): how much better the best value is than that. 0 where fewer
    than two trials can be compared.

    Args:
        full: The trials.
        units: (N,) int, equal for validation images that are no independent evidence; these are drawn together.
        seed: Of the draws.
    """
    scores = [record.scores for record in full if record.is_usable and record.scores]
    scores = [each for each in scores if len(each) == len(units)]
    if len(scores) < 2:
        return 0.0
    matrix, rng = np.array(scores), np.random.default_rng(derive_seed(seed, "optimism"))
    _, numbers = np.unique(units, return_inverse=True)
    count_of_units, tested = int(numbers.max()) + 1, []
    for _ in range(_ROUNDS):
        # How often each image is drawn.
        weights = np.bincount(rng.integers(count_of_units, size=count_of_units), minlength=count_of_units)[numbers]
        if not weights.all():
            chosen = int((matrix @ weights).argmax())
            tested.append(float(matrix[chosen, weights == 0].mean()))
    return max(0.0, float(matrix.mean(axis=1).max() - np.mean(tested))) if tested else 0.0
