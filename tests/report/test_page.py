import csv
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from thaw.classifier.classifier import Classifier
from thaw.classifier.decision import Decision
from thaw.cli import main
from thaw.data.dataset import Dataset
from thaw.errors import DataError
from thaw.evaluation.evaluate import Evaluation
from thaw.evaluation.records import Records, read_records
from thaw.metrics import Estimate, Scored
from thaw.pipeline import finetune, load, report
from thaw.progress import NullReporter
from thaw.recipe import DecisionSettings, Recipe, SplitSettings
from thaw.report.album import Album, folder_of
from thaw.report.content import PICTURE_BUDGET, Content, read_content
from thaw.report.images import own_probability, surest_mistakes
from thaw.report.page import render
from thaw.report.thresholds import counts_at, threshold_curves
from thaw.report.verdict import Judged, verdict
from thaw.run_folder import RunFolder

LIMIT = 5_000_000
EVIL = "<script>alert('a')</script>"


def train_table(rows: list[tuple[str, str]], recipe: Recipe, folder: Path, column: str = "label") -> RunFolder:
    """A run on a table of (path, label)."""
    table = folder / "table.csv"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", column), *rows])
    finetune(Dataset.open(table), recipe, folder / "runs", reporter=NullReporter())
    return RunFolder(folder / "runs" / "train-1")


@pytest.fixture(scope="module")
def short(quick: Recipe) -> Recipe:
    return quick.model_copy(update={"phases": quick.phases[:1], "split": SplitSettings(val=0.3, test=0.3)})


@pytest.fixture(scope="module")
def own_images(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that tests may spoil, with names that have to be escaped."""
    folder = tmp_path_factory.mktemp("report") / "images"
    shutil.copytree(images, folder)
    for file in (folder / "stain").iterdir():
        file.rename(file.with_name(f"<i>{file.stem}&\"'.png"))
    return folder


@pytest.fixture(scope="module")
def binary(own_images: Path, short: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two classes, one of them named to break a page, with a wish for its recall."""
    names = {"ok": "sound", "scratch": EVIL, "stain": EVIL}
    files = [file for kind in names for file in sorted((own_images / kind).iterdir())]
    recipe = short.model_copy(update={"decision": DecisionSettings(recall={EVIL: 0.9})})
    return train_table(
        [(str(file), names[file.parent.name]) for file in files], recipe, tmp_path_factory.mktemp("binary")
    )


@pytest.fixture(scope="module")
def multilabel(images: Path, short: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    marked = {"ok": "", "scratch": "scratch|dark", "stain": "stain"}
    rows = [(str(file), marked[kind]) for kind in marked for file in sorted((images / kind).iterdir())]
    return train_table(rows, short, tmp_path_factory.mktemp("multilabel"), "labels")


@pytest.fixture(scope="module")
def content(trained: RunFolder) -> Content:
    return read_content(trained, load(trained.path))


def judged_of(run: RunFolder) -> Judged:
    values = json.loads(run.evaluation.read_text())
    splits = [split for split in ("val", "test") if split in values]
    return Judged(
        {split: Evaluation.from_json(values[split]) for split in splits},
        {split: read_records(run.predictions, split) for split in splits},
    )


def test_every_run_leaves_one_file_that_asks_for_no_other(trained: RunFolder) -> None:
    page = trained.report.read_text(encoding="utf-8")
    assert len(page) < LIMIT
    sources = re.findall(r'(?:src|href|action|srcset)\s*=\s*"([^"]*)"', page)
    assert sources and all(source.startswith(("data:image/jpeg;base64,", "#")) for source in sources)
    assert "url(" not in page and "@import" not in page


def test_the_verdict_says_the_numbers_of_the_test_set(trained: RunFolder, content: Content) -> None:
    result = json.loads(trained.evaluation.read_text())["test"]
    accuracy, images = result["overall"]["accuracy"], result["images"]
    assert f"Right on {100 * accuracy['value']:.1f} % (" in content.verdict.sentence
    assert f"of {images} test images" in content.verdict.sentence
    recalls = {item["name"]: item["metrics"]["recall"] for item in result["per_class"]}
    lowest = min(recall["value"] for recall in recalls.values() if recall)
    if lowest < 1:
        weakest = re.search(r"weakest is (\w+)", content.verdict.sentence)
        assert weakest and recalls[weakest.group(1)]["value"] == lowest


def test_a_small_test_set_is_said_to_tell_little(content: Content) -> None:
    assert any(note.weight == "warning" and "tell little" in note.text for note in content.verdict.notes)


def test_the_class_with_a_threshold_is_the_one_that_is_found(binary: RunFolder) -> None:
    found = read_content(binary, load(binary.path))
    (outcome,) = json.loads(binary.evaluation.read_text())["test"]["thresholds"]
    recall, alarms = (f"{100 * outcome[name]['value']:.1f} % (" for name in ("recall", "false_positive_rate"))
    assert found.sought == EVIL and found.verdict.sentence.startswith(f"Finds {recall}")
    assert f"of {EVIL} at {alarms}" in found.verdict.sentence
    assert any("chosen on validation: recall" in note.text for note in found.verdict.notes)
    curve = found.thresholds[0]
    assert curve.chosen is not None and curve.class_name == EVIL
    assert curve.thresholds[curve.chosen] == pytest.approx(outcome["threshold"])


def test_names_of_classes_and_files_are_text_and_never_markup(binary: RunFolder) -> None:
    page = binary.report.read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "<i>0" not in page and "&lt;i&gt;0" in page
    data = re.search(r'<script type="application/json" id="moving">(.*?)</script>', page, re.DOTALL)
    assert data and json.loads(data.group(1))["curves"][0]["name"] == EVIL


def test_without_a_test_set_the_page_says_that_its_figures_flatter(images: Path, short: Recipe, tmp_path: Path) -> None:
    recipe = short.model_copy(update={"split": SplitSettings(val=0.4, test=0.0)})
    finetune(Dataset.open(images), recipe, tmp_path, reporter=NullReporter())
    found = read_content(RunFolder(tmp_path / "train-1"), load(tmp_path / "train-1"))
    assert found.split == "val" and "validation images" in found.verdict.sentence
    assert found.verdict.notes[0].weight == "warning" and "There is no test set" in found.verdict.notes[0].text


@pytest.mark.parametrize(("test", "weight"), [(0.5, "warning"), (0.93, "good")])
def test_validation_and_test_that_differ_by_more_than_chance_are_pointed_out(
    test: float, weight: str, trained: RunFolder
) -> None:
    judged, values = judged_of(trained), {"val": 0.95, "test": test}
    moved = {
        split: replace(
            result,
            overall={"accuracy": Estimate(values[split], values[split] - 0.03, values[split] + 0.03)},
        )
        for split, result in judged.evaluations.items()
    }
    notes = verdict(Judged(moved, judged.records), Decision(), None, "accuracy").notes
    (note,) = [note for note in notes if note.text.startswith("Validation and test")]
    assert note.weight == weight


def test_each_cell_shows_images_of_its_own_and_all_cells_count_every_image(
    trained: RunFolder, content: Content
) -> None:
    confusion, records = content.shown.confusion, judged_of(trained).record
    assert confusion is not None and sum(cell.count for cell in confusion.cells) == len(records.paths)
    place = {path: row for row, path in enumerate(records.paths)}
    for cell in confusion.cells:
        assert cell.pictures and len(cell.pictures) <= cell.count and cell.is_right == (cell.true == cell.given)
        for picture in cell.pictures:
            row = place[picture.name]
            assert picture.source.startswith("data:image/jpeg")
            assert records.classes[records.scored.truth[row].argmax()] == cell.true
            assert records.classes[records.scored.predicted[row].argmax()] == cell.given


def test_mistakes_come_with_reasons_and_the_nearest_training_images(binary: RunFolder) -> None:
    shown = read_content(binary, load(binary.path)).shown
    assert shown.mistakes and shown.agreement is not None and -1 <= shown.agreement <= 1
    for mistake in shown.mistakes:
        assert mistake.image.source and mistake.why.source and mistake.image.source != mistake.why.source
        assert len(mistake.nearest) == 3 and all(picture.source for picture in mistake.nearest)


def test_a_multilabel_page_judges_each_label_and_has_no_matrix(multilabel: RunFolder) -> None:
    found = read_content(multilabel, load(multilabel.path))
    assert found.shown.confusion is None and [item.name for item in found.classes] == ["dark", "scratch", "stain"]
    assert "Mean average precision" in found.verdict.sentence and not found.shown.ambiguous.total
    page = multilabel.report.read_text(encoding="utf-8")
    assert "Confusion matrix" not in page and ">Labels</h2>" in page
    assert all(curve.chosen == curve.thresholds.index(0.5) for curve in found.thresholds)


def test_an_image_that_is_gone_is_said_so(images: Path, trained: RunFolder) -> None:
    album = Album(load(trained.path), images, "", PICTURE_BUDGET)
    album.read(["ok/000.png", "ok/absent.png"], 64)
    here, gone = (album.picture(path, 64, "") for path in ("ok/000.png", "ok/absent.png"))
    assert here.source and not here.reason
    assert not gone.source and gone.reason == "No such file or directory"
    assert album.explained(["ok/absent.png"], [0], 64, ["why"])[0].reason == gone.reason


def test_the_page_of_a_run_whose_images_are_gone_can_still_be_written(
    own_images: Path, binary: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = binary.report.read_bytes()
    away = own_images.rename(own_images.with_name("away"))
    try:
        monkeypatch.setattr(sys, "argv", ["thaw", "report", str(binary.path)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        page = binary.report.read_text(encoding="utf-8")
        assert "not shown: No such file or directory" in page and "data:image" not in page
    finally:
        away.rename(own_images)
    assert report(binary.path) == binary.report
    assert binary.report.read_bytes() == kept


def test_pictures_stop_where_their_budget_ends(trained: RunFolder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(12)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / name)
    album = Album(load(trained.path), tmp_path, "", 20_000)
    album.read(names, 64)
    pictures = [album.picture(name, 64, "") for name in names]
    sizes = [len(picture.source) for picture in pictures]
    assert 0 < sum(sizes) <= 20_000 and sizes[0] and not sizes[-1]
    assert "stays small" in pictures[-1].reason


def test_many_classes_with_long_names_and_noisy_pictures_stay_under_the_limit(
    trained: RunFolder, content: Content
) -> None:
    name = "a class with a rather long name, " * 5
    noise = "data:image/jpeg;base64," + "A" * 9_000
    shown, confusion = content.shown, content.shown.confusion
    assert confusion is not None
    picture = replace(confusion.cells[0].pictures[0], source=noise, caption=name, detail=name)
    cell = replace(confusion.cells[0], true=name, given=name, pictures=(picture,) * 8)
    many = replace(
        content,
        shown=replace(shown, confusion=replace(confusion, cells=(cell,) * 40)),
        classes=tuple(replace(content.classes[0], name=name) for _ in range(100)),
        thresholds=tuple(replace(content.thresholds[0], class_name=f"{name}{i}") for i in range(40)),
    )
    assert 40 * 8 * len(noise) < PICTURE_BUDGET
    assert len(render(many).encode()) < LIMIT


@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from(["multiclass", "multilabel"]))
def test_mistakes_are_the_wrong_answers_and_the_surest_come_first(seed: int, images: int, task: str) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(4), images)
    truth = np.eye(4, dtype=bool)[rng.integers(0, 4, images)]
    predicted = probabilities >= 0.5 if task == "multilabel" else np.eye(4, dtype=bool)[probabilities.argmax(axis=1)]
    scored = Scored(task, probabilities, truth, predicted)  # type: ignore[arg-type]
    rows = surest_mistakes(scored)
    assert sorted(rows.tolist()) == np.flatnonzero(~scored.correct).tolist()
    if task == "multiclass":
        assert (np.diff(probabilities[rows].max(axis=1)) <= 0).all()
        np.testing.assert_allclose(own_probability(scored), probabilities[truth])
    else:
        worst = (np.abs(truth - probabilities) * (truth != predicted))[rows].max(axis=1)
        assert (np.diff(worst) <= 0).all()


@given(st.integers(0, 10**6), st.integers(1, 80), st.floats(0.01, 0.99))
def test_the_slider_counts_what_a_threshold_calls(seed: int, images: int, wanted: float) -> None:
    rng = np.random.default_rng(seed)
    second = np.round(rng.random(images), 2)
    probabilities = np.stack([1 - second, second], axis=1)
    truth = np.eye(2, dtype=bool)[rng.integers(0, 2, images)]
    decision = Decision(((1, wanted),))
    records = Records(
        paths=("",) * images,
        classes=("no", "yes"),
        scored=Scored("binary", probabilities, truth, decision.labels(probabilities, "binary")),
        nearest=((),) * images,
        ambiguous=np.zeros(images, bool),
        out_of_distribution=np.zeros(images, bool),
        distance=np.zeros(images),
    )
    curve, other = threshold_curves(Judged({}, {"val": records}), decision, 1)
    assert (curve.class_name, other.chosen) == ("yes", None) and curve.chosen is not None
    counts = curve.sets["val"]
    for place in (0, curve.chosen, 100, len(curve.thresholds) - 1):
        called = second >= curve.thresholds[place]
        assert counts.found[place] == (called & truth[:, 1]).sum()
        assert counts.alarms[place] == (called & ~truth[:, 1]).sum()
    assert counts.found[curve.chosen] == (records.scored.predicted & truth)[:, 1].sum()


def test_the_folder_that_all_paths_share_is_left_out_of_captions() -> None:
    assert folder_of(["/a/set/ok/1.png", "/a/set/old/2.png"]) == "/a/set/"
    assert folder_of(["ok/1.png", "old/2.png"]) == ""


def test_a_page_that_cannot_be_written_does_not_lose_the_run(images: Path, short: Recipe, tmp_path: Path) -> None:
    class Blocking(NullReporter):
        """Puts a folder where the page should go, as soon as the results are shown."""

        said = ""

        def table(self, title: str, header: object, rows: object) -> None:
            if title.startswith("Result"):
                (tmp_path / "train-1" / "report.html").mkdir()

        def say(self, line: str) -> None:
            self.said += line

    reporter = Blocking()
    assert isinstance(finetune(Dataset.open(images), short, tmp_path, reporter=reporter), Classifier)
    run = RunFolder(tmp_path / "train-1")
    assert run.is_finished and load(run.path).classes
    assert "report.html could not be written" in reporter.said and f"thaw report {run.path}" in reporter.said


def test_only_a_finished_run_has_a_report(trained: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a bundle"):
        report(trained.model)
    with pytest.raises(DataError, match="no such run"):
        report(tmp_path / "absent")
    run = RunFolder(tmp_path / "train-1")
    shutil.copytree(trained.path, run.path)
    run.predictions.unlink()
    with pytest.raises(DataError, match=r"predictions\.parquet"):
        report(run.path)
    run.evaluation.write_text("{}")
    with pytest.raises(DataError, match="cannot be read as a finished run"):
        report(run.path)


def test_what_it_takes_to_make_the_run_again_is_on_the_page(trained: RunFolder, content: Content) -> None:
    origin = content.origin
    sums = (trained.model / "SHA256SUMS").read_text()
    assert f"{origin.weights_sha256}  model.safetensors" in sums
    assert Recipe.load(trained.recipe).to_yaml() == origin.recipe and origin.seed == 0
    facts = dict(origin.facts)
    assert "cores" in facts["machine"] and "PyTorch" in facts["versions"]
    parts = [part.part for part in content.times]
    assert parts[0].startswith("feature extraction") and parts[-1] == "all of it"


def test_raising_a_threshold_never_finds_more() -> None:
    rng = np.random.default_rng(1)
    counts = counts_at(rng.random(200), rng.random(200) < 0.5, np.linspace(0.0, 1.0, 101))
    recalls = [found / counts.images for found in counts.found]
    alarms = [wrong / counts.others for wrong in counts.alarms]
    assert recalls == sorted(recalls, reverse=True) and alarms == sorted(alarms, reverse=True)
    assert recalls[0] == alarms[0] == 1.0
