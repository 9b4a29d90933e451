"""Whether the best trial is better than the plan: both trained afresh, compared on images that no trial has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from thaw.data.manifest import Manifest
from thaw.evaluation.compare import Comparison, compare
from thaw.evaluation.records import read_records
from thaw.formats import count, points
from thaw.metrics import METRICS, Estimate
from thaw.recipe import Recipe
from thaw.run_folder.search_folder import SearchFolder, TrialRecord
from thaw.seeds import derive_seed
from thaw.tuning.final import PLAN, WINNER, trained_afresh

_ROUNDS = 1_000


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


def judge(
    plan: Recipe, winner: Recipe, folder: SearchFolder, manifest: Manifest, full: Sequence[TrialRecord]
) -> Verdict:
    """Train plan and winner afresh, with a seed that no trial has used, and compare them.

    Args:
        plan, winner: Their recipes.
        folder: Their runs are in its folder `final`, and are resumed if they were interrupted.
        manifest: The images with their splits.
        full: The trials that were trained to their end, for the optimism.
    """
    split = "test" if len(manifest.indices("test")) else "val"
    runs = [trained_afresh(plan, PLAN, folder, manifest), trained_afresh(winner, WINNER, folder, manifest)]
    first, second = (read_records(run_.predictions, split) for run_ in runs)
    found, luck = compare(first, second), optimism(full, plan.seed)
    monitor = plan.monitor if plan.monitor in found.differences else "accuracy"
    gain = _higher_is_better(found.differences[monitor], monitor)
    where = (
        f"{count(found.images, f'{split} image')} that no trial has seen" if split == "test" else "validation images"
    )
    shown = (
        f"{points(gain.value)} points {METRICS[monitor].title} (95% interval {points(gain.low)} to {points(gain.high)})"
    )
    if gain.low > 0:
        return Verdict(True, f"The best trial is better than the plan: {shown} on {where}.", found, luck)
    if gain.high < 0:
        return Verdict(False, f"The plan is better: the best trial has {shown} on {where}.", found, luck)
    return Verdict(
        False, f"No gain beyond noise: the best trial compared with the plan has {shown} on {where}.", found, luck
    )


def optimism(full: Sequence[TrialRecord], seed: int) -> float:
    """How much the best of several values is too good for having been chosen, on the same images.

    In bootstrap samples of the images the best trial is chosen anew, and tested on the images left out (Tsamardinos et
    al. 2018, "Bootstrapping the out-of-sample predictions"). 0 where fewer than two trials can be compared.
    """
    scores = [record.scores for record in full if record.is_usable and record.scores]
    scores = [each for each in scores if len(each) == len(scores[0])]
    if len(scores) < 2:
        return 0.0
    matrix, rng = np.array(scores), np.random.default_rng(derive_seed(seed, "optimism"))
    images, gaps = matrix.shape[1], []
    for _ in range(_ROUNDS):
        drawn = rng.integers(images, size=images)
        left = np.setdiff1d(np.arange(images), drawn)
        if len(left):
            chosen = int(matrix[:, drawn].mean(axis=1).argmax())
            gaps.append(float(matrix[chosen, drawn].mean() - matrix[chosen, left].mean()))
    return max(0.0, float(np.mean(gaps))) if gaps else 0.0


def _higher_is_better(difference: Estimate, monitor: str) -> Estimate:
    """A difference of which more is better."""
    if METRICS[monitor].higher_is_better:
        return difference
    return replace(difference, value=-difference.value, low=-difference.high, high=-difference.low)
