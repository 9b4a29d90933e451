from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from thaw.data.capture import NO_CAPTURE, Capture
from thaw.data.groups import as_grouped, find_groups, group_images, origin_of_groups, with_groups_of
from thaw.data.manifest import Manifest, new_table
from thaw.errors import DataError, RecipeError
from thaw.recipe import Recipe, SplitSettings

CLASSES = ("crack", "ok")


def images(
    paths: Sequence[str], groups: Sequence[str | None] | None = None, splits: Sequence[str] | None = None
) -> Manifest:
    """A manifest of images whose first folder is the class."""
    labels = [[path.partition("/")[0]] for path in paths]
    return Manifest(new_table(paths, labels, splits, groups), CLASSES, "binary", Path("/data"))


def parts() -> list[str]:
    """Images of twelve parts, 3 to 5 of each."""
    return [f"{CLASSES[part % 2]}/part{part}_{image:03}.png" for part in range(12) for image in range(1, 4 + part % 3)]


def none_captured(manifest: Manifest) -> list[Capture]:
    return [NO_CAPTURE] * len(manifest)


def test_what_is_found_is_said_in_one_sentence_with_an_example() -> None:
    manifest = images(parts())
    found = find_groups(manifest, none_captured(manifest))
    assert found is not None
    assert found.sentence == (
        "groups found in file names: 12 of 3 to 5 images, such as part0 (part0_001.png, part0_002.png, …)"
    )
    assert found.names[:3] == ("part0",) * 3


def test_auto_takes_the_column_of_the_data_and_else_what_is_found() -> None:
    manifest = images(parts())
    grouped = group_images(manifest, "auto", none_captured(manifest))
    assert Counter(grouped.manifest.column("group"))["part1"] == 4
    assert grouped.notes == (grouped.manifest.grouping,) and "12 of 3 to 5 images" in grouped.notes[0]
    given = images(parts(), groups=["lot", *[None] * (len(parts()) - 1)])
    assert group_images(given, "auto", none_captured(given)).manifest == given


def test_found_takes_nothing_from_the_column() -> None:
    given = images(parts(), groups=["lot"] * len(parts()))
    grouped = group_images(given, "found", none_captured(given))
    assert grouped == group_images(images(parts()), "auto", none_captured(given))


def test_the_plan_says_where_the_groups_are_from() -> None:
    manifest, given = images(parts()), images(parts(), groups=["lot"] * len(parts()))
    found = group_images(manifest, "auto", none_captured(manifest)).manifest
    assert origin_of_groups(SplitSettings(), found) == ("found", found.grouping)
    assert origin_of_groups(SplitSettings(), given)[0] == "column"
    assert origin_of_groups(SplitSettings(), manifest)[0] == "none"
    assert origin_of_groups(SplitSettings(group_by=r"part\d+"), given) == (r"part\d+", "as requested")


def test_column_takes_nothing_else_and_none_nothing() -> None:
    manifest, given = images(parts()), images(parts(), groups=["lot"] * len(parts()))
    column = group_images(manifest, "column", none_captured(manifest))
    assert not any(column.manifest.column("group")) and "no column of groups" in column.notes[0]
    assert group_images(given, "column", none_captured(given)).manifest == given
    dropped = group_images(given, "none", none_captured(given))
    assert not any(dropped.manifest.column("group")) and "not used" in dropped.notes[0]
    assert group_images(manifest, "none", none_captured(manifest)).notes == ()


@pytest.mark.parametrize(
    ("pattern", "name"),
    [(r"part\d+", "part3"), (r"part(\d+)", "3"), (r"(?:crack|ok)/part(?P<group>\d+)_(\d+)", "3"), (r"^(\w+)/", "ok")],
)
def test_a_regular_expression_names_the_groups(pattern: str, name: str) -> None:
    manifest = images(parts())
    grouped = group_images(manifest, pattern, none_captured(manifest))
    assert grouped.manifest.column("group")[parts().index("ok/part3_001.png")] == name
    assert grouped.manifest.grouping == "" and grouped.notes[0].startswith(f"groups by '{pattern}': ")


def test_paths_that_a_regular_expression_does_not_match_are_counted_and_groups_of_their_own() -> None:
    manifest = images([*parts(), "ok/other.png", "ok/extra.png"])
    grouped = group_images(manifest, r"part\d+", none_captured(manifest))
    assert grouped.manifest.column("group")[-2:] == [None, None]
    assert grouped.notes[0].endswith("2 paths do not match, such as ok/other.png: each is its own group")


def test_a_regular_expression_that_matches_nothing_is_refused() -> None:
    manifest = images(parts())
    with pytest.raises(DataError, match=r"^/data: group_by 'batch' matches none of the paths.*crack/part0_001.png$"):
        group_images(manifest, "batch", none_captured(manifest))


def test_what_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"^recipe: split\.group_by: neither auto, column, found nor none.*\(got 'part\('\)$"
    ):
        Recipe.from_values({"split": {"group_by": "part("}})
    with pytest.raises(RecipeError, match=r"split\.group_by"):
        Recipe.from_values({"split": {"group_by": ""}})


def photos() -> tuple[Manifest, list[Capture], list[int]]:
    """Photos of two cameras in bursts of 3 or 4, a day long, and the burst of each."""
    paths, captures, bursts = [], [], []
    for burst in range(24):
        for image in range(3 + burst % 2):
            time = datetime(2021, 3, 4, 8) + timedelta(minutes=12 * (burst // 2), seconds=3 * image)
            paths.append(f"{CLASSES[burst // 2 % 2]}/IMG_{burst % 2}{len(paths):04}.jpg")
            captures.append(Capture(str(time), ("Cam 1", "Cam 2")[burst % 2]))
            bursts.append(burst)
    return images(paths), captures, bursts


def test_bursts_of_each_device_are_groups() -> None:
    manifest, captures, bursts = photos()
    found = find_groups(manifest, captures)
    assert found is not None
    assert found.names[0] == "Cam 1 2021-03-04 08:00:00"
    assert len(set(found.names)) == 24 == len(set(zip(found.names, bursts, strict=True)))
    assert found.sentence.startswith("groups found in EXIF capture times (at most 2 min apart): 24 of 3 to 4 images")


def test_images_without_a_capture_time_are_in_no_group_and_too_many_of_them_leave_none() -> None:
    manifest, captures, _ = photos()
    some = [NO_CAPTURE if row % 10 == 9 else capture for row, capture in enumerate(captures)]
    found = find_groups(manifest, some)
    assert found is not None
    assert [row for row, name in enumerate(found.names) if name is None] == list(range(9, len(captures), 10))
    assert (
        find_groups(manifest, [capture if row % 4 == 0 else NO_CAPTURE for row, capture in enumerate(captures)]) is None
    )


def test_the_same_time_everywhere_is_no_group() -> None:
    manifest, captures, _ = photos()
    assert find_groups(manifest, [Capture("2000-01-01 00:00:00", "Cam")] * len(captures)) is None


def test_images_with_several_labels_have_groups_too() -> None:
    table = new_table([f"part{part}_{image}.png" for part in range(9) for image in range(4)], [["ok", "crack"]] * 36)
    manifest = Manifest(table, CLASSES, "multilabel", Path("/data"))
    found = find_groups(manifest, none_captured(manifest))
    assert found is not None and Counter(found.names) == {f"part{part}": 4 for part in range(9)}


def test_groups_of_an_earlier_run_are_taken_as_they_are() -> None:
    manifest = images(parts())
    began = group_images(manifest, "auto", none_captured(manifest)).manifest
    resumed = with_groups_of(images(parts()), began)
    assert resumed == began
    split = as_grouped(SplitSettings(), began)
    assert split.group_by == "column"
    assert group_images(resumed, split.group_by, none_captured(manifest)).manifest == began
    without = as_grouped(SplitSettings(), manifest)
    assert group_images(manifest, without.group_by, none_captured(manifest)).manifest == manifest


def test_how_groups_were_found_is_kept_with_the_manifest(tmp_path: Path) -> None:
    manifest = images(parts())
    grouped = group_images(manifest, "auto", none_captured(manifest)).manifest
    grouped.write(tmp_path / "manifest.parquet")
    assert Manifest.read(tmp_path / "manifest.parquet") == grouped
