"""Cross-validated heads: the same minimum as scikit-learn's, whatever is fitted together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from thaw.recipe import Task
from thaw.selection import logistic
from thaw.selection.logistic import PENALTIES, Design, Labels, out_of_fold, predicted_seconds
from thaw.selection.sample import MANY_CLASSES


def blobs(images: int, width: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes (N, W) float32 with their labels."""
    rng = np.random.default_rng(seed)
    targets = np.arange(images) % classes
    centres = rng.normal(size=(classes, width))
    features = centres[targets] + rng.normal(scale=3.0, size=(images, width))
    return ((features - features.mean(axis=0)) / features.std(axis=0)).astype(np.float32), targets


def design(*views: np.ndarray) -> Design:
    return Design(torch.from_numpy(np.concatenate(views)), len(views))


@pytest.mark.parametrize("width", [6, 200])
def test_each_image_is_predicted_as_by_scikit_learn_without_its_fold(width: int) -> None:
    features, targets = blobs(90, width, 3)
    folds = np.arange(90) // 3 % 3
    found = out_of_fold(design(features), Labels(targets, folds, 3, "multiclass"), penalties=(0.1,))
    for fold in range(3):
        trained = folds != fold
        model = LogisticRegression(C=1 / (0.1 * trained.sum()), tol=1e-8, max_iter=2000)
        expected = model.fit(features[trained], targets[trained]).predict_proba(features[~trained])
        np.testing.assert_allclose(found[~trained], expected, atol=2e-3)


def test_class_weights_are_those_of_scikit_learn() -> None:
    features, targets = blobs(120, 5, 3)
    targets = np.where(targets == 2, (np.arange(120) % 12 == 2) * 2, targets)
    folds, weights = np.arange(120) // 12 % 2, np.array([0.5, 1.0, 4.0])
    found = out_of_fold(design(features), Labels(targets, folds, 3, "multiclass", weights), penalties=(0.05,))
    trained = folds != 0
    total = weights[targets[trained]].sum()
    model = LogisticRegression(C=1 / (0.05 * total), class_weight=dict(enumerate(weights)), tol=1e-8, max_iter=2000)
    expected = model.fit(features[trained], targets[trained]).predict_proba(features[~trained])
    np.testing.assert_allclose(found[~trained], expected, atol=2e-3)


def test_a_view_is_trained_on_but_never_tested() -> None:
    features, targets = blobs(60, 4, 2)
    labels = Labels(targets, np.arange(60) // 2 % 2, 2, "multiclass")
    noise = np.random.default_rng(1).normal(size=features.shape).astype(np.float32) * 5
    plain = out_of_fold(design(features), labels, penalties=(0.1,))
    with_same_view = out_of_fold(design(features, features), labels, penalties=(0.1,))
    with_noise = out_of_fold(design(features, noise), labels, penalties=(0.1,))
    np.testing.assert_allclose(with_same_view, plain, atol=2e-3)
    assert np.abs(with_noise - plain).max() > 0.05


def test_images_in_no_fold_train_and_are_not_predicted() -> None:
    features, targets = blobs(60, 40, 2)
    folds = np.where(np.arange(60) < 30, -1, np.arange(60) % 3)
    found = out_of_fold(design(features), Labels(targets, folds, 2, "multiclass"))
    assert np.isnan(found[:30]).all()
    assert ((found[30:].argmax(axis=1) == targets[30:]).mean()) > 0.5


def test_several_labels_have_a_sigmoid_each() -> None:
    features, _ = blobs(80, 3, 2)
    truth = np.stack([features[:, 0] > 0, features[:, 1] > 0.5], axis=1).astype(np.float32)
    found = out_of_fold(design(features), Labels(truth, np.arange(80) % 4, 2, "multilabel"))
    assert ((found > 0.5) == (truth > 0.5)).mean() > 0.9
    assert np.abs(found.sum(axis=1) - 1).max() > 0.2


def test_the_penalty_with_the_lowest_loss_is_taken() -> None:
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(60, 50)).astype(np.float32), np.arange(60) % 2
    labels = Labels(targets, np.arange(60) // 2 % 5, 2, "multiclass")
    # Nothing can be learned from noise, so the strongest penalty is best, and predicts the frequencies.
    np.testing.assert_allclose(out_of_fold(design(features), labels, penalties=(1e4, 1e-3)), 0.5, atol=0.01)


def test_progress_is_told_by_penalty_until_the_end() -> None:
    features, targets = blobs(60, 4, 2)
    told: list[tuple[int, int]] = []
    labels = Labels(targets, np.arange(60) // 2 % 2, 2, "multiclass")
    out_of_fold(design(features), labels, on_progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, len(PENALTIES)) and told[-1] == (len(PENALTIES), len(PENALTIES))
    assert told == sorted(told) and len(told) > 2


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_heads_of_more_classes_are_predicted_to_take_longer(task: Task) -> None:
    few, many = (predicted_seconds(400, 50, 1, classes, task) for classes in (4, 2000))
    assert 0 < 3 * few < many


@pytest.mark.parametrize(("classes", "threads"), [(MANY_CLASSES, 1), (MANY_CLASSES + 1, 2)])
def test_products_of_few_classes_are_computed_by_one_thread(
    classes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []
    monkeypatch.setattr(logistic._Problem, "solve", lambda *_: used.append(torch.get_num_threads()) or torch.ones(8, 1))
    monkeypatch.setattr(logistic._Problem, "loss", lambda *_: torch.ones(8))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        out_of_fold(design(np.zeros((8, 2), np.float32)), Labels(np.arange(8), np.arange(8) % 2, classes, "multiclass"))
    finally:
        torch.set_num_threads(before)
    assert used[0] == threads
