from thaw.recipe import Phase, Recipe
from thaw.recipe.reference import find, settings


def test_every_setting_is_listed_once_with_a_description() -> None:
    keys = [setting.key for setting in settings()]
    assert len(keys) == len(set(keys))
    assert {f"phases.N.{name}" for name in Phase.model_fields} <= set(keys)
    assert {"seed", "split.seed", "decision.recall", "head.hidden"} <= set(keys)
    for setting in settings():
        assert len(setting.description) > 5 and setting.description.endswith("."), setting.key


def test_ranges_and_choices_are_in_words() -> None:
    allowed = {setting.key: setting.allowed for setting in settings()}
    assert allowed["phases.N.schedule"] == "constant, cosine, cosine_restarts, plateau, one_cycle"
    assert allowed["phases.N.patience"] == "integer >= 1 or null"
    assert allowed["split.val"] == "number >= 0 and < 1"
    assert allowed["decision.recall"] == "mapping to number > 0 and <= 1"


def test_defaults_are_those_of_the_recipe() -> None:
    defaults = {setting.key: setting.default for setting in settings()}
    assert defaults["backbone"] == Recipe().backbone and defaults["phases.N.lr"] == "required"


def test_settings_are_found_by_words() -> None:
    assert [setting.key for setting in find("dropout rate")] == ["head.dropout"]
    assert find("no such setting anywhere") == ()
