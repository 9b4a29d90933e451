"""The order in which labelling images helps most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from thaw.labelling.head import fit_head, standardised
from thaw.labelling.pool import Choice, Pool
from thaw.labelling.strategy import Strategy, choose_strategy
from thaw.labelling.typicality import choose_typical
from thaw.labelling.uncertainty import choose_uncertain

_FIRST_ROUND = 10
"""Typical images that are chosen at once; each further round doubles the queue, whose every start is diverse then."""


@dataclass(frozen=True)
class Order:
    """Images to label, in order.

    Attributes:
        choices: Positions in the pool, with their clusters.
        strategy: Which were chosen, and why.
        suggested, confidence: (N,) the most likely class of each image of the pool and its probability, by a linear
            head; `None` with labels of fewer than two classes.
    """

    choices: Sequence[Choice]
    strategy: Strategy
    suggested: np.ndarray | None = None
    confidence: np.ndarray | None = None


def order_images(pool: Pool, number: int, strategy: Strategy | None = None) -> Order:
    """Choose images to label.

    Args:
        pool: The images with the labels so far.
        number: How many are wanted; there are fewer where fewer have no label.
        strategy: Which are chosen; `None` measures it on the labels.
    """
    number, values = min(number, len(pool.unlabelled)), standardised(pool.values)
    strategy = strategy or choose_strategy(values, pool)
    if len(pool.present) < 2:
        return Order(typical_images(pool, number), strategy)
    head = fit_head(values[pool.labelled], pool.classes[pool.labelled])
    probabilities = head.probabilities(values)
    if strategy.reason == "uncertain":
        choices = choose_uncertain(pool, probabilities, number)
    else:
        choices = typical_images(pool, number)
    suggested, confidence = head.classes[probabilities.argmax(axis=1)], probabilities.max(axis=1)
    return Order(choices, strategy, suggested, confidence)


def typical_images(pool: Pool, number: int) -> list[Choice]:
    """Typical images in rounds, each of which takes those before it as labelled."""
    chosen: list[Choice] = []
    while len(chosen) < number:
        more = choose_typical(pool, min(max(_FIRST_ROUND, len(chosen)), number - len(chosen)))
        offset = max((choice.cluster + 1 for choice in chosen), default=0)
        chosen += [replace(choice, cluster=offset + choice.cluster) for choice in more]
        # Which class they will have does not matter here.
        pool = pool.with_labels([choice.position for choice in more], np.zeros(len(more), int))
    return chosen
