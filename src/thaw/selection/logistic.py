"""Cross-validated logistic regression: the heads of all folds are fitted together, in a few matrix products.

The problems of the folds are independent, but share their features: one product with the features serves all of them,
which takes little longer than one fold alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thaw.device import threads_restored, use_threads
from thaw.progress import OnProgress
from thaw.recipe import Task
from thaw.selection.sample import MANY_CLASSES
from thaw.training.head_solver import history_size

PENALTIES = (1.0, 0.1, 0.01, 0.001)
"""L2 penalties that are tried, from strong to weak; each solution is the starting point of the next."""

_MAX_ITERATIONS = 40

_EVALUATIONS = 60
"""Of the objective, for all penalties: 50 for 100 synthetic classes."""

_TIMED_FRACTION = 1 / 8
"""Of the images, on which an evaluation is timed."""

_TOLERANCE = 1e-6
"""Change of the objective, as a fraction of its minimum for the stronger penalty before, below which it is solved."""

_CURVATURE = 0.005
"""Second derivative of the loss for one image with respect to one logit, roughly: p (1 - p) of a confident head."""


@dataclass(frozen=True)
class Design:
    """Features of N images in V views, as rows of one matrix in the order of the views.

    matrix: (V * N, D) float32; the first N rows are the plain view, on which heads are tested.
    """

    matrix: Tensor
    views: int

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.matrix) // self.views


@dataclass(frozen=True)
class Labels:
    """What heads are fitted to.

    targets: (N,) int64, or (N, C) float32 of 0 and 1 for several labels each. folds: (N,) int, the fold in which an
    image is tested, -1 for one that only trains. weights: (C,) weight of each class in training, for several labels of
    its positives; `None` for equal weights.
    """

    targets: np.ndarray
    folds: np.ndarray
    classes: int
    task: Task
    weights: np.ndarray | None = None


def out_of_fold(
    design: Design,
    labels: Labels,
    penalties: tuple[float, ...] = PENALTIES,
    on_progress: OnProgress = lambda done, total: None,
) -> np.ndarray:
    """Probabilities (N, C) float32 of each image by a head that was fitted without its fold.

    Of the penalties the one with the lowest loss over all tested images is taken, the same for every fold. Images
    that are in no fold have NaN.
    """
    tested = torch.from_numpy(labels.folds >= 0)
    with _threads_for(labels.classes):
        return _best_penalty(_Problem(design, labels), tested, penalties, on_progress)


def predicted_seconds(images: int, width: int, folds: int, classes: int, task: Task) -> float:
    """What `out_of_fold` should take for the heads of some folds, by an evaluation on random features of a few images.

    Args:
        images, width: Rows and columns of the features.
        folds: How many are tested.
        classes, task: What the heads tell apart.
    """
    timed = max(folds + 1, round(_TIMED_FRACTION * images))
    random = np.random.default_rng(0)
    labelled = random.integers(classes, size=timed)
    targets = np.eye(classes, dtype=np.float32)[labelled] if task == "multilabel" else labelled
    design = Design(torch.randn(timed, width, generator=torch.Generator().manual_seed(0)), 1)
    with _threads_for(classes):
        problem = _Problem(design, Labels(targets, np.arange(timed) % (folds + 1) - 1, classes, task))
        return _EVALUATIONS * images / timed * min(problem.seconds_of_evaluation() for _ in range(2))


@contextmanager
def _threads_for(classes: int) -> Iterator[None]:
    """One thread for small products, which take longer on several threads that wait for each other."""
    with threads_restored():
        if classes <= MANY_CLASSES:
            use_threads(1)
        yield


def _best_penalty(
    problem: _Problem, tested: Tensor, penalties: tuple[float, ...], on_progress: OnProgress
) -> np.ndarray:
    best, lowest = None, float("inf")
    for number, penalty in enumerate(penalties):
        on_progress(number, len(penalties))
        probabilities = problem.solve(penalty)
        loss = float(problem.loss(probabilities)[tested].mean())
        if loss < lowest:
            best, lowest = probabilities, loss
        else:
            break
    assert best is not None
    on_progress(len(penalties), len(penalties))
    return torch.where(tested[:, None], best, torch.nan).numpy()


class _Problem:
    """The heads of all folds: weights (D, F * C) and biases (F * C), fitted by L-BFGS."""

    def __init__(self, design: Design, labels: Labels) -> None:
        self._design, self._task, self._classes = design, labels.task, labels.classes
        folds = torch.from_numpy(labels.folds)
        self._folds, self._count = folds, int(folds.max()) + 1
        targets = torch.from_numpy(labels.targets)
        if labels.task != "multilabel":
            targets = torch.nn.functional.one_hot(targets, labels.classes).float()
        self._targets = targets
        of_class = torch.ones(labels.classes) if labels.weights is None else torch.from_numpy(labels.weights).float()
        self._positive = of_class
        trains = (folds[:, None] != torch.arange(self._count)).float()
        weights = trains if labels.task == "multilabel" else trains * (targets @ of_class)[:, None]
        weights = (weights / weights.sum(dim=0)).repeat(design.views, 1) / design.views
        # (V * N, F, 1): the weight of each row in the problem of each fold.
        self._weights = weights[:, :, None]
        self._view_targets = targets.repeat(design.views, 1)[:, None, :]
        # That of heads which know nothing.
        self._value = torch.tensor(self._count * math.log(2 if labels.task == "multilabel" else labels.classes))
        self._squares = design.matrix.square().mean(dim=0)
        columns = self._count * labels.classes
        self._parameters = torch.zeros(design.matrix.shape[1] + 1, columns)

    def solve(self, penalty: float) -> Tensor:
        """Probabilities (N, C) of each image by the head of its fold, at the minimum for a penalty.

        In units in which the objective is about as curved along every direction. Probabilities of four data sets
        (MobileNetV2) then differ from those at the minimum by 0.0001 to 0.001 on average, in 0.65 to 1.1 times the time
        in which they differ by 0.001 to 0.010 without.
        """
        units = self._units(penalty)
        scaled = (self._parameters / units).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [scaled],
            max_iter=_MAX_ITERATIONS,
            tolerance_grad=1e-5,
            tolerance_change=_TOLERANCE * float(self._value),
            history_size=history_size(scaled.numel()),
            line_search_fn="strong_wolfe",
        )

        def objective() -> Tensor:
            self._value, gradient = self._value_and_gradient(scaled.detach() * units, penalty)
            scaled.grad = gradient * units
            return self._value

        optimizer.step(objective)
        self._parameters = scaled.detach() * units
        return self._tested()

    def seconds_of_evaluation(self) -> float:
        """What the objective and its gradient take once."""
        started = time.perf_counter()
        self._value_and_gradient(self._parameters, PENALTIES[0])
        return time.perf_counter() - started

    def _units(self, penalty: float) -> Tensor:
        """What weights and biases (D + 1, 1) are measured in: the inverse root of the curvature along each."""
        curvatures = torch.cat([_CURVATURE * self._squares + penalty, torch.tensor([_CURVATURE])])
        return curvatures.rsqrt()[:, None]

    def loss(self, probabilities: Tensor) -> Tensor:
        """Negative log-likelihood (N,) of the targets, with the weights of the classes."""
        logs = probabilities.clamp_min(1e-12).log()
        if self._task == "multilabel":
            others = (1 - probabilities).clamp_min(1e-12).log()
            return -(self._positive * self._targets * logs + (1 - self._targets) * others).mean(dim=1)
        return -(self._positive * self._targets * logs).sum(dim=1)

    def _value_and_gradient(self, parameters: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        """The sum of the objectives of all folds, and its gradient; autograd takes twice as long."""
        matrix, weight = self._design.matrix, parameters[:-1]
        logits = (matrix @ weight + parameters[-1]).view(len(matrix), self._count, self._classes)
        if self._task == "multilabel":
            scale = self._positive * self._view_targets + (1 - self._view_targets)
            losses = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, self._view_targets.expand_as(logits), reduction="none"
            )
            rows = self._weights / self._classes
            value = (losses * scale * rows).sum()
            residual = (logits.sigmoid() - self._view_targets) * scale * rows
        else:
            logs = logits.log_softmax(dim=2)
            value = -(logs * self._view_targets * self._weights).sum()
            residual = (logs.exp() - self._view_targets) * self._weights
        flat = residual.flatten(1)
        gradient = torch.cat([matrix.T @ flat + penalty * weight, flat.sum(dim=0, keepdim=True)])
        return value + penalty / 2 * weight.square().sum(), gradient

    def _tested(self) -> Tensor:
        """Probabilities (N, C) of the plain view of each image by the head of its fold."""
        matrix = self._design.matrix[: self._design.images]
        logits = (matrix @ self._parameters[:-1] + self._parameters[-1]).view(len(matrix), self._count, self._classes)
        own = logits[torch.arange(len(matrix)), self._folds.clamp_min(0)]
        return own.sigmoid() if self._task == "multilabel" else own.softmax(dim=1)
