from typing import Any

import pytest

from thaw.errors import RecipeError
from thaw.tuning.limits import DEFAULT_SECONDS, Limits


def test_limits_are_seconds_also_as_text_and_a_number_of_trials() -> None:
    assert Limits(seconds="1h30m", trials=5) == Limits(5400.0, 5)  # type: ignore[arg-type]
    assert (Limits().seconds, Limits().trials) == (DEFAULT_SECONDS, None)
    assert Limits(None).seconds is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seconds": "soon"}, "limits: seconds: is not a duration; write it as 90s, 30m or 1h30m"),
        ({"seconds": float("nan")}, "limits: seconds: .* finite number"),
        ({"seconds": float("inf")}, "limits: seconds: .* finite number"),
        ({"seconds": 0}, "limits: seconds: .* greater than 0"),
        ({"seconds": -5.0}, "limits: seconds: .* greater than 0"),
        ({"seconds": True}, "limits: seconds: .* number"),
        ({"trials": "5"}, "limits: trials: .* integer"),
        ({"trials": 2.5}, "limits: trials: .* integer"),
        ({"trials": 0}, "limits: trials: .* greater than or equal to 1"),
    ],
)
def test_limits_that_are_no_positive_numbers_are_refused_when_they_are_made(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Limits(**wrong)
