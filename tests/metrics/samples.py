import numpy as np

from thaw.classifier.decision import Decision
from thaw.metrics import Scored
from thaw.recipe import Task


def scored(images: int, classes: int, seed: int, task: Task = "multiclass", groups: np.ndarray | None = None) -> Scored:
    """Predictions that are better than random, with some tied probabilities."""
    rng = np.random.default_rng(seed)
    if task == "multilabel":
        truth = rng.random((images, classes)) < 0.4
        probabilities = np.clip(truth * 0.3 + rng.random((images, classes)) * 0.7, 0, 1).round(2)
    else:
        labels = rng.integers(classes, size=images)
        truth = labels[:, None] == np.arange(classes)
        probabilities = np.exp(rng.normal(size=(images, classes)) + 1.5 * truth).round(1) + 0.01
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return Scored(task, probabilities, truth, Decision().labels(probabilities, task), groups)


def targets_of(sample: Scored) -> np.ndarray:
    """Targets as in a manifest."""
    return sample.truth.astype(np.float32) if sample.task == "multilabel" else sample.truth.argmax(axis=1)
