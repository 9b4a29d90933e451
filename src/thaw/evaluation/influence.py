"""Which training images a prediction comes from: influence functions of a linear head (Koh and Liang 2017).

By how much would the logit of a class be lower without one training image? For a softmax head at the minimum of its
cross-entropy with an L2 penalty, one Newton step says it without another fit: the gradient of the loss of the image,
times the inverse of the Hessian, times the gradient of the logit (https://arxiv.org/abs/1703.04730). The Hessian is
never built; one system of equations, solved by conjugate gradients, serves all training images.

It assumes a head at its minimum on fixed features. So a head is fitted to the features that the network of a run gives
in the end, with the penalty at which it predicts most like the run; what training images did to these features is not
counted. Representer points (Yeh et al. 2018, https://arxiv.org/abs/1811.09720) need no Hessian, but leave out that the
other images make up for the one that is missing: on synthetic features their rank correlation with refits without each
image was 0.4 to 0.9, and that of influence functions 0.97 to 1 (tests/evaluation/test_influence.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Strengths of the L2 penalty that are tried, of `mean loss + penalty / 2 * |weights|^2`."""

_MAX_FIT_ITERATIONS, _FIT_TOLERANCE = 1000, 1e-6
_MAX_STEPS, _STEP_TOLERANCE = 500, 1e-4


@dataclass(frozen=True)
class Space:
    """What is done to features before a head takes them: they are standardised, in the span of the training images.

    Attributes:
        mean, scale: (D,) What is subtracted from them, and what they are divided by.
        basis: (S, D) Orthonormal rows.
    """

    mean: np.ndarray
    scale: np.ndarray
    basis: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(M, S + 1), with a last column of ones for the bias, of features (M, D)."""
        inside = ((features - self.mean) / self.scale) @ self.basis.T
        return np.hstack([inside, np.ones((len(features), 1))])


@dataclass(frozen=True)
class InfluenceHead:
    """A softmax head at the minimum of its penalised loss, and its training images.

    Attributes:
        space: What is done to features before.
        inputs: (N, S + 1) Training images as the head takes them.
        given: (N, K) The probabilities that it gives them.
        residuals: (N, K) 1 for the label of each, 0 for other classes, less these probabilities.
        weights: (K, S + 1) Weights, and the bias in the last column.
        present: (K,) bool: of which classes there are training images.
        penalty: Strength of the L2 penalty on the weights.
    """

    space: Space
    inputs: np.ndarray
    given: np.ndarray
    residuals: np.ndarray
    weights: np.ndarray
    present: np.ndarray
    penalty: float

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Probabilities (M, K) of images by their features (M, D)."""
        return _softmax(np.where(self.present, self.space(features) @ self.weights.T, -np.inf))

    def influences(self, features: np.ndarray, label: int) -> np.ndarray:
        """(N,) By how much the logit of a class would be lower without each training image, to first order.

        Args:
            features: (D,) of the image whose logit it is, which is measured from the mean over the classes.
            label: A class that has training images.
        """
        (taken,) = self.space(features[None])
        direction = np.where(self.present, -1 / self.present.sum(), 0.0)
        direction[label] += 1
        solved = self._solve(np.outer(direction, taken))
        moved: np.ndarray = (self.residuals * (self.inputs @ solved.T)).sum(axis=1) / len(self.inputs)
        return moved

    def _solve(self, wanted: np.ndarray) -> np.ndarray:
        """The vector (K, S + 1) that the Hessian maps to another one, by conjugate gradients."""
        found, residual = np.zeros_like(wanted), wanted.copy()
        step, size = residual.copy(), float((residual**2).sum())
        goal = _STEP_TOLERANCE**2 * size
        for _ in range(_MAX_STEPS):
            if size <= goal:
                break
            image = self._times_hessian(step)
            length = size / float((step * image).sum())
            found += length * step
            residual -= length * image
            size, before = float((residual**2).sum()), size
            step = residual + size / before * step
        return found

    def _times_hessian(self, vector: np.ndarray) -> np.ndarray:
        """The Hessian of the penalised mean loss times a vector, both (K, S + 1)."""
        logits = self.inputs @ vector.T
        change = self.given * (logits - (self.given * logits).sum(axis=1, keepdims=True))
        product: np.ndarray = change.T @ self.inputs / len(self.inputs)
        product[:, :-1] += self.penalty * vector[:, :-1]
        return product


def most_similar(
    features: np.ndarray,
    classes: np.ndarray,
    evaluated: np.ndarray,
    probabilities: np.ndarray,
    penalties: Sequence[float] = PENALTIES,
) -> InfluenceHead:
    """The head that predicts most like a classifier, of those with several penalties.

    Args:
        features: (N, D) of the training images.
        classes: (N,) int, their labels, of at least two classes.
        evaluated: (M, D) features of other images.
        probabilities: (M, K) What the classifier gives them.
        penalties: What is tried.
    """
    space, number = space_of(features), probabilities.shape[1]
    heads = (fit_head(space, features, classes, number, penalty) for penalty in penalties)
    return min(heads, key=lambda head: _cross_entropy(probabilities, head.probabilities(evaluated)))


def space_of(features: np.ndarray) -> Space:
    """The space of training images by their features (N, D)."""
    mean, deviation = features.mean(axis=0, dtype=float), features.std(axis=0, dtype=float)
    # By the square root of their number as well, so that a penalty means the same for every width.
    scale = np.where(deviation > 0, deviation, 1) * np.sqrt(features.shape[1])
    if len(features) >= features.shape[1]:
        return Space(mean, scale, np.eye(features.shape[1]))
    _, _, basis = np.linalg.svd((features - mean) / scale, full_matrices=False)
    return Space(mean, scale, basis)


def fit_head(space: Space, features: np.ndarray, classes: np.ndarray, number: int, penalty: float) -> InfluenceHead:
    """Fit a head to training images.

    Args:
        space: Theirs, from `space_of`.
        features: (N, D) float, pooled.
        classes: (N,) int; at least two classes have images.
        number: How many classes there are.
        penalty: Strength of the L2 penalty on the weights; biases are not penalised.
    """
    from sklearn.linear_model import LogisticRegression

    inputs, known = space(features), np.unique(classes)
    # For two classes scikit-learn penalises the difference of their weights.
    strength = (2 if len(known) == 2 else 1) / (penalty * len(inputs))
    model = LogisticRegression(C=strength, max_iter=_MAX_FIT_ITERATIONS, tol=_FIT_TOLERANCE)
    model.fit(inputs[:, :-1], classes)
    fitted = np.hstack([model.coef_, model.intercept_[:, None]])
    weights, present = np.zeros((number, inputs.shape[1])), np.isin(np.arange(number), known)
    weights[known] = np.vstack([-fitted / 2, fitted / 2]) if len(known) == 2 else fitted
    given = _softmax(np.where(present, inputs @ weights.T, -np.inf))
    return InfluenceHead(space, inputs, given, np.eye(number)[classes] - given, weights, present, penalty)


def _cross_entropy(wanted: np.ndarray, given: np.ndarray) -> float:
    return float(-(wanted * np.log(np.maximum(given, 1e-12))).sum(axis=1).mean())


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = exponents / exponents.sum(axis=1, keepdims=True)
    return probabilities
