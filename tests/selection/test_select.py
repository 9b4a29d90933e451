"""The questions of the plan, on synthetic features."""

from __future__ import annotations

import numpy as np
import pytest

from thaw.data.augment import PRESETS, Augmentation
from thaw.recipe import Monitor
from thaw.selection import tester
from thaw.selection.budget import Budget
from thaw.selection.estimates import Folding
from thaw.selection.heads import HeadSetting
from thaw.selection.select import SampleViews, Selection

IMAGES, WIDTH = 120, 40


def asked(helps: bool, budget: float = 1000.0, unmeasured_seconds: float = 0.0) -> list[str]:
    """The presets whose views, of 1 s each, are extracted, where those of all of them help or hurt."""
    draws = np.random.default_rng(0)
    targets = np.arange(IMAGES) % 2
    centres = draws.normal(size=(2, WIDTH)) / 4
    plain = centres[targets] + draws.normal(size=(IMAGES, WIDTH))
    presets = []

    def view(augmentation: Augmentation) -> np.ndarray:
        presets.append(next((name for name, preset in PRESETS.items() if preset == augmentation), "without a kind"))
        # More examples of the same classes, or of the wrong ones.
        return centres[targets if helps else 1 - targets] + draws.normal(size=(IMAGES, WIDTH)) / 4

    folding = Folding(np.arange(IMAGES) // 2 % 5, np.arange(IMAGES))
    selection = Selection(
        SampleViews(plain.astype(np.float32), lambda each: view(each).astype(np.float32), (WIDTH,), 1.0),
        tester.Tester(targets, 2, "multiclass", "accuracy", (folding,)),
        (folding,),
        HeadSetting("last", "none"),
    )
    selection.use(Budget(budget))
    selection.ask_augmentation(unmeasured_seconds)
    for answer in selection.answers:
        assert (answer.changes["augment"]["preset"] == "none") != helps
    assert bool(presets) == bool(selection.answers)
    return presets


@pytest.mark.parametrize(("helps", "strong"), [(True, True), (False, False)])
def test_a_strong_augmentation_is_tried_only_where_the_standard_one_helps(helps: bool, strong: bool) -> None:
    presets = asked(helps)
    assert presets[:2] == ["standard", "light"] and ("strong" in presets) == strong
    assert ("without a kind" in presets) != helps


def test_the_default_is_asked_about_where_training_with_it_unasked_takes_longer() -> None:
    assert asked(helps=False, budget=0.0) == []
    assert asked(helps=False, budget=0.0, unmeasured_seconds=0.5) == []
    assert asked(helps=False, budget=0.0, unmeasured_seconds=60.0) == ["standard"]


@pytest.mark.parametrize(("monitor", "differ"), [("accuracy", False), ("balanced_accuracy", True)])
def test_whether_unseen_groups_do_worse_is_decided_by_the_monitored_metric(monitor: Monitor, differ: bool) -> None:
    """A rare class that looks different in each group, so that nearly all images are correct, but few of its own."""
    draws = np.random.default_rng(0)
    groups, targets = np.arange(1000) // 100, (np.arange(1000) % 100 < 4).astype(int)
    values = draws.normal(size=(1000, WIDTH)) / 2
    values[np.arange(1000), groups] += np.where(targets == 1, 10.0, 0.0)
    foldings = Folding(np.arange(1000) % 2, np.arange(1000)), Folding(groups % 5, groups, "groups")
    selection = Selection(
        SampleViews(values.astype(np.float32), lambda each: values.astype(np.float32), (WIDTH,), 1.0),
        tester.Tester(targets, 2, "multiclass", monitor, foldings[:1]),
        foldings,
        HeadSetting("last", "none"),
    )
    estimates = selection.estimate()
    assert estimates.across is not None and estimates.across.accuracy > 0.95
    assert estimates.differ == differ
