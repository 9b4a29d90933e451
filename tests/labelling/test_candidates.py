import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.data.manifest import Manifest, new_table
from thaw.labelling.candidates import Candidates, find_candidates, not_seen


def manifest(*rows: tuple[str, str, str]) -> Manifest:
    """Rows of (path, label or "", digest or "" for an unreadable file)."""
    paths, labels, digests = zip(*rows, strict=True)
    table = new_table(paths, [[label] if label else [] for label in labels])
    whole = Manifest(table, ("a", "b"), "multiclass", None)  # type: ignore[arg-type]
    return whole.with_columns(
        {
            "sha256": list(digests),
            "status": ["ok" if digest else "error" for digest in digests],
            "reason": [None if digest else "truncated" for digest in digests],
        }
    )


def test_near_duplicates_of_a_labelled_image_and_of_each_other_are_not_asked_for() -> None:
    images = manifest(("0", "a", "9"), ("1", "", "5"), ("2", "", "4"), ("3", "", "3"), ("4", "", "2"))
    found = find_candidates(images, [(0, 1), (3, 4)])
    # Of two that are near-duplicates of each other the content decides, not the name.
    assert (found.labelled, found.waiting, found.duplicates) == ((0,), (4, 2), 2)


@pytest.mark.parametrize("digests", ["12", "21"])
def test_a_near_duplicate_of_an_excluded_image_is_asked_for(digests: str) -> None:
    images = manifest(("0", "", digests[0]), ("1", "", digests[1]), ("2", "a", "3"))
    found = find_candidates(images, [(0, 1)], excluded={0})
    assert (found.labelled, found.waiting, found.duplicates) == ((2,), (1,), 0)


@given(st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)))
def test_of_identical_images_one_label_is_enough_whichever_has_it(labelled: set[int], near: set[int]) -> None:
    # Each is paired only with the first one, as `find_duplicates` does; others are near-duplicates of some of them.
    images = manifest(*((f"{row}", "a" if row in labelled else "", "9") for row in range(8)), ("8", "", "5"))
    found = find_candidates(images, [(0, row) for row in range(1, 8)] + [(row, 8) for row in sorted(near)])
    identical = [row for row in found.waiting if row < 8]
    assert set(found.labelled) == labelled and (8 in found.waiting) == (not near or not labelled)
    assert len(identical) == (not labelled and not near)
    assert len(found.labelled) + len(found.waiting) + found.duplicates == 9


def test_unreadable_images_and_conflicting_labels_are_errors() -> None:
    images = manifest(
        ("x.png", "a", "1"), ("y.png", "b", "1"), ("z.png", "", "1"), ("w.png", "", ""), ("v.png", "a", "2")
    )
    found = find_candidates(images, [(0, 1), (0, 2), (1, 2)])
    assert {failed.path: failed.error for failed in found.errors} == {
        "x.png": "conflicting labels: a here, b for y.png with equal bytes",
        "y.png": "conflicting labels: b here, a for x.png with equal bytes",
        "w.png": "truncated",
    }
    assert found.labelled == (4,) and found.waiting == () and found.duplicates == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12), st.sets(st.integers(0, 9)))
def test_every_row_is_labelled_or_waiting_or_paired_with_one(pairs: list[tuple[int, int]], labelled: set[int]) -> None:
    pairs = [pair for pair in pairs if pair[0] != pair[1]]
    waiting = not_seen(range(10), sorted(labelled), pairs)
    kept = labelled | set(waiting)
    near = {frozenset(pair) for pair in pairs}
    assert not labelled & set(waiting)
    assert not any(frozenset((one, other)) in near for one in waiting for other in kept)
    assert all(any(frozenset((row, other)) in near for other in kept) for row in set(range(10)) - kept)


@given(st.permutations(range(6)))
def test_candidates_do_not_depend_on_the_order_of_files(order: list[int]) -> None:
    rows = [(f"{number}.png", "a" if number < 2 else "", str(number)) for number in range(6)]
    pairs = [(0, 3), (4, 5)]

    def names(shuffled: list[int]) -> tuple[list[str], list[str]]:
        images = manifest(*(rows[number] for number in shuffled))
        where = {number: row for row, number in enumerate(shuffled)}
        found: Candidates = find_candidates(images, [(where[one], where[other]) for one, other in pairs])
        paths = np.array(images.column("path"))
        return paths[list(found.labelled)].tolist(), paths[list(found.waiting)].tolist()

    assert names(order) == names(list(range(6)))
