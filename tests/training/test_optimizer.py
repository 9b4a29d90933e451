from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import nn

from thaw.recipe import Phase
from thaw.training.optimizer import load_state_tensors, make_optimizer, set_lr, state_tensors, step

Kind = Literal["adam", "adamw", "sgd", "rmsprop"]
KINDS: tuple[Kind, ...] = ("adam", "adamw", "sgd", "rmsprop")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    seeds: range,
    step: Callable[[torch.optim.Optimizer], None] = step,
) -> None:
    for seed in seeds:
        inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        step(optimizer)


def phase(kind: Kind = "adamw", decay: float = 0.5) -> Phase:
    return Phase(name="p", cut="head", epochs=1, lr=0.1, optimizer=kind, layer_decay=decay, weight_decay=0.01)


def parameters(model: nn.Module) -> list[tuple[str, nn.Parameter, int]]:
    return [(name, value, 0 if name.startswith("2") else 3) for name, value in model.named_parameters()]


def test_each_deeper_stage_has_a_lower_learning_rate_and_biases_are_not_decayed() -> None:
    model = network()
    optimizer = make_optimizer(parameters(model), phase())
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    rates = {name: found[id(value)] for name, value in model.named_parameters()}
    assert rates == {
        "2.weight": (0.1, 0.01),
        "2.bias": (0.1, 0.0),
        "0.weight": (pytest.approx(0.0125), 0.01),
        "0.bias": (pytest.approx(0.0125), 0.0),
    }


def test_the_learning_rate_of_every_group_is_scaled() -> None:
    optimizer = make_optimizer(parameters(network()), phase())
    set_lr(optimizer, 0.1)
    set_lr(optimizer, 0.5)
    assert {round(group["lr"], 6) for group in optimizer.param_groups} == {0.05, 0.00625}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_that_of_the_optimizer_itself_to_the_bit(kind: Kind) -> None:
    ours, own = network(), network()
    train(ours, make_optimizer(parameters(ours), phase(kind)), range(3))
    train(own, make_optimizer(parameters(own), phase(kind)), range(3), lambda optimizer: optimizer.step())
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in own.state_dict().items())
    assert not torch.equal(ours.state_dict()["0.weight"], network().state_dict()["0.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimizer_with_restored_state_continues_bit_for_bit(kind: Kind) -> None:
    straight = network()
    optimizer = make_optimizer(parameters(straight), phase(kind))
    train(straight, optimizer, range(3))
    saved = {key: value.clone() for key, value in state_tensors(optimizer, parameters(straight)).items()}
    weights = {key: value.clone() for key, value in straight.state_dict().items()}
    train(straight, optimizer, range(3, 6))

    resumed = network()
    resumed.load_state_dict(weights)
    other = make_optimizer(parameters(resumed), phase(kind))
    load_state_tensors(other, parameters(resumed), saved)
    train(resumed, other, range(3, 6))
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key])


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_one_pass_over_all_weights_gives_those_of_one_pass_for_each_in_any_memory_layout(kind: Kind) -> None:
    def trained(fused: bool | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3)).to(memory_format=torch.channels_last)
        optimizer = make_optimizer(parameters(model), phase(kind))
        assert optimizer.defaults["fused"]
        for group in optimizer.param_groups:
            group["fused"], group["lr"] = fused, 0.01
        for seed in range(5):
            inputs = torch.randn(4, 3, 9, 7, generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad(set_to_none=True)
            model(inputs.contiguous(memory_format=torch.channels_last)).square().mean().backward()
            step(optimizer)
        return model.state_dict()

    expected, weights = trained(None), trained(True)
    assert all(torch.allclose(weights[name], value, rtol=1e-4, atol=1e-5) for name, value in expected.items())
