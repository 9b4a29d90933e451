import shutil
from pathlib import Path, PureWindowsPath

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import thaw
from tests.reporters import Listening
from thaw.classifier.classifier import Classifier
from thaw.errors import DataError
from thaw.evaluation.explain import class_maps
from thaw.evaluation.overlays import overlay, without_common_parent, write_overlays
from thaw.marker import MARKER
from thaw.pipeline import explain, load
from thaw.prediction.predict import read_pixels
from thaw.run_folder import RunFolder


@pytest.fixture(scope="module")
def classifier(trained: RunFolder) -> Classifier:
    return load(trained.path)


def striped(side: int = 96) -> np.ndarray:
    """A grey image with a thin dark line every twelve pixels."""
    pixels = np.full((side, side, 3), 150, dtype=np.uint8)
    pixels[:, ::12] = 60
    return pixels


def lightness(pixels: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)[:, :, 0].astype(int)


def colourfulness(pixels: np.ndarray) -> np.ndarray:
    return np.ptp(pixels.astype(int), axis=2)


@given(st.integers(2, 20), st.integers(0, 10**6))
@settings(max_examples=20)
def test_colour_is_where_the_map_is_and_nowhere_else(side: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    class_map = np.zeros((side, side), dtype=np.float32)
    row, column = rng.integers(0, side, 2)
    class_map[row, column] = 1
    shown = overlay(rng.integers(90, 170, (96, 96, 3), dtype=np.uint8), class_map)
    assert shown.shape == (96, 96, 3) and shown.dtype == np.uint8
    hottest = np.unravel_index(cv2.blur(colourfulness(shown).astype(np.float32), (3, 3)).argmax(), (96, 96))
    cell = 96 / side
    assert np.abs(np.array(hottest) - (np.array([row, column]) + 0.5) * cell).max() <= cell + 1
    assert (colourfulness(shown) == 0).mean() >= 1 - (7 / side) ** 2


def test_without_evidence_the_overlay_is_the_grey_image() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    shown = overlay(pixels, np.zeros((7, 7), dtype=np.float32))
    np.testing.assert_array_equal(shown, cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None].repeat(3, axis=2))


def test_the_image_stays_visible_under_full_opacity() -> None:
    shown = lightness(overlay(striped(), np.ones((7, 7), dtype=np.float32)))
    assert (shown[:, 6::12].mean() - shown[:, ::12].mean()) > 60


def test_lightness_increases_with_evidence() -> None:
    flat = np.full((64, 64, 3), 110, dtype=np.uint8)
    levels = [lightness(overlay(flat, np.full((4, 4), level, np.float32))).mean() for level in np.linspace(0.3, 1, 8)]
    assert (np.diff(levels) > 2).all()


def test_the_map_is_interpolated_smoothly() -> None:
    class_map = np.zeros((7, 7), dtype=np.float32)
    class_map[3, 3] = 1
    shown = overlay(np.full((224, 224, 3), 120, dtype=np.uint8), class_map).astype(int)
    assert np.abs(np.diff(shown, axis=0)).max() < 20


def test_each_file_gets_an_overlay_and_a_row(classifier: Classifier, images: Path, tmp_path: Path) -> None:
    files = [images / "ok" / "000.png", images / "stain" / "000.png", images / "stain" / "001.png"]
    rows = list(write_overlays(classifier, files, tmp_path / "why"))
    assert [row.path for row in rows] == files and {row.status for row in rows} == {"ok"}
    outputs = [tmp_path / "why" / "ok" / "000.png", *(tmp_path / "why" / "stain" / f"00{n}.png" for n in (0, 1))]
    assert [row.output for row in rows] == outputs
    for row, prediction in zip(rows, thaw.predict(classifier, files), strict=True):
        assert (row.label, row.probability) == (prediction.label, pytest.approx(prediction.confidence, abs=1e-6))
        pixels = read_pixels(classifier, row.path)
        assert isinstance(pixels, np.ndarray)
        (class_map,) = class_maps(classifier, pixels[None], [classifier.classes.index(row.label)])
        np.testing.assert_array_equal(cv2.imread(str(row.output))[:, :, ::-1], overlay(pixels, class_map))


def test_the_requested_class_is_explained(classifier: Classifier, images: Path, tmp_path: Path) -> None:
    file = images / "ok" / "000.png"
    (row,) = write_overlays(classifier, [file], tmp_path, "stain")
    index = classifier.classes.index("stain")
    assert row.label == "stain"
    assert row.probability == pytest.approx(thaw.predict(classifier, [file])[0].probabilities[index], abs=1e-6)


def test_an_unknown_class_is_refused_before_anything_is_written(
    classifier: Classifier, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"'strain': .*did you mean 'stain'"):
        write_overlays(classifier, [images / "ok" / "000.png"], tmp_path / "why", "strain")
    assert not (tmp_path / "why").exists()


def test_an_unreadable_file_is_an_error_row_with_its_reason(
    classifier: Classifier, images: Path, tmp_path: Path
) -> None:
    broken, good, absent = (tmp_path / name for name in ("broken.png", "good.png", "absent.png"))
    broken.write_bytes(b"no image")
    shutil.copyfile(images / "ok" / "000.png", good)
    rows = list(write_overlays(classifier, [broken, good, absent], tmp_path / "why"))
    assert [row.status for row in rows] == ["error", "ok", "error"]
    assert "not a JPEG" in rows[0].reason and "no such file" in rows[2].reason
    assert sorted(path.name for path in (tmp_path / "why").iterdir()) == [MARKER, "good.png"]


def test_nothing_is_overwritten(classifier: Classifier, images: Path, tmp_path: Path) -> None:
    (tmp_path / "000.png").write_bytes(b"mine")
    (row,) = write_overlays(classifier, [images / "ok" / "000.png"], tmp_path)
    assert row.status == "error" and "000.png already exists" in row.reason
    assert (tmp_path / "000.png").read_bytes() == b"mine"


def test_a_file_that_is_given_twice_is_explained_once(classifier: Classifier, images: Path, tmp_path: Path) -> None:
    file, other = images / "ok" / "000.png", images / "ok" / "001.png"
    (first, second) = write_overlays(classifier, [file, other, file], tmp_path)
    assert (first.status, first.output) == ("ok", tmp_path / "000.png") and second.output == tmp_path / "001.png"


def test_overlays_of_paths_with_two_dots_stay_in_the_folder(
    classifier: Classifier, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, project = tmp_path / "data", tmp_path / "project"
    (project / "sub").mkdir(parents=True)
    data.mkdir()
    for file in (data / "a.png", project / "sub" / "b.png"):
        shutil.copy(images / "ok" / "000.png", file)
    monkeypatch.chdir(project)
    given = [Path("../data/a.png"), Path("sub/b.png"), data / "a.png"]
    rows = list(write_overlays(classifier, given, Path("why")))
    assert [row.output for row in rows] == [Path("why/data/a.png"), Path("why/project/sub/b.png")]


def test_overlays_of_images_on_several_drives_have_a_folder_for_each() -> None:
    names = [r"C:\parts\a.png", r"D:\parts\a.png", r"\\server\share\b.png"]
    paths = without_common_parent([PureWindowsPath(name) for name in names])
    assert [path.as_posix() for path in paths] == ["C/parts/a.png", "D/parts/a.png", "server_share/b.png"]


def test_files_that_differ_only_in_their_suffix_keep_it(classifier: Classifier, images: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.png", tmp_path / "a.bmp"]
    for file in files:
        cv2.imwrite(str(file), cv2.imread(str(images / "ok" / "000.png")))
    rows = list(write_overlays(classifier, files, tmp_path / "why"))
    assert [row.output for row in rows] == [tmp_path / "why" / "a.png.png", tmp_path / "why" / "a.bmp.png"]


def test_more_files_than_a_batch_are_returned_in_order(classifier: Classifier, images: Path, tmp_path: Path) -> None:
    files = sorted(images.rglob("*.png"))
    assert len(files) > 32
    assert [row.path for row in write_overlays(classifier, files, tmp_path)] == files
    assert len(list(tmp_path.rglob("*.png"))) == len(files)


def test_what_is_left_out_of_a_folder_is_said(classifier: Classifier, images: Path, tmp_path: Path) -> None:
    folder, reporter = tmp_path / "images", Listening()
    folder.mkdir()
    shutil.copy(images / "ok" / "000.png", folder)
    (folder / "notes.txt").write_text("about them")
    (row,) = explain(classifier, folder, tmp_path / "out", reporter=reporter)
    assert row.status == "ok" and reporter.said == [f"left out 1 file: 1 .txt ({folder / 'notes.txt'})"]
