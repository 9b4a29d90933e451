import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from thaw.data.decoding import Decoding
from thaw.data.geometry import PixelSpec
from thaw.data.manifest import SPLITS, Manifest, new_table
from thaw.data.pixel_store import PixelStore
from thaw.data.split import assign
from thaw.data.unit_splits import MIN_UNITS
from thaw.errors import DataError
from thaw.recipe import DecodeSettings, SplitSettings, Task

CLASSES = ("a", "b", "c")
USUAL = SplitSettings()
# A name, its labels as in a table ("a|b"), and other columns: group, split, status, or content (else its own).
Row = tuple[str, str, dict[str, Any]]


def digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def manifest(rows: Sequence[Row], task: Task = "multiclass") -> Manifest:
    """The manifest of decoded images, and its classes."""
    classes = sorted({label for _, labels, _ in rows for label in filter(None, labels.split("|"))})
    table = new_table(
        [name for name, _, _ in rows],
        [list(filter(None, labels.split("|"))) for _, labels, _ in rows],
        [others.get("split") for _, _, others in rows],
        [others.get("group") for _, _, others in rows],
    )
    found = {
        "status": [others.get("status", "ok") for _, _, others in rows],
        "sha256": [digest(others.get("content", name)) for name, _, others in rows],
    }
    return Manifest(table, tuple(classes), task, Path("/images")).with_columns(found)


def images(label: str, count: int, start: int = 0, **others: Any) -> list[Row]:
    """Images of one class, with distinct content."""
    return [(f"{label}/{number}.png", label, others) for number in range(start, start + count)]


def many() -> list[Row]:
    return [*images("a", 200), *images("b", 60), *images("c", 9)]


def splits(assigned: Manifest) -> dict[str, str | None]:
    """The split of each image by its name."""
    return dict(zip(assigned.column("path"), assigned.column("split"), strict=True))


def split_of(rows: Sequence[Row], seed: int = 0, previous: Manifest | None = None) -> dict[str, str | None]:
    return splits(assign(manifest(rows), SplitSettings(seed=seed), previous).manifest)


def fraction_kept(one: dict[str, str | None], other: dict[str, str | None]) -> float:
    """The fraction of common images whose split is the same."""
    both = one.keys() & other.keys()
    return sum(one[name] == other[name] for name in both) / len(both)


def test_every_image_gets_a_split_and_nothing_else_changes() -> None:
    rows = manifest(many())
    result = assign(rows, USUAL)
    assert set(result.manifest.column("split")) == set(SPLITS)
    assert result.manifest.table.drop_columns(["split"]).equals(rows.table.drop_columns(["split"]))
    assert result.notes == ()


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(4, 80), min_size=3, max_size=3),
    fraction=st.sampled_from([0.1, 0.15, 0.2, 0.3]),
    seed=st.integers(0, 1000),
)
def test_each_class_is_split_by_the_fractions(counts: list[int], fraction: float, seed: int) -> None:
    rows = [row for name, count in zip(CLASSES, counts, strict=True) for row in images(name, count)]
    assigned = assign(manifest(rows), SplitSettings(val=fraction, test=fraction, seed=seed)).manifest
    for name, count in zip(CLASSES, counts, strict=True):
        found, quota = assigned.counts()[name], fraction * count
        assert sum(found.values()) == count
        assert all(found[split] >= least for split, least in MIN_UNITS.items())
        assert all(abs(found[split] - quota) <= max(1.0, quota / 3) for split in ("val", "test"))


def test_without_a_test_fraction_there_is_no_test_split() -> None:
    assigned = assign(manifest([*images("a", 40), *images("b", 3)]), SplitSettings(test=0.0)).manifest
    assert assigned.counts()["a"]["test"] == 0
    assert assigned.counts()["b"] == {"train": 2, "val": 1, "test": 0}


def test_the_split_depends_on_the_seed() -> None:
    assert split_of(many(), seed=3) == split_of(many(), seed=3)
    assert fraction_kept(split_of(many(), seed=3), split_of(many(), seed=4)) < 0.9


def test_the_split_is_the_same_on_every_machine_and_in_every_version() -> None:
    """If this fails, everyone who trains without an earlier run gets another split."""
    found = split_of(images("a", 16))
    assert [name for name in found if found[name] == "val"] == ["a/3.png", "a/6.png", "a/12.png"]
    assert [name for name in found if found[name] == "test"] == ["a/7.png", "a/10.png", "a/13.png"]


@settings(max_examples=30, deadline=None)
@given(shuffled=st.permutations([*images("a", 15), *images("b", 6, group="g"), *images("b", 5, start=6)]))
def test_the_order_of_the_rows_does_not_matter(shuffled: list[Row]) -> None:
    assert split_of(shuffled) == split_of(sorted(shuffled, key=lambda row: row[0]))


def test_names_of_files_do_not_matter() -> None:
    renamed = [(f"new {name}", label, {"content": name}) for name, label, _ in many()]
    assert list(split_of(renamed).values()) == list(split_of(many()).values())


def test_an_unreadable_image_has_no_split_and_does_not_count() -> None:
    broken = images("a", 5, start=100, status="error")
    found = split_of([*images("a", 20), *broken])
    assert {found[name] for name, _, _ in broken} == {None}
    assert {name: split for name, split in found.items() if split} == split_of(images("a", 20))


@settings(max_examples=60, deadline=None)
@given(
    tied=st.lists(
        st.tuples(st.sampled_from(CLASSES), st.sampled_from([None, *range(6)]), st.integers(0, 25)), max_size=60
    ),
    seed=st.integers(0, 1000),
)
def test_groups_and_identical_files_stay_together(tied: list[tuple[str, int | None, int]], seed: int) -> None:
    rows = [row for name in CLASSES for row in images(name, 8)]
    for number, (label, group, content) in enumerate(tied):
        others = {"group": None if group is None else f"part {group}", "content": f"content {content}"}
        rows.append((f"tied {number}.png", label, others))
    try:
        assigned = assign(manifest(rows), SplitSettings(seed=seed)).manifest
    except DataError:
        assume(False)
    for column in ("group", "sha256"):
        together = defaultdict(set)
        for value, split in zip(assigned.column(column), assigned.column("split"), strict=True):
            together[value].add(split)
        assert all(len(found) == 1 for value, found in together.items() if value is not None)


def test_a_file_in_two_groups_merges_them() -> None:
    for seed in range(20):
        joined: list[Row] = [
            ("1.png", "a", {"group": "g"}),
            ("2.png", "a", {"group": "g", "content": "same"}),
            ("3.png", "a", {"group": "h", "content": "same"}),
            ("4.png", "a", {"group": "h"}),
        ]
        found = split_of([*images("a", 10), *joined], seed)
        assert len({found[f"{number}.png"] for number in range(1, 5)}) == 1


def test_identical_files_on_disk_stay_together(tmp_path: Path) -> None:
    names = []
    for number in range(12):
        image = Image.new("RGB", (4, 4), (number, 0, 0))
        for copy in "xy":
            names.append(f"{number}{copy}.png")
            image.save(tmp_path / names[-1])
    rows = Manifest(new_table(names, [["a"]] * len(names)), CLASSES[:1], "multiclass", tmp_path)
    spec = PixelSpec(32, 1.0, "squash", "bilinear")
    store = PixelStore.open_or_build(rows, Decoding(spec, DecodeSettings(), 2), tmp_path / "cache")
    found = splits(assign(store.describe(rows), USUAL).manifest)
    assert all(found[f"{number}x.png"] == found[f"{number}y.png"] for number in range(12))
    assert set(found.values()) == set(SPLITS)


def test_fractions_count_groups_not_images() -> None:
    rows = [row for part in range(20) for row in images("a", 1 + part, start=100 * part, group=f"part {part}")]
    assigned = assign(manifest(rows), SplitSettings(val=0.2, test=0.2)).manifest
    parts = Counter(dict(zip(assigned.column("group"), assigned.column("split"), strict=True)).values())
    assert abs(parts["val"] - 4) <= 4 / 3
    assert abs(parts["test"] - 4) <= 4 / 3


@pytest.mark.parametrize("seed", range(5))
def test_a_group_with_many_more_images_than_a_split_should_have_is_in_train(seed: int) -> None:
    rows = [row for part in range(12) for row in images("a", 10, start=100 * part, group=f"part {part}")]
    rows += images("a", 70, start=10_000, group="large")
    found = split_of([*rows, *images("b", 30)], seed)
    assert {found[f"a/{number}.png"] for number in range(10_000, 10_070)} == {"train"}
    assert set(found.values()) == set(SPLITS)


@pytest.mark.parametrize("seed", range(5))
def test_most_images_keep_their_split_when_others_are_added(seed: int) -> None:
    before = split_of(many(), seed)
    after = split_of([*many(), *images("a", 40, start=200), *images("b", 6, start=60), *images("c", 2, start=9)], seed)
    assert fraction_kept(before, after) > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_most_images_keep_their_split_when_others_are_removed(seed: int) -> None:
    assert fraction_kept(split_of(many(), seed), split_of(many()[20:], seed)) > 0.9


@settings(max_examples=30, deadline=None)
@given(before=st.integers(4, 20), added=st.integers(2, 30), removed=st.integers(0, 2), seed=st.integers(0, 99))
def test_images_of_an_earlier_run_keep_their_split(before: int, added: int, removed: int, seed: int) -> None:
    first = assign(manifest([*images("a", before), *images("b", 8)]), SplitSettings(seed=seed)).manifest
    found = split_of([*images("a", before + added)[removed:], *images("b", 8)], seed + 1, first)
    assert all(found[name] == split for name, split in splits(first).items() if name in found)
    assert set(found.values()) == set(SPLITS)


def test_images_added_to_an_earlier_run_restore_the_fractions() -> None:
    first = assign(manifest(images("a", 20)), USUAL).manifest
    assigned = assign(manifest(images("a", 200)), USUAL, first).manifest
    assert all(abs(assigned.counts()["a"][split] - 30) <= 10 for split in ("val", "test"))


def test_a_file_of_an_earlier_run_is_identified_by_its_content() -> None:
    first = assign(manifest(images("a", 30)), USUAL).manifest
    moved = [(f"moved {name}", label, {"content": name}) for name, label, _ in images("a", 30)]
    found = split_of(moved, 99, first)
    assert {name.removeprefix("moved "): split for name, split in found.items()} == splits(first)


def test_new_images_of_an_earlier_group_get_its_split() -> None:
    rows = [row for part in range(12) for row in images("a", 2, start=10 * part, group=f"part {part}")]
    first = assign(manifest(rows), USUAL).manifest
    more = [row for part in range(12) for row in images("a", 1, start=10 * part + 5, group=f"part {part}")]
    found = split_of([*rows, *more], 7, first)
    assert all(found[f"a/{10 * part + 5}.png"] == splits(first)[f"a/{10 * part}.png"] for part in range(12))


def test_images_that_belong_together_keep_the_different_splits_of_an_earlier_run_and_new_ones_are_in_train() -> None:
    first = assign(manifest([*images("a", 20), *images("b", 20)]), USUAL).manifest
    names = {split: path for path, split in splits(first).items() if path.startswith("a/")}
    rows = manifest([*images("a", 20), *images("b", 20), *images("a", 1, start=50)])
    paths = rows.column("path")
    new = paths.index("a/50.png")
    pairs = [(paths.index(names["test"]), new), (new, paths.index(names["train"]))]
    result = assign(rows, SplitSettings(seed=9), first, pairs)
    assert splits(result.manifest) == {**splits(first), "a/50.png": "train"}
    divided = "an earlier run has near-duplicates, or images of one group, in different splits"
    assert result.notes == (
        f"{divided}; images that keep their split: 2; new images among them, in train: 1",
        "leak: 1 near-duplicates in train and test",
    )
    again = assign(rows, USUAL, result.manifest, pairs)
    assert again.manifest.column("split") == result.manifest.column("split")
    assert again.notes[0] == f"{divided}; images that keep their split: 3"


def test_files_that_were_saved_again_keep_the_splits_of_their_groups_also_where_a_near_duplicate_joins_these() -> None:
    rows = [row for part in range(24) for row in images("a", 2, start=10 * part, group=f"part {part}")]
    first = assign(manifest(rows), USUAL).manifest
    names = {split: path for path, split in splits(first).items()}
    again = manifest([(path, label, {**others, "content": f"{path} again"}) for path, label, others in rows])
    paths = again.column("path")
    result = assign(again, USUAL, first, [(paths.index(names["test"]), paths.index(names["train"]))])
    assert splits(result.manifest) == splits(first)
    assert result.notes == (
        "an earlier run has near-duplicates, or images of one group, in different splits; "
        "images that keep their split: 4",
        "leak: 1 near-duplicates in train and test",
    )


def test_groups_that_are_given_later_change_no_split_of_an_earlier_run() -> None:
    first = assign(manifest(images("a", 24)), USUAL).manifest
    names = {split: path for path, split in splits(first).items()}
    grouped = [(path, label, {"group": "g"} if path in names.values() else {}) for path, label, _ in images("a", 24)]
    result = assign(manifest(grouped), USUAL, first)
    assert splits(result.manifest) == splits(first)
    assert result.notes[1:] == tuple(
        f"leak: 1 groups in {pair}" for pair in ("train and val", "train and test", "val and test")
    )
    # The group is in several splits now, whichever of its images are left.
    left = [row for row in grouped if row[0] != names["train"]]
    found = split_of([*left, *images("a", 1, start=70, group="g")], 3, result.manifest)
    assert found == {**{path: splits(first)[path] for path, _, _ in left}, "a/70.png": "train"}


def test_a_validation_split_taken_from_train_is_not_changed_by_a_new_near_duplicate() -> None:
    first = assign(manifest(without_val()), USUAL).manifest
    names = {split: path for path, split in splits(first).items() if path.startswith("a/")}
    rows = manifest([*without_val(), *images("a", 1, start=60, split="train")])
    paths = rows.column("path")
    pairs = [(paths.index(names[split]), paths.index("a/60.png")) for split in ("val", "train")]
    result = assign(rows, USUAL, first, pairs)
    assert splits(result.manifest) == {**splits(first), "a/60.png": "train"}
    assert "leak: 1 near-duplicates in train and val" in result.notes


def test_a_new_class_is_split_while_others_keep_their_split() -> None:
    first = assign(manifest(images("a", 20)), USUAL).manifest
    assigned = assign(manifest([*images("a", 20), *images("b", 20)]), USUAL, first).manifest
    assert all(assigned.counts()["b"][split] >= least for split, least in MIN_UNITS.items())


def test_an_earlier_run_that_leaves_no_image_for_a_split_is_an_error() -> None:
    rows = [*images("a", 10), *images("b", 10)]
    first = manifest(rows).with_columns({"split": [*["train"] * 10, *["train", "val", "test", "train", "train"] * 2]})
    with pytest.raises(DataError, match=r"no images of a are available for val: .*an earlier run"):
        assign(manifest(rows), USUAL, first)


def test_a_class_that_is_too_small_reports_how_many_images_are_missing() -> None:
    rows = [*images("a", 20), *images("b", 3), *images("c", 1)]
    with pytest.raises(
        DataError, match=r"too few images.*: b has 3, needs 1 more; c has 1, needs 3 more .*split\.test=0"
    ):
        assign(manifest(rows), USUAL)


def test_no_test_split_is_no_remedy_where_it_would_not_help() -> None:
    with pytest.raises(DataError, match=r"b has 2, needs 2 more") as caught:
        assign(manifest([*images("a", 20), *images("b", 2)]), USUAL)
    assert "split.test=0" not in str(caught.value)


def test_without_a_test_a_class_needs_fewer_images() -> None:
    without = SplitSettings(test=0.0)
    assign(manifest([*images("a", 20), *images("b", 3)]), without)
    with pytest.raises(DataError, match="b has 2, needs 1 more") as caught:
        assign(manifest([*images("a", 20), *images("b", 2)]), without)
    assert "split.test=0" not in str(caught.value)


@pytest.mark.parametrize("others", [{"group": "one part"}, {"content": "the same"}])
def test_groups_and_identical_files_count_once(others: dict[str, str]) -> None:
    with pytest.raises(DataError, match="b has 1, needs 3 more"):
        assign(manifest([*images("a", 20), *images("b", 20, **others)]), USUAL)


def test_unreadable_images_do_not_make_a_class_large_enough() -> None:
    with pytest.raises(DataError, match="b has 3, needs 1 more"):
        assign(manifest([*images("a", 20), *images("b", 3), *images("b", 9, start=3, status="error")]), USUAL)


def test_the_smallest_class_that_is_large_enough_is_in_every_split() -> None:
    for seed in range(30):
        counts = assign(manifest([*images("a", 30), *images("b", 4)]), SplitSettings(seed=seed)).manifest.counts()
        assert counts["b"] == {"train": 2, "val": 1, "test": 1}


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.sets(st.sampled_from(CLASSES)).map(lambda names: "|".join(sorted(names))), max_size=60),
    seed=st.integers(0, 99),
)
def test_every_class_of_several_labels_is_in_every_split(labels: list[str], seed: int) -> None:
    rows: list[Row] = [(f"{number}.png", names, {}) for number, names in enumerate(labels)]
    rows += [row for name in CLASSES for row in images(name, 4)]
    assigned = assign(manifest(rows, "multilabel"), SplitSettings(seed=seed)).manifest
    for found in assigned.counts().values():
        assert all(found[split] >= least for split, least in MIN_UNITS.items())
    assert None not in assigned.column("split")


def given_splits(test: int = 5) -> list[Row]:
    return [
        row
        for name in CLASSES
        for row in [
            *images(name, 20, split="train"),
            *images(name, 5, start=20, split="val"),
            *images(name, test, start=25, split="test"),
        ]
    ]


@pytest.mark.parametrize("test", [0, 5])
def test_given_splits_are_kept(test: int) -> None:
    rows = manifest(given_splits(test))
    result = assign(rows, SplitSettings(val=0.4, test=0.4, seed=9))
    assert result.manifest.column("split") == rows.column("split")
    assert result.notes == ()


def test_given_splits_take_precedence_over_an_earlier_run() -> None:
    rows = manifest(given_splits())
    first = rows.with_columns({"split": ["test"] * len(rows)})
    assert assign(rows, USUAL, first).manifest.column("split") == rows.column("split")


def test_an_unreadable_image_loses_its_given_split() -> None:
    rows = [*given_splits(), *images("a", 1, start=50, split="train", status="error")]
    assert splits(assign(manifest(rows), USUAL).manifest)["a/50.png"] is None


def without_val() -> list[Row]:
    return [row for row in given_splits() if row[2]["split"] != "val"]


def test_a_missing_validation_split_is_taken_from_train() -> None:
    rows = manifest(without_val())
    result = assign(rows, SplitSettings(val=0.2))
    pairs = Counter(zip(rows.column("split"), result.manifest.column("split"), strict=True))
    assert pairs.keys() == {("train", "train"), ("train", "val"), ("test", "test")}
    assert all(3 <= found["val"] <= 5 for found in result.manifest.counts().values())
    assert any("no validation split; 20% of its train images" in note for note in result.notes)


def test_a_validation_split_taken_from_train_is_kept_in_the_next_run() -> None:
    first = assign(manifest(without_val()), USUAL).manifest
    more = [*without_val(), *images("a", 10, start=60, split="train")]
    found = split_of(more, 5, first)
    assert all(found[name] == split for name, split in splits(first).items())


def test_a_train_split_too_small_for_validation_is_an_error() -> None:
    rows = [*without_val(), *images("d", 2, split="train"), *images("d", 9, start=2, split="test")]
    with pytest.raises(DataError, match="d has 2, needs 1 more"):
        assign(manifest(rows), USUAL)


def test_given_splits_without_train_are_refused() -> None:
    with pytest.raises(DataError, match="no readable image is in train"):
        assign(manifest([*images("a", 9, split="val"), *images("b", 9, split="test")]), USUAL)


def test_a_class_missing_from_a_given_split_is_noted_and_from_train_refused() -> None:
    rows = given_splits()
    without = [row for row in rows if (row[1], row[2]["split"]) not in {("b", "val"), ("c", "test")}]
    assert assign(manifest(without), USUAL).notes == ("val has no image of b", "test has no image of c")
    with pytest.raises(DataError, match="train has no image of b"):
        assign(manifest([row for row in rows if (row[1], row[2]["split"]) != ("b", "train")]), USUAL)


def test_identical_images_in_two_given_splits_are_reported_as_a_leak() -> None:
    rows = [
        *given_splits(),
        *images("a", 2, start=50, split="test", content="a/0.png"),
        *images("b", 1, start=50, split="test", content="b/1.png"),
        *images("c", 1, start=50, split="val", content="c/2.png"),
        *images("c", 1, start=60, split="train", content="c/3.png"),
    ]
    assert assign(manifest(rows), USUAL).notes == (
        "leak: 1 identical images in train and val",
        "leak: 2 identical images in train and test",
    )


def test_a_group_in_two_given_splits_is_reported_as_a_leak() -> None:
    rows = [
        *given_splits(),
        *images("a", 2, start=50, split="val", group="part 1"),
        *images("a", 2, start=60, split="test", group="part 1"),
        *images("a", 2, start=70, split="train", group="part 2"),
    ]
    assert assign(manifest(rows), USUAL).notes == ("leak: 1 groups in val and test",)


def test_an_unreadable_image_is_no_leak() -> None:
    rows = [*given_splits(), *images("a", 1, start=50, split="test", status="error", content="a/0.png")]
    assert assign(manifest(rows), USUAL).notes == ()


def test_a_leak_is_reported_without_a_validation_split_too() -> None:
    rows = [*without_val(), *images("a", 1, start=50, split="test", content="a/0.png")]
    notes = assign(manifest(rows), USUAL).notes
    assert sum(note.startswith("leak: 1 identical images in ") and note.endswith("test") for note in notes) == 1


def test_near_duplicates_stay_together() -> None:
    rows = many()
    duplicates = [(number, number + 1) for number in range(0, 40, 2)] + [(200, 210), (210, 220)]
    assigned = assign(manifest(rows), USUAL, duplicates=duplicates).manifest.column("split")
    assert all(assigned[one] == assigned[other] for one, other in duplicates)
    assert set(assigned) == set(SPLITS)


def test_near_duplicates_across_given_splits_are_noted() -> None:
    rows = [*images("a", 6, split="train"), *images("a", 4, 6, split="val"), *images("b", 4, split="train")]
    result = assign(manifest([*rows, *images("b", 3, 4, split="val")]), USUAL, duplicates=[(0, 6), (1, 7), (2, 3)])
    assert "leak: 2 near-duplicates in train and val" in result.notes
