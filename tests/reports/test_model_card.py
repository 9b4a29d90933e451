from typing import get_args

import pytest

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
