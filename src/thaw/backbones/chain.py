"""Finds the chain of blocks of a network by observing a forward pass, so that no architecture is listed by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from thaw.backbones.cuts import Block

_WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def chain_of(network: nn.Module, size: int) -> tuple[Block, ...]:
    """The blocks of a network in execution order, found by one forward pass.

    The children are taken in execution order, and `nn.Sequential` children are expanded; layers without weights join
    the previous block. The chain must give exactly the output of the network; otherwise the network becomes a single
    block, which can be cut only at the head and at the pixels.

    Args:
        network: The network, in eval mode.
        size: Side of the test image in pixels.
    """
    images = torch.linspace(-1.0, 1.0, 3 * size**2).reshape(1, 3, size, size)
    ran: list[str] = []
    hooks = [
        child.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, child in network.named_children()
    ]
    try:
        with torch.no_grad():
            features = network(images)
    finally:
        for hook in hooks:
            hook.remove()
    blocks = _grouped(_pieces(network, ran), network)
    outputs = _outputs(network, blocks, images) if len(set(ran)) == len(ran) else []
    if outputs and torch.equal(outputs[-1], features):
        shapes = [tuple(output.shape[1:]) for output in outputs]
        return tuple(replace(block, shape=shape) for block, shape in zip(blocks, shapes, strict=True))
    return (Block("network", ("",)),)


def _pieces(network: nn.Module, ran: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, stage) of each piece: members of an `nn.Sequential`, or whole children.

    A Sequential is a stage if there are others with the same kind of block (`layer1` to `layer4`), and a list of stages
    if it is the only one of its kind (`stages`, `features`).
    """
    kinds = Counter(_kind(network.get_submodule(name)) for name in ran)
    for name in ran:
        child = network.get_submodule(name)
        if not _is_sequence(child):
            yield name, name
            continue
        alone = kinds[_kind(child)] == 1
        for key, member in child.named_children():
            path = f"{name}.{key}"
            if _is_sequence(member):
                yield from ((leaf, path) for leaf in _leaves(member, path))
            else:
                yield path, path if alone else name


def _leaves(module: nn.Module, name: str) -> Iterator[str]:
    if not _is_sequence(module):
        yield name
        return
    for key, member in module.named_children():
        yield from _leaves(member, f"{name}.{key}")


def _is_sequence(module: nn.Module) -> bool:
    return type(module).forward is nn.Sequential.forward and any(True for _ in module.children())


def _kind(module: nn.Module) -> type[nn.Module] | None:
    """For a Sequential, the type of its first member with weights."""
    if not _is_sequence(module):
        return None
    return next((type(member) for member in module.children() if _has_weights(member)), None)


def _grouped(pieces: Iterator[tuple[str, str]], network: nn.Module) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for name, stage in pieces:
        opens_a_stage = stage != name and bool(blocks) and blocks[-1].stage != stage
        if blocks and not opens_a_stage and not _has_weights(network.get_submodule(name)):
            blocks[-1] = replace(blocks[-1], modules=(*blocks[-1].modules, name))
        else:
            blocks.append(Block(stage, (name,)))
    return tuple(blocks)


def _has_weights(module: nn.Module) -> bool:
    return any(isinstance(child, _WEIGHTED) for child in module.modules())


def _outputs(network: nn.Module, blocks: tuple[Block, ...], images: Tensor) -> list[Tensor]:
    """The output of each block when they run in order; empty where they cannot."""
    values = [images]
    try:
        with torch.no_grad():
            for block in blocks:
                value = values[-1]
                for name in block.modules:
                    value = network.get_submodule(name)(value)
                values.append(value)
    # A module with an input meant for another one raises arbitrary exceptions; each means that this is not a chain.
    except Exception:
        return []
    return values[1:] if all(isinstance(value, Tensor) for value in values) else []
