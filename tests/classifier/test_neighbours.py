import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity

from thaw.classifier import neighbours
from thaw.classifier.neighbours import nearest


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 8), st.integers(1, 6), st.integers(0, 10**6))
@settings(max_examples=50)
def test_neighbours_equal_those_of_the_whole_similarity_matrix(
    queries: int, rows: int, width: int, k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    features, train_features = rng.normal(size=(queries, width)), rng.normal(size=(rows, width))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "_QUERIES", 7)
        patch.setattr(neighbours, "_REFERENCE_ROWS", 5)
        indices, similarities = nearest(features, train_features, k)
    table = cosine_similarity(features, train_features)
    best = -np.sort(-table, axis=1)[:, :k]
    np.testing.assert_allclose(similarities, best, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(table, indices, axis=1), best, atol=1e-5)


def test_length_is_ignored_and_ties_are_in_row_order() -> None:
    train_features = np.array([[0, 2], [3, 0], [30, 0], [0, 0], [-1, 0]], dtype=np.float16)
    indices, similarities = nearest(np.array([[0.5, 0.0]], dtype=np.float32), train_features, 5)
    assert indices.tolist() == [[1, 2, 0, 3, 4]]
    assert similarities.tolist() == [[1, 1, 0, 0, -1]]


def test_fewer_reference_rows_than_k_are_all_returned() -> None:
    indices, similarities = nearest(np.ones((3, 4)), np.ones((2, 4)), 5)
    assert indices.shape == similarities.shape == (3, 2)
    assert nearest(np.ones((0, 4)), np.ones((2, 4)), 1)[0].shape == (0, 1)
