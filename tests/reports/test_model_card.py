from typing import get_args

import pytest

from thaw.classifier.decision import Decision
from thaw.data.manifest import Manifest
from thaw.pipeline import load
from thaw.recipe import KeepPhase
from thaw.reports.model_card import markdown, with_decision, write
from thaw.run_folder import RunFolder
from thaw.training.gain import KEPT_FOR


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("scratch", "scratch"),
        ("surface_crack", "surface_crack"),
        ("97.2% (95.1% to 98.5%)", "97.2% (95.1% to 98.5%)"),
        ("x|y", r"x\|y"),
        ("<b>", r"\<b>"),
        ("a&lt;b", r"a\&lt;b"),
        ("*ok*", r"\*ok\*"),
        ("_ok_", r"\_ok\_"),
        ("[ok](url)", r"\[ok\](url)"),
        ("back\\slash", r"back\\slash"),
        ("two\nlines", "two lines"),
    ],
)
def test_markdown_shows_a_class_name_as_it_is(text: str, shown: str) -> None:
    assert markdown(text) == shown


@pytest.mark.parametrize("keep", get_args(KeepPhase))
def test_the_rule_by_which_phases_were_kept_is_said(keep: KeepPhase, trained: RunFolder) -> None:
    recipe = trained.read_recipe().model_copy(update={"keep_phase": keep})
    evaluations = trained.read_evaluation().evaluations
    card = write(load(trained.path), recipe, Manifest.read(trained.manifest), evaluations)
    assert f"best epoch of each phase by validation accuracy; a later phase is kept for {KEPT_FOR[keep]}." in card


def test_a_card_with_other_tables_gets_those_of_the_decision(trained: RunFolder) -> None:
    """Such as one of an earlier release."""
    evaluations = trained.read_evaluation().evaluations
    card = with_decision("# A card\n", "recall of scratch at least 1", evaluations, evaluations)
    assert card.startswith("# A card\n\n## Metrics with this decision\n\n| metric |")
    assert card.endswith("\nDecision: recall of scratch at least 1.\n")


def test_a_decision_that_is_not_the_default_one_is_said_until_another_replaces_it(trained: RunFolder) -> None:
    classifier, evaluations = load(trained.path), trained.read_evaluation().evaluations
    inputs = trained.read_recipe(), Manifest.read(trained.manifest), evaluations
    assert "Decision: " not in write(classifier, *inputs)
    classifier.decision = Decision(((1, 0.03),), reason="recall of scratch at least 1")
    card = write(classifier, *inputs)
    assert "\nDecision: recall of scratch at least 1; labels are not always the most likely class.\n" in card
    changed = with_decision(card, "no requirement", evaluations, evaluations)
    assert "recall of scratch at least 1" not in changed and changed.endswith("\nDecision: no requirement.\n")
