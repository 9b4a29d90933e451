from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.data.group_split import assign_groups, with_enough_groups
from thaw.data.manifest import SPLITS, Manifest, new_table
from thaw.data.split import assign
from thaw.errors import DataError
from thaw.recipe import SplitSettings

USUAL = SplitSettings()
FOUND = "groups found in file names"
# The class, the part, and the number of images.
Part = tuple[str, str | None, int]


def images(parts: Iterable[Part], grouping: str = FOUND, splits: Sequence[str] | None = None) -> Manifest:
    rows = [(f"{label}/{part}_{image}.png", label, part) for label, part, size in parts for image in range(size)]
    paths, labels, groups = zip(*rows, strict=True)
    table = new_table(paths, [[label] for label in labels], splits, groups)
    manifest = Manifest(table, tuple(sorted(set(labels))), "multiclass", Path("/images"), grouping=grouping)
    return manifest.with_columns({"status": ["ok"] * len(rows), "sha256": list(paths)})


def parts(label: str, number: int, size: int = 4) -> list[Part]:
    return [(label, f"{label}{part}", size) for part in range(number)]


def splits_of_groups(manifest: Manifest) -> dict[str, set[str]]:
    found = defaultdict(set)
    for group, split in zip(manifest.column("group"), manifest.column("split"), strict=True):
        if group:
            found[group].add(split)
    return found


def test_found_groups_are_kept_in_one_split_like_given_ones() -> None:
    data = [*parts("crack", 12), *parts("ok", 30)]
    found = assign_groups(images(data), USUAL)
    given_ = assign_groups(images(data, grouping=""), USUAL)
    assert all(len(splits) == 1 for splits in splits_of_groups(found.manifest).values())
    assert found.manifest.column("split") == given_.manifest.column("split")
    assert found.notes == ("images of one group stay in the same split; --group-by none splits them one by one",)
    assert given_.notes == ()


def test_a_class_with_too_few_groups_is_split_image_by_image_and_the_others_are_not() -> None:
    data = [*parts("crack", 12), *parts("ok", 30), *parts("dent", 3, size=5)]
    result = assign_groups(images(data), USUAL)
    groups = splits_of_groups(result.manifest)
    assert len(groups) == 42 and all(len(splits) == 1 for splits in groups.values())
    assert all(number > 0 for number in result.manifest.counts()["dent"].values())
    assert result.notes[1:] == ("too few groups to split, so these images are split one by one: dent",)
    with pytest.raises(DataError, match="dent has 3, needs 1 more"):
        assign_groups(images(data, grouping=""), USUAL)
    assert len(assign_groups(images(data), SplitSettings(test=0)).notes) == 1


def test_a_group_with_two_classes_keeps_the_images_of_the_one_that_has_enough() -> None:
    data = [*parts("ok", 30), ("dent", "ok1", 4), ("dent", "ok2", 4)]
    result = assign_groups(images(data), USUAL)
    pairs = zip(result.manifest.column("path"), result.manifest.column("group"), strict=True)
    alone = {path for path, group in pairs if not group}
    assert alone == {f"dent/ok{part}_{image}.png" for part in (1, 2) for image in range(4)}
    assert all(len(splits) == 1 for splits in splits_of_groups(result.manifest).values())


@given(
    sizes=st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 9), st.integers(1, 4)), max_size=25),
    seed=st.integers(0, 99),
    test=st.sampled_from([0.0, 0.15]),
)
def test_found_groups_never_stop_a_run_that_would_go_without_them(
    sizes: list[tuple[str, int, int]], seed: int, test: float
) -> None:
    data = [(label, f"part{part} {number}", size) for number, (label, part, size) in enumerate(sizes)]
    data = [(label, name.split()[0], size) for label, name, size in data]
    singles = [(label, None, 4) for label in "abc"]
    manifest = images([*singles, *data])
    distinct = manifest.with_columns({"sha256": [str(row) for row in range(len(manifest))]})
    result = assign_groups(distinct, SplitSettings(seed=seed, test=test))
    assert None not in result.manifest.column("split")
    assert all(len(splits) == 1 for splits in splits_of_groups(result.manifest).values())
    assert all(
        found[split] for found in result.manifest.counts().values() for split in SPLITS if test or split != "test"
    )


def test_images_of_an_earlier_run_without_groups_keep_their_split() -> None:
    data = [*parts("crack", 12), *parts("ok", 30)]
    ungrouped = images(data, grouping="").with_columns({"group": [None] * 168})
    earlier = assign(ungrouped, USUAL).manifest
    result = assign_groups(images(data), USUAL, earlier)
    assert result.manifest.column("split") == earlier.column("split")
    assert all(len(splits) == 1 for splits in splits_of_groups(result.manifest).values())
    assert "divided between splits by an earlier run" in result.notes[1]


def test_groups_that_an_earlier_run_divides_altogether_are_not_used() -> None:
    data = [*parts("crack", 6, size=10), *parts("ok", 6, size=10)]
    divided = [("train", "train", "train", "val", "test")[row % 5] for row in range(120)]
    earlier = images(data, splits=divided)
    result = assign_groups(images(data), USUAL, earlier)
    assert result.manifest.column("split") == divided
    assert not any(result.manifest.column("group")) and result.manifest.grouping == ""
    assert result.notes == (
        "these groups are not used: they are divided by an earlier run, whose images keep their split; to keep groups "
        "together, write to another folder with --runs",
    )


def test_new_images_of_a_group_get_the_split_of_the_earlier_ones() -> None:
    first = assign_groups(images([*parts("crack", 12), *parts("ok", 30)]), USUAL).manifest
    more = assign_groups(images([*parts("crack", 14, size=6), *parts("ok", 33, size=6)]), SplitSettings(seed=5), first)
    before, after = splits_of_groups(first), splits_of_groups(more.manifest)
    assert all(after[name] == splits for name, splits in before.items())
    assert len(more.notes) == 1


def test_splits_of_the_data_are_kept_and_a_group_in_two_of_them_is_noted() -> None:
    data = [*parts("crack", 8), *parts("ok", 8)]
    given_ = [("train", "train", "val", "test")[row % 4] for row in range(64)]
    result = assign_groups(images(data, splits=given_), USUAL)
    assert result.manifest.column("split") == given_
    assert "leak: 16 of the groups found in train and test" in result.notes


def test_validation_that_is_taken_from_train_keeps_groups_together() -> None:
    data = [*parts("crack", 16), *parts("ok", 16)]
    given_ = [("train", "train", "train", "test")[row // 4 % 4] for row in range(128)]
    result = assign_groups(images(data, splits=given_), USUAL)
    assert all(len(splits) == 1 for splits in splits_of_groups(result.manifest).values())
    assert set(result.manifest.column("split")) == set(SPLITS)


def test_classes_with_fewer_groups_than_folds_have_none() -> None:
    manifest = images([*parts("crack", 4), *parts("ok", 9)])
    rows = list(range(len(manifest)))
    kept, few = with_enough_groups(manifest, rows, [], 5)
    assert few == ("crack",) and kept.column("group") == [None] * 16 + manifest.column("group")[16:]
    assert with_enough_groups(manifest, rows, [], 4) == (manifest, ())
    given_ = replace(manifest, grouping="")
    assert with_enough_groups(given_, rows, [], 5) == (given_, ())
