from bench.search_curves import best_so_far


def test_only_a_better_value_is_a_step_and_the_curve_goes_on_to_the_last_trial() -> None:
    assert best_so_far([(30.0, 0.7), (10.0, 0.8), (20.0, 0.9)]) == [(10.0, 0.8), (20.0, 0.9), (30.0, 0.9)]
