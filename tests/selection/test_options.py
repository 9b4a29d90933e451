"""Which option of a question is taken."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from thaw.selection.options import Option, Question


def question(*means: float, images: int = 400, seed: int = 0) -> Question:
    """Options of nested correctness: an option with a higher mean is right wherever the lower ones are."""
    rank = np.random.default_rng(seed).permutation(images) / images
    options = tuple(Option(f"option {index}", (rank < mean).astype(float)) for index, mean in enumerate(means))
    return Question("setting", "accuracy", options, np.arange(images), "tested")


def test_a_gain_within_one_standard_error_does_not_justify_a_more_complex_option() -> None:
    assert question(0.900, 0.9025).simplest_good() == 0
    assert question(0.900, 0.9025).best() == 1


def test_a_clear_gain_does() -> None:
    assert question(0.90, 0.95).simplest_good() == 1
    assert question(0.90, 0.95).better_than(0) == 1


def test_of_several_good_options_the_simplest_is_taken() -> None:
    assert question(0.80, 0.95, 0.9525).simplest_good() == 1


@given(st.lists(st.floats(0.1, 0.9), min_size=2, max_size=5), st.integers(0, 100))
def test_the_simplest_good_option_is_never_significantly_worse_than_any(means: list[float], seed: int) -> None:
    found = question(*means, seed=seed)
    chosen = found.simplest_good()
    assert not found.gain(found.best(), chosen).exceeds_noise
    assert all(found.gain(found.best(), index).exceeds_noise for index in range(chosen))


def test_the_reason_gives_every_option_with_its_standard_error() -> None:
    assert question(0.90, 0.95).reason(1) == "accuracy 95.0%, tested; compared with it: option 0 -5.0 ± 1.1 points"
