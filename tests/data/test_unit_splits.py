import numpy as np
import pytest

from tests.data.test_split import Row, manifest
from thaw.data.split import assign
from thaw.data.unit_splits import MIN_UNITS
from thaw.errors import DataError
from thaw.recipe import SplitSettings


def rare_together(seed: int) -> list[Row]:
    """Sixty images, of which the first ten have up to four labels, each on four or five of them."""
    rng, labels = np.random.default_rng(seed), [""] * 60
    for name in "abcd":
        for image in rng.choice(10, rng.integers(4, 6), replace=False):
            labels[image] = f"{labels[image]}|{name}"
    return [(f"{seed}-{number}.png", names, {}) for number, names in enumerate(labels)]


def test_labels_that_are_rare_and_on_the_same_images_are_in_every_split() -> None:
    for seed in range(60):
        data, settings = manifest(rare_together(seed), "multilabel"), SplitSettings(seed=seed)
        assigned = assign(data, settings).manifest
        for name, found in assigned.counts().items():
            assert all(found[split] >= least for split, least in MIN_UNITS.items()), f"{name} with seed {seed}: {found}"
        assert assigned.column("split") == assign(data, settings).manifest.column("split")


def test_the_order_of_the_rows_does_not_matter_to_labels_on_the_same_images() -> None:
    for seed in range(20):
        rows = rare_together(seed)
        one, other = (
            assign(manifest(each, "multilabel"), SplitSettings(seed=seed)).manifest for each in (rows, rows[::-1])
        )
        assert one.column("split") == other.column("split")[::-1]


def test_images_that_cannot_give_every_split_each_of_their_labels_are_refused_for_that() -> None:
    """Four images have each label, so that val and test need one of each, which two of the images never are."""
    pairs = ["a|b", "a|b", "a|c", "a|c", "b|c", "b|c"]
    rows: list[Row] = [(f"{number}.png", labels, {}) for number, labels in enumerate([*pairs, *["d"] * 40])]
    with pytest.raises(DataError, match=r"available for .*: other labels of the same images, groups, identical files"):
        assign(manifest(rows, "multilabel"), SplitSettings())
