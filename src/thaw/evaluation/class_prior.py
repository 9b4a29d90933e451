"""From the class frequencies that training pretended to those of the data.

Class weights train a classifier as if the classes had other frequencies, so its probabilities are those of another
world: a rare class with ten times the weight gets about ten times the odds. The prior of the data is put back (Saerens
et al. 2002; Elkan 2001), so that probabilities are true again, and the weights move to the decision, as the costs of
missing each class. The predicted labels stay what training made them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from thaw.classifier.decision import Decision
from thaw.evaluation.thresholds import WEIGHTS
from thaw.recipe import ClassWeights, Task


def logit_shift(weights: np.ndarray, task: Task) -> Tensor:
    """What to add to the logits (outputs,) of a classifier trained with class weights (C,)."""
    logs = torch.from_numpy(np.log(weights.astype(np.float64)))
    return (logs[:1] - logs[1:]) if task == "binary" else -logs


def without_weights(probabilities: np.ndarray, weights: np.ndarray, task: Task) -> np.ndarray:
    """Probabilities (N, C) as `logit_shift` makes them."""
    if task == "multilabel":
        odds = probabilities / weights
        return np.asarray(odds / (odds + 1.0 - probabilities))
    scaled = probabilities / weights
    return np.asarray(scaled / scaled.sum(axis=1, keepdims=True))


def weighted_decision(weights: np.ndarray, task: Task, kind: ClassWeights, temperature: float = 1.0) -> Decision:
    """The decision by which labels are those of a classifier trained with class weights (C,).

    Missing an image of a class costs its weight, which is what training minimised; a label of several is predicted from
    the probability at which its odds times its weight are even. A temperature divides the logits after the weights were
    undone, so it takes the root of what they move too.

    Args:
        weights: (C,) each class's.
        task: Multiclass, binary or multilabel.
        kind: Of the weights, for display.
        temperature: What the logits without the weights were divided by.
    """
    weights = weights.astype(np.float64) ** (1.0 / temperature)
    reason = f"{WEIGHTS}, with {kind} weights"
    if task == "multilabel":
        thresholds = tuple((index, float(1.0 / (1.0 + weight))) for index, weight in enumerate(weights))
        return Decision(thresholds, reason=reason)
    costs = np.where(np.eye(len(weights), dtype=bool), 0.0, weights[:, None])
    return Decision(costs=tuple(tuple(float(cost) for cost in row) for row in costs), reason=reason)
