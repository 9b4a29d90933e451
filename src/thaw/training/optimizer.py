"""The optimizer over what is thawed, with layer-wise learning rates and weight decay on weight matrices only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from inspect import unwrap
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from thaw.classifier.classifier import Classifier
from thaw.recipe import Phase

Trainable = tuple[str, nn.Parameter, int]
"""Name, parameter, and depth: 0 for the head, 1 for the top stage, and so on downwards."""


def trainable_parameters(classifier: Classifier) -> list[Trainable]:
    """The parameters of the head and of what is thawed in the backbone, by their names in the classifier."""
    head = [(f"head.{name}", parameter, 0) for name, parameter in classifier.head.named_parameters()]
    return head + [
        (f"backbone.{name}", parameter, 1 + depth)
        for name, parameter, depth in classifier.backbone.trainable_parameters()
    ]


def make_optimizer(parameters: Iterable[Trainable], phase: Phase) -> Optimizer:
    """The optimizer of a phase; depth d learns at `lr * layer_decay**d`.

    Biases and the scales of norms (parameters of one dimension) are not decayed (He et al. 2019, Bag of Tricks). Each
    parameter group keeps its peak learning rate as `peak_lr`, for `set_lr`.
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
    # One pass over all parameters, where there would be ten: 5 ms instead of 14 ms for the top of MobileNetV2 on a CPU.
    kinds = {parameter.device.type for members in groups.values() for parameter in members}
    fused = kinds <= {"cpu", "cuda"} or None
    match phase.optimizer:
        case "adam":
            return Adam(settings, fused=fused)
        case "adamw":
            return AdamW(settings, fused=fused)
        case "sgd":
            return SGD(settings, lr=phase.lr, momentum=phase.momentum, nesterov=phase.momentum > 0, fused=fused)
        case "rmsprop":
            return RMSprop(settings, momentum=phase.momentum)
        case unknown:
            assert_never(unknown)


@torch.no_grad()
def step(optimizer: Optimizer) -> None:
    """Update the parameters from their gradients, as the optimizer's own method does without what is wrapped around it.

    That runs hooks, of which there are none, and imports PyTorch's compiler, which takes 0.6 to 1.6 s.
    """
    unwrap(type(optimizer).step)(optimizer)


def set_lr(optimizer: Optimizer, factor: float) -> None:
    """Set the learning rate of every parameter group to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def move_state(optimizer: Optimizer, other: Optimizer) -> None:
    """Give another optimizer, over some of the same parameters, the state of these."""
    for group in other.param_groups:
        for parameter in group["params"]:
            if parameter in optimizer.state:
                other.state[parameter] = optimizer.state[parameter]


def state_tensors(optimizer: Optimizer, parameters: Sequence[Trainable]) -> dict[str, Tensor]:
    """The optimizer's state as flat tensors `name/key`, for a checkpoint."""
    return {
        f"{name}/{key}": torch.as_tensor(value)
        for name, parameter, _ in parameters
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


@torch.no_grad()
def load_state_tensors(optimizer: Optimizer, parameters: Sequence[Trainable], tensors: dict[str, Tensor]) -> None:
    """Put the tensors of `state_tensors` into an optimizer over the same parameters."""
    by_name = {name: parameter for name, parameter, _ in parameters}
    for key, tensor in tensors.items():
        name, _, slot = key.rpartition("/")
        parameter = by_name[name]
        if slot == "step":
            # Where a new optimizer has it: a fused one reads it on the device.
            is_fused = any(group["fused"] for group in optimizer.param_groups if "fused" in group)
            optimizer.state[parameter][slot] = tensor.to(parameter.device if is_fused else "cpu")
        else:
            # In the memory layout of the parameter, as the optimizer itself has it: mixed layouts take a slower path.
            optimizer.state[parameter][slot] = torch.empty_like(parameter).copy_(tensor)
