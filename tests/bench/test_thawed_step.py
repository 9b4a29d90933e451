import pytest

from bench.thawed_step import Step


@pytest.mark.parametrize("case", ["test_resnet:layer4:2"])
def test_the_work_of_a_step_grows_with_the_batch(case: str) -> None:
    name, _, _ = case.rpartition(":")
    one, two = Step(f"{name}:1").flops(), Step(f"{name}:2").flops()
    assert 0 < one < two == 2 * one
