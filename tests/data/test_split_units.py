from pathlib import Path

from thaw.data.manifest import Manifest, new_table
from thaw.data.split_units import earlier_splits, with_older


def manifest(*rows: tuple[str, str | None, str | None]) -> Manifest:
    """Images by their digest, split and group."""
    digests, splits, groups = zip(*rows, strict=True)
    table = new_table(digests, [["ok"]] * len(rows), splits, groups)
    return Manifest(table, ("ok",), "multiclass", Path("/images")).with_columns({"sha256": digests})


def test_older_runs_tell_the_split_of_images_that_later_ones_have_in_none() -> None:
    newest = manifest(("a", "train", "g"), ("b", None, None))
    older = manifest(("a", "test", "h"), ("b", "val", "h"), ("c", "test", "g"), ("d", None, "i"))
    oldest = manifest(("c", "train", None), ("d", "val", None))
    assert earlier_splits(with_older(with_older(newest, older), oldest)) == {
        "sha256 a": "train",
        "group g": "train",
        "sha256 b": "val",
        "sha256 c": "test",
        "sha256 d": "val",
    }


def test_a_group_in_several_splits_is_in_train() -> None:
    divided = manifest(("a", "val", "g"), ("b", "test", "g"), ("c", "test", "g"))
    assert earlier_splits(divided)["group g"] == "train"
