"""When to stop: what more labels would give, estimated on the images without a label.

Cross-validation on the labels cannot tell: they are of the images that are hardest to classify. In one set of steel
surfaces 66% of 100 such labels were predicted right, but 96% of new images. So heads are fitted to random parts of the
labels, and it is counted for how many images of the whole pool their prediction differs from that of the head on all
labels. How many will still change follows from a power law in the number of labels, as for learning curves (Cortes et
al. 1993), and of those a fraction becomes right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thaw.formats import count, percent, points
from thaw.labelling.head import fit_head
from thaw.labelling.pool import Pool

MORE = 100
"""The labels that a gain is estimated for."""

_BECOMES_RIGHT = 0.25
"""The gain in accuracy as a fraction of the predictions that change, of which others change from right to wrong or from
wrong to wrong. Mean of 11 measurements with 50 to 200 labels of four sets, which are 0.11 to 0.61."""

_FEWEST = 20
"""Labels below which parts of them say nothing."""

_PARTS = (0.35, 0.5, 0.65, 0.8)
_REPEATS = 5
_EXPONENTS = np.linspace(0.1, 1.5, 29)


@dataclass(frozen=True)
class Outlook:
    """What `MORE` labels, or labels of all images that are left, would give, chosen like the ones before.

    Attributes:
        gain: What they are expected to add to the accuracy of a linear head, 0..1; `None` where there are too few
            labels to estimate it.
        changes: The fraction of the images whose prediction is expected to change, of which the gain is a part.
        sentence: The same for the user.
    """

    gain: float | None
    changes: float | None
    sentence: str


def look_ahead(values: np.ndarray, pool: Pool) -> Outlook | None:
    """Estimate what more labels would give; `None` where nothing is left to label.

    Args:
        values: (N, D) standardised features of the pool.
        pool: The images with the labels so far, of at least two classes.
    """
    labelled = pool.labelled
    more = min(MORE, len(pool.unlabelled))
    if more == 0:
        return None
    title = count(more, "more label")
    if len(labelled) < _FEWEST:
        return Outlook(None, None, f"{title}: cannot be estimated from {count(len(labelled), 'label')}")
    sizes, changed = _changes(values, pool)
    ratios = sizes / len(labelled)
    factor, exponent = _power_law(ratios, changed)
    changes = float(factor * (1 - (1 + more / len(labelled)) ** -exponent))
    gain = _BECOMES_RIGHT * changes
    would = "they would" if more > 1 else "it would"
    sentence = f"{title}: about {points(gain)} points ({would} change {percent(changes)} of predictions)"
    return Outlook(gain, changes, sentence)


def _changes(values: np.ndarray, pool: Pool) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of parts of the labels, and the fraction of all images that heads on them predict otherwise than on all."""
    rng, labelled, classes = np.random.default_rng(pool.seed), pool.labelled, pool.classes
    on_all = fit_head(values[labelled], classes[labelled]).predicted(values)
    sizes, changed = [], []
    for fraction in _PARTS:
        for _ in range(_REPEATS):
            part = np.concatenate(
                [_part(labelled[classes[labelled] == label], fraction, rng) for label in pool.present]
            )
            predicted = fit_head(values[part], classes[part]).predicted(values)
            sizes.append(len(part))
            changed.append((predicted != on_all).mean())
    return np.array(sizes, float), np.array(changed)


def _part(members: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """A random fraction of some images, at least one."""
    return rng.permutation(members)[: max(1, round(fraction * len(members)))]


def _power_law(ratios: np.ndarray, changed: np.ndarray) -> tuple[float, float]:
    """The factor b and exponent c of the least-squares b * (r^-c - 1), over a grid of exponents.

    With labels without end the fraction b of all predictions would change, so it is at most 1.
    """
    fits = []
    for exponent in _EXPONENTS:
        powers = ratios**-exponent - 1
        factor = min(float((powers * changed).sum() / max((powers**2).sum(), 1e-12)), 1.0)
        fits.append((float(((factor * powers - changed) ** 2).sum()), factor, float(exponent)))
    return min(fits)[1:]
