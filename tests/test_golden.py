import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bundle_files import with_new_sums
from thaw.bundle import certified_bundle, read_bundle
from thaw.errors import BundleError
from thaw.golden import certify, golden_of

Change = Callable[[list[dict[str, Any]]], object]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(Path(__file__).parent / "bundles" / "0.1.0", tmp_path / "bundle"))


def changed(bundle: Path, change: Change) -> Path:
    record = bundle / "golden" / "golden.json"
    entries = json.loads(record.read_text())
    replaced = change(entries)
    record.write_text(json.dumps(entries if replaced is None else replaced))
    return with_new_sums(bundle)


def put(key: str, value: object) -> Change:
    def change(entries: list[dict[str, Any]]) -> None:
        entries[1][key] = value

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.5])
def test_another_probability_is_refused_also_where_it_is_no_number(bundle: Path, value: float) -> None:
    certified_bundle(bundle)
    changed(bundle, put("probabilities", [value, 0.3, 0.3]))
    with pytest.raises(BundleError, match=r"01\.png: the bundle does not reproduce the probabilities"):
        certified_bundle(bundle)


def test_a_network_that_gives_no_numbers_is_refused(bundle: Path) -> None:
    classifier = read_bundle(bundle)
    for parameter in classifier.head.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.raises(BundleError, match="does not reproduce the probabilities"):
        certify(classifier, bundle)


@pytest.mark.parametrize("probabilities", [[], [0.3, 0.3, 0.3]])
def test_a_golden_image_that_cannot_be_read_is_refused(bundle: Path, probabilities: list[float]) -> None:
    (bundle / "golden" / "01.png").write_bytes(b"damaged")
    changed(bundle, put("probabilities", probabilities))
    with pytest.raises(BundleError, match=r"01\.png: .* cannot be read"):
        certified_bundle(bundle)


@pytest.mark.parametrize("name", ["..", "../00.png", "/etc/passwd", "a\\b.png", "nul\0.png", "", 7, None])
def test_a_golden_image_is_a_file_of_its_folder(bundle: Path, name: object) -> None:
    changed(bundle, put("file", name))
    with pytest.raises(BundleError, match=r"golden\.json: cannot be read"):
        certified_bundle(bundle)
    with pytest.raises(BundleError, match=r"golden\.json: cannot be read"):
        golden_of(bundle)


@pytest.mark.parametrize("content", [7, {}, [], {"file": "00.png"}, ["00.png"], [{}], [{"file": "00.png"}]])
def test_a_malformed_record_is_a_clear_error(bundle: Path, content: object) -> None:
    changed(bundle, lambda _: content)
    with pytest.raises(BundleError, match=r"golden\.json: cannot be read"):
        certified_bundle(bundle)


def test_a_record_that_is_nested_without_end_or_has_endless_numbers_is_a_clear_error(bundle: Path) -> None:
    changed(bundle, put("probabilities", [10**400, 0, 0]))
    with pytest.raises(BundleError, match=r"golden\.json: cannot be read"):
        certified_bundle(bundle)
    (bundle / "golden" / "golden.json").write_text("[" * 100_000)
    with pytest.raises(BundleError, match=r"golden\.json: cannot be read"):
        certified_bundle(with_new_sums(bundle))
