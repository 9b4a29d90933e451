import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from thaw.backbones.stages import AtCut
from thaw.training.loss import make_loss
from thaw.training.mixup import Blend, draw_blend

CPU = torch.device("cpu")


def test_an_image_is_blended_with_its_partner_by_the_fraction() -> None:
    at = AtCut(torch.tensor([[0.0, 1.0], [10.0, 3.0]]), torch.tensor([[4.0], [0.0]]))
    blended = Blend(0.75, torch.tensor([1, 0])).inputs(at)
    assert torch.equal(blended.values, torch.tensor([[2.5, 1.5], [7.5, 2.5]]))
    assert torch.equal(blended.stages, torch.tensor([[3.0], [1.0]]))


def test_the_loss_equals_the_cross_entropy_with_blended_targets() -> None:
    logits, targets = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 2, 1])
    blend = Blend(0.3, torch.tensor([4, 2, 0, 1, 3]))
    one_hot = functional.one_hot(targets, 3).float()
    expected = functional.cross_entropy(logits, 0.3 * one_hot + 0.7 * one_hot[blend.partner])
    found = blend.loss(make_loss("multiclass", None, 0.0))(logits, targets)
    assert float(found) == pytest.approx(float(expected))


@given(st.floats(0.05, 10.0), st.integers(1, 40), st.integers(0, 2**62))
def test_a_blend_depends_on_its_seed_only_and_has_each_image_once_as_a_partner(
    amount: float, size: int, seed: int
) -> None:
    blend, again = draw_blend(amount, size, seed, CPU), draw_blend(amount, size, seed, CPU)
    assert 0.0 <= blend.fraction <= 1.0 and blend.fraction == again.fraction
    assert torch.equal(blend.partner, again.partner)
    assert sorted(blend.partner.tolist()) == list(range(size))


def test_a_small_amount_blends_little_and_a_large_one_evenly() -> None:
    def evenness(amount: float) -> float:
        fractions = [draw_blend(amount, 2, seed, CPU).fraction for seed in range(400)]
        return sum(min(fraction, 1 - fraction) for fraction in fractions) / len(fractions)

    assert evenness(0.1) < 0.15 < 0.35 < evenness(8.0)
