"""The optimizer over what is thawed, with layer-wise rates and weight decay where it belongs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from thaw.recipe import Phase


def make_optimizer(parameters: Iterable[tuple[str, nn.Parameter, int]], phase: Phase) -> Optimizer:
    """An optimizer over (name, parameter, depth): depth 0 learns at `phase.lr`, each deeper one at `layer_decay` less.

    Biases and the gains of norms (parameters of one dimension) are not decayed (Bag of Tricks, He et al. 2019). Each
    group keeps its full rate as `peak_lr`; `set_rate` moves it.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for _, parameter, depth in parameters:
        groups[depth, parameter.ndim > 1].append(parameter)
    settings = [
        {
            "params": members,
            "lr": phase.lr * phase.layer_decay**depth,
            "peak_lr": phase.lr * phase.layer_decay**depth,
            "weight_decay": phase.weight_decay if decays else 0.0,
        }
        for (depth, decays), members in sorted(groups.items(), key=lambda item: item[0])
    ]
    match phase.optimizer:
        case "adam":
            return Adam(settings)
        case "adamw":
            return AdamW(settings)
        case "sgd":
            return SGD(settings, lr=phase.lr, momentum=phase.momentum, nesterov=phase.momentum > 0)
        case "rmsprop":
            return RMSprop(settings, momentum=phase.momentum)


def set_rate(optimizer: Optimizer, factor: float) -> None:
    """Set every group's learning rate to `factor` of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def state_tensors(optimizer: Optimizer, names: dict[nn.Parameter, str]) -> dict[str, Tensor]:
    """The optimizer's memory as flat tensors `name/key`, for a checkpoint."""
    return {
        f"{name}/{key}": torch.as_tensor(value)
        for parameter, name in names.items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


@torch.no_grad()
def load_state_tensors(optimizer: Optimizer, names: dict[nn.Parameter, str], tensors: dict[str, Tensor]) -> None:
    """Give the optimizer back the memory that `state_tensors` took."""
    parameters = {name: parameter for parameter, name in names.items()}
    for key, tensor in tensors.items():
        name, _, slot = key.rpartition("/")
        parameter = parameters[name]
        if slot == "step":
            optimizer.state[parameter][slot] = tensor.cpu()
        else:
            # In the layout of the parameter, as the optimizer itself would have it: mixed layouts cost a slower path.
            optimizer.state[parameter][slot] = torch.empty_like(parameter).copy_(tensor)
