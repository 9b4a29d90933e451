from pathlib import Path

from thaw.data.leaks import conflicting_labels
from thaw.data.manifest import Manifest, new_table


def manifest(*rows: tuple[str, str, str], status: str = "ok") -> Manifest:
    """Rows of path, labels separated by |, and the bytes of the file."""
    paths, labels, contents = zip(*rows, strict=True)
    texts = [text.split("|") if text else [] for text in labels]
    classes = tuple(sorted({name for names in texts for name in names}))
    empty = Manifest(new_table(paths, texts), classes, "multilabel", Path("images"))
    return empty.with_columns({"sha256": list(contents), "status": [status] * len(rows)})


def test_equal_bytes_under_two_labels_are_counted_and_the_first_pair_named() -> None:
    rows = [("a.png", "ok", "1"), ("b.png", "crack", "2"), ("c.png", "ok", "2"), ("d.png", "dent", "2")]
    assert conflicting_labels(manifest(*rows, ("e.png", "dent|ok", "1"))) == [
        "conflicting labels: 2 images in files with equal bytes but different labels, the first in b.png (crack) and "
        "c.png (ok); correct or remove one of them"
    ]


def test_equal_labels_in_any_order_do_not_conflict() -> None:
    assert conflicting_labels(manifest(("a.png", "x|y", "1"), ("b.png", "y|x", "1"), ("c.png", "x", "2"))) == []


def test_unreadable_images_do_not_conflict() -> None:
    assert conflicting_labels(manifest(("a.png", "x", "1"), ("b.png", "y", "1"), status="error")) == []
