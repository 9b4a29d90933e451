import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.recipe import HeadSettings, Phase, PreprocessingSettings, Recipe
from thaw.recipe.ranges import Range, Searched, Values, declared
from thaw.tuning.space import KEYS, default_space


@given(st.floats(-1e6, 1e6))
def test_the_nearest_number_lies_in_the_range(value: float) -> None:
    tried = Range(1e-5, 1e-2)
    assert tried.low <= tried.nearest(value) <= tried.high
    assert tried.nearest(3e-4) == 3e-4


def test_the_nearest_value_is_one_of_them() -> None:
    assert Values((None, 160, 224)).nearest(200) == 224
    assert Values(((), (128,))).nearest([128]) == (128,)
    assert Values(("none", "light")).nearest("unheard of") == "none"


@pytest.mark.parametrize("section", [Recipe, Phase, HeadSettings, PreprocessingSettings])
def test_declarations_are_found(section: type) -> None:
    assert declared(section)


@pytest.mark.parametrize("key", KEYS[1:])
def test_every_declared_value_is_a_legal_setting(key: str) -> None:
    tried: Searched = default_space(["starter"], {}).ranges[key]
    for value in tried.values if isinstance(tried, Values) else (tried.low, tried.high):
        Recipe().with_settings({key: list(value) if isinstance(value, tuple) else value})
