import csv
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.vocabulary import offences, text_of
from thaw.classifier.classifier import Classifier
from thaw.classifier.decision import Decision
from thaw.cli import main
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.errors import DataError
from thaw.evaluation.evaluate import Evaluation
from thaw.evaluation.records import Records, read_records
from thaw.evaluation.review import ReviewRates
from thaw.metrics import Estimate, Scored
from thaw.pipeline import finetune, load, report
from thaw.progress import NullReporter
from thaw.recipe import DecisionSettings, KeepPhase, Recipe, SplitSettings, Task
from thaw.reports.album import Album, common_folder
from thaw.reports.content import THUMBNAIL_BUDGET, Content, read_content
from thaw.reports.images import read_images
from thaw.reports.page import render
from thaw.reports.results import Results
from thaw.reports.selection import label_probability, most_confident_errors
from thaw.reports.thresholds import counts_at, threshold_curves
from thaw.reports.verdict import find_class_of_interest, verdict
from thaw.run_folder import RunFolder
from thaw.selection.estimates import Estimates, Expected
from thaw.training.gain import KEPT_FOR, PhaseGain
from thaw.training.skipping import SkippedPhase

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
    """A copy that tests may move, with file names that need escaping."""
    folder = tmp_path_factory.mktemp("report") / "images"
    shutil.copytree(images, folder)
    for file in (folder / "stain").iterdir():
        file.rename(file.with_name(f"<i>{file.stem}&\"'.png"))
    return folder


@pytest.fixture(scope="module")
def binary(own_images: Path, short: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with two classes, one of them with a name that needs escaping and a target recall."""
    names = {"ok": "sound", "scratch": EVIL, "stain": EVIL}
    files = [file for kind in names for file in sorted((own_images / kind).iterdir())]
    recipe = short.model_copy(update={"decision": DecisionSettings(recall={EVIL: 0.9})})
    return train_table(
        [(str(file), names[file.parent.name]) for file in files], recipe, tmp_path_factory.mktemp("binary")
    )


@pytest.fixture(scope="module")
def multilabel(images: Path, short: Recipe, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    labels = {"ok": "", "scratch": "scratch|dark", "stain": "stain"}
    rows = [(str(file), labels[kind]) for kind in labels for file in sorted((images / kind).iterdir())]
    return train_table(rows, short, tmp_path_factory.mktemp("multilabel"), "labels")


@pytest.fixture(scope="module")
def content(trained: RunFolder) -> Content:
    return read_content(trained, load(trained.path))


def records_of(task: Task, probabilities: np.ndarray, truth: np.ndarray, decision: Decision) -> Records:
    """Records of images that are flagged for nothing, in classes that are called by their numbers."""
    images, classes = probabilities.shape
    return Records(
        paths=("",) * images,
        classes=tuple(map(str, range(classes))),
        scored=Scored(task, probabilities, truth, decision.labels(probabilities, task)),
        nearest=((),) * images,
        ambiguous=np.zeros(images, bool),
        out_of_distribution=np.zeros(images, bool),
        distance=np.zeros(images),
    )


def results_of(run: RunFolder) -> Results:
    values = json.loads(run.evaluation.read_text())
    splits = [split for split in ("val", "test") if split in values]
    return Results(
        {split: Evaluation.from_json(values[split]) for split in splits},
        {split: read_records(run.predictions, split) for split in splits},
    )


def test_the_report_is_one_self_contained_file(trained: RunFolder) -> None:
    page = trained.report.read_text(encoding="utf-8")
    assert len(page) < LIMIT
    sources = re.findall(r'(?:src|href|action|srcset)\s*=\s*"([^"]*)"', page)
    assert sources and all(source.startswith(("data:image/jpeg;base64,", "data:,", "#")) for source in sources)
    assert "url(" not in page and "@import" not in page


def test_reports_use_the_vocabulary_of_the_field(trained: RunFolder, binary: RunFolder, multilabel: RunFolder) -> None:
    for run in (trained, binary, multilabel):
        assert offences(text_of(run.report.read_text(encoding="utf-8"))) == []


def test_the_verdict_states_the_metrics_of_the_test_set(trained: RunFolder, content: Content) -> None:
    result = json.loads(trained.evaluation.read_text())["test"]
    accuracy, images = result["overall"]["accuracy"], result["images"]
    assert f"Accuracy is {100 * accuracy['value']:.1f}% (" in content.verdict.sentence
    assert f"on {images} test images" in content.verdict.sentence
    recalls = {item["name"]: item["metrics"]["recall"] for item in result["per_class"]}
    lowest = min(recall["value"] for recall in recalls.values() if recall)
    if lowest < 1:
        weakest = re.search(r"the weakest class is (\w+)", content.verdict.sentence)
        assert weakest and recalls[weakest.group(1)]["value"] == lowest


def test_a_small_test_set_is_a_warning(content: Content) -> None:
    assert any(note.severity == "warning" and note.text.startswith("Small sample") for note in content.verdict.notes)


def test_the_class_with_a_threshold_is_the_class_of_interest(binary: RunFolder) -> None:
    found = read_content(binary, load(binary.path))
    (outcome,) = json.loads(binary.evaluation.read_text())["test"]["thresholds"]
    recall, false_positive_rate = (
        f"{100 * outcome[name]['value']:.1f}% (" for name in ("recall", "false_positive_rate")
    )
    assert found.class_of_interest == EVIL and found.verdict.sentence.startswith(f"Recall of {EVIL} is {recall}")
    assert f"at a false-positive rate of {false_positive_rate}" in found.verdict.sentence
    assert any(note.text.startswith("Decision rule, chosen on validation: ") for note in found.verdict.notes)
    curve = found.thresholds[0]
    assert curve.in_use is not None and curve.class_name == EVIL
    assert curve.thresholds[curve.in_use] == pytest.approx(outcome["threshold"])


def test_names_of_classes_and_files_are_escaped(binary: RunFolder) -> None:
    page = binary.report.read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "<i>0" not in page and "&lt;i&gt;0" in page
    data = re.search(r'<script type="application/json" id="threshold-data">(.*?)</script>', page, re.DOTALL)
    assert data and json.loads(data.group(1))["curves"][0]["name"] == EVIL


def test_the_subtitle_names_the_backbone_of_the_recipe_and_not_its_architecture(
    trained: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    starter = trained.read_recipe().model_copy(update={"backbone": "starter"})
    monkeypatch.setattr(RunFolder, "read_recipe", lambda _: starter)
    assert read_content(trained, load(trained.path)).subtitle.startswith("train-1: starter, multiclass, 3 classes")


def test_without_a_test_set_the_metrics_are_called_optimistic(images: Path, short: Recipe, tmp_path: Path) -> None:
    recipe = short.model_copy(update={"split": SplitSettings(val=0.4, test=0.0)})
    finetune(Dataset.open(images), recipe, tmp_path, reporter=NullReporter())
    found = read_content(RunFolder(tmp_path / "train-1"), load(tmp_path / "train-1"))
    assert found.split == "val" and "validation images" in found.verdict.sentence
    assert found.verdict.notes[0].severity == "warning" and "There is no test set" in found.verdict.notes[0].text


@pytest.mark.parametrize(("test", "severity"), [(0.5, "warning"), (0.93, "good")])
def test_a_difference_between_validation_and_test_beyond_sampling_noise_is_a_warning(
    test: float, severity: str, trained: RunFolder
) -> None:
    results, values = results_of(trained), {"val": 0.95, "test": test}
    moved = {
        split: replace(
            result,
            overall={"accuracy": Estimate(values[split], values[split] - 0.03, values[split] + 0.03)},
        )
        for split, result in results.evaluations.items()
    }
    notes = verdict(Results(moved, results.records), Decision(), None, "accuracy").notes
    (note,) = [note for note in notes if note.text.startswith("Validation and test")]
    assert note.severity == severity


@pytest.mark.parametrize(
    ("task", "ambiguous", "far", "severity", "text"),
    [
        ("multiclass", True, True, "good", ": none is ambiguous or out-of-distribution."),
        ("multiclass", True, False, "note", "too few images to tell which are out-of-distribution."),
        ("multiclass", False, True, "note", "too few images to tell which are ambiguous."),
        ("multiclass", False, False, "note", "too few images to tell which are ambiguous or out-of-distribution."),
        ("multilabel", False, True, "good", ": none is out-of-distribution."),
        ("multilabel", False, False, "note", "too few images to tell which are out-of-distribution."),
    ],
)
def test_that_nothing_is_flagged_is_good_only_where_something_could_be(
    task: Task, ambiguous: bool, far: bool, severity: str, text: str, trained: RunFolder
) -> None:
    results, rate = results_of(trained), Estimate(0.0, 0.0, 0.1)
    review = ReviewRates(None, rate if ambiguous else None, rate if far else None, rate)
    record, none = results.records["test"], np.zeros(len(results.records["test"].paths), bool)
    record = replace(record, scored=replace(record.scored, task=task), ambiguous=none, out_of_distribution=none)
    results = Results(
        {**results.evaluations, "test": replace(results.evaluations["test"], review=review)},
        {**results.records, "test": record},
    )
    notes = verdict(results, Decision(), None, "accuracy").notes
    (note,) = [note for note in notes if note.text.startswith("No images are flagged for review")]
    assert note.severity == severity and note.text.endswith(text)


@pytest.mark.parametrize("differ", [True, False])
def test_what_to_expect_of_unseen_groups_is_in_the_verdict(differ: bool, trained: RunFolder) -> None:
    across = Expected(0.83, 0.81, 0.86, 400, 12)
    estimates = Estimates(Expected(0.996, 0.99, 1.0, 400, 400), across, "samples", differ)
    found = verdict(replace(results_of(trained), estimates=estimates), Decision(), None, "accuracy")
    (note,) = [note for note in found.notes if "cross-validated before training" in note.text]
    assert "99.6% on images like these; 81% to 86% expected on unseen samples (12 groups)" in note.text
    assert note.severity == ("warning" if differ else "note")
    expected = "On samples that training has not seen, expect an accuracy of 81% to 86%."
    assert found.sentence.endswith(expected) == differ


def test_cells_of_the_confusion_matrix_show_their_own_images_and_count_every_image(
    trained: RunFolder, content: Content
) -> None:
    confusion, records = content.images.confusion, results_of(trained).record
    assert confusion is not None and sum(cell.count for cell in confusion.cells) == len(records.paths)
    row_of = {path: row for row, path in enumerate(records.paths)}
    for cell in confusion.cells:
        assert cell.thumbnails and len(cell.thumbnails) <= cell.count
        for thumbnail in cell.thumbnails:
            row = row_of[thumbnail.name]
            assert thumbnail.data_url.startswith("data:image/jpeg")
            assert records.classes[records.scored.truth[row].argmax()] == cell.true
            assert records.classes[records.scored.predicted[row].argmax()] == cell.predicted


def test_errors_come_with_evidence_and_the_nearest_training_images(binary: RunFolder) -> None:
    images = read_content(binary, load(binary.path)).images
    assert images.errors and images.map_check is not None and -1 <= images.map_check.agreement <= 1
    for error in images.errors:
        assert error.image.data_url and error.evidence.data_url and error.image.data_url != error.evidence.data_url
        assert len(error.neighbours) == 3 and all(thumbnail.data_url for thumbnail in error.neighbours)


def test_a_multilabel_report_has_metrics_per_label_and_no_confusion_matrix(multilabel: RunFolder) -> None:
    found = read_content(multilabel, load(multilabel.path))
    assert found.images.confusion is None and [item.name for item in found.classes] == ["dark", "scratch", "stain"]
    assert "Mean average precision" in found.verdict.sentence and not found.images.ambiguous.total
    page = multilabel.report.read_text(encoding="utf-8")
    assert "Confusion matrix" not in page and ">Labels</h2>" in page
    assert all(curve.in_use == curve.thresholds.index(0.5) for curve in found.thresholds)


def test_the_gain_of_each_phase_is_in_points_or_in_the_unit_of_the_loss(content: Content) -> None:
    gains = tuple(
        PhaseGain("later", 3, 1.0, best, before, best - before, standard_error, is_kept)
        for best, before, standard_error, is_kept in (
            (0.9, 0.88, 0.015, True),
            (-0.3, -0.4, 0.12, False),
            (-0.3, -0.2, None, False),
        )
    )
    for gain, monitor, expected, outcome in zip(
        gains,
        ("accuracy", "loss", "loss"),
        (["90.0%", "+2.0", "1.5"], ["0.300", "+0.100", "0.120"], ["0.300", "-0.100", "-"]),
        ("kept", "not kept: within one standard error", "not kept"),
        strict=True,
    ):
        page = render(replace(content, training=replace(content.training, monitor=monitor, gains=(gain,))))
        (row,) = re.findall(r"<tr><td>later</td>(.*?)</tr>", page, re.DOTALL)
        assert re.findall(r'"number">([^<]*)<', row) == ["3", "1.0 s", *expected] and f"<td>{outcome}</td>" in row


@pytest.mark.parametrize("keep", get_args(KeepPhase))
def test_the_report_says_for_what_gain_a_later_phase_is_kept(content: Content, keep: KeepPhase) -> None:
    page = render(replace(content, training=replace(content.training, keep_phase=keep)))
    assert f"A later phase is kept for {KEPT_FOR[keep]}." in " ".join(page.split())


def test_a_skipped_phase_is_shown_with_its_reason_and_the_time_that_it_saved(content: Content) -> None:
    skipped = SkippedPhase("deeper", "phase top gained 0.4 points", 80.0)
    page = render(replace(content, training=replace(content.training, skipped=(skipped,))))
    (row,) = re.findall(r"<tr><td>deeper</td>(.*?)</tr>", page, re.DOTALL)
    assert "skipped, which saved at most 80 s: phase top gained 0.4 points" in row


def test_a_missing_image_is_reported_with_its_reason(images: Path, trained: RunFolder) -> None:
    album = Album(load(trained.path), images, "", THUMBNAIL_BUDGET)
    album.read(["ok/000.png", "ok/absent.png"], 64)
    present, absent = (album.thumbnail(path, 64, "") for path in ("ok/000.png", "ok/absent.png"))
    assert present.data_url and not present.reason
    assert not absent.data_url and absent.reason == "no such file"
    assert album.evidence(["ok/absent.png"], [0], 64, ["evidence"])[0].reason == absent.reason


def test_the_report_can_be_written_without_the_images(
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
        assert "not shown: no such file" in page and "data:image" not in page
    finally:
        away.rename(own_images)
    assert report(binary.path) == binary.report
    assert binary.report.read_bytes() == kept


def test_thumbnails_stay_within_the_budget(trained: RunFolder, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(12)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / name)
    album = Album(load(trained.path), tmp_path, "", 20_000)
    album.read(names, 64)
    thumbnails = [album.thumbnail(name, 64, "") for name in names]
    sizes = [len(thumbnail.data_url) for thumbnail in thumbnails]
    assert 0 < sum(sizes) <= 20_000 and sizes[0] and not sizes[-1]
    assert "page small" in thumbnails[-1].reason


def test_many_classes_with_long_names_and_noisy_images_stay_under_the_limit(
    trained: RunFolder, content: Content
) -> None:
    name = "a class with a rather long name, " * 5
    noise = "data:image/jpeg;base64," + "A" * 9_000
    confusion = content.images.confusion
    assert confusion is not None
    thumbnail = replace(confusion.cells[0].thumbnails[0], data_url=noise, caption=name, detail=name)
    cell = replace(confusion.cells[0], true=name, predicted=name, thumbnails=(thumbnail,) * 8)
    many = replace(
        content,
        images=replace(content.images, confusion=replace(confusion, cells=(cell,) * 40)),
        classes=tuple(replace(content.classes[0], name=name) for _ in range(100)),
        thresholds=tuple(replace(content.thresholds[0], class_name=f"{name}{i}") for i in range(40)),
    )
    assert 40 * 8 * len(noise) < THUMBNAIL_BUDGET
    assert len(render(many).encode()) < LIMIT


@given(st.integers(0, 10**6), st.integers(1, 60), st.sampled_from(["multiclass", "multilabel"]))
def test_errors_are_the_wrong_predictions_by_decreasing_confidence(seed: int, images: int, task: str) -> None:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(4), images)
    truth = np.eye(4, dtype=bool)[rng.integers(0, 4, images)]
    predicted = probabilities >= 0.5 if task == "multilabel" else np.eye(4, dtype=bool)[probabilities.argmax(axis=1)]
    scored = Scored(task, probabilities, truth, predicted)  # type: ignore[arg-type]
    rows = most_confident_errors(scored)
    assert sorted(rows.tolist()) == np.flatnonzero(~scored.correct).tolist()
    if task == "multiclass":
        assert (np.diff(probabilities[rows].max(axis=1)) <= 0).all()
        np.testing.assert_allclose(label_probability(scored), probabilities[truth])
    else:
        worst = (np.abs(truth - probabilities) * (truth != predicted))[rows].max(axis=1)
        assert (np.diff(worst) <= 0).all()


@given(st.integers(0, 10**6), st.integers(1, 80), st.floats(0.01, 0.99))
def test_threshold_counts_agree_with_the_decision_rule(seed: int, images: int, wanted: float) -> None:
    rng = np.random.default_rng(seed)
    second = np.round(rng.random(images), 2)
    probabilities = np.stack([1 - second, second], axis=1)
    truth = np.eye(2, dtype=bool)[rng.integers(0, 2, images)]
    decision = Decision(((1, wanted),))
    records = records_of("binary", probabilities, truth, decision)
    curve, other = threshold_curves(Results({}, {"val": records}), decision, 1)
    assert (curve.class_name, other.in_use) == ("1", None) and curve.in_use is not None
    counts = curve.splits["val"]
    for index in (0, curve.in_use, 100, len(curve.thresholds) - 1):
        predicted = second >= curve.thresholds[index]
        assert counts.true_positives[index] == (predicted & truth[:, 1]).sum()
        assert counts.false_positives[index] == (predicted & ~truth[:, 1]).sum()
    assert counts.true_positives[curve.in_use] == (records.scored.predicted & truth)[:, 1].sum()


@given(st.integers(0, 10**6), st.integers(1, 80), st.floats(0.1, 50), st.floats(0.1, 50))
def test_costs_of_two_classes_have_a_threshold(seed: int, images: int, missed: float, alarm: float) -> None:
    rng = np.random.default_rng(seed)
    second = rng.random(images)
    probabilities = np.stack([1 - second, second], axis=1)
    truth = np.eye(2, dtype=bool)[rng.integers(0, 2, images)]
    decision = Decision(costs=((0.0, alarm), (missed, 0.0)))
    records = records_of("binary", probabilities, truth, decision)
    for index, curve in enumerate(threshold_curves(Results({}, {"val": records}), decision, None)):
        assert curve.in_use is not None
        found = curve.splits["val"].true_positives[curve.in_use]
        assert found == (records.scored.predicted & truth)[:, index].sum()


@pytest.mark.parametrize(
    ("task", "decision", "own"),
    [
        # By default, whatever has a likelier label than its own.
        ("multiclass", Decision(), ["labelled b (20.0%), most likely a (70.0%)"]),
        # Costs that predict the own label do not contradict it.
        ("multiclass", Decision(costs=((0, 1, 1), (9, 0, 9), (1, 1, 0))), []),
        # Neither do those by which another label is predicted than the likelier one.
        ("multiclass", Decision(((2, 0.05),)), ["labelled b (20.0%), most likely a (70.0%)"]),
        ("multilabel", Decision(), ["labelled b (20.0%)"]),
        ("multilabel", Decision(((1, 0.1),)), []),
        # Predicted, but not as likely as not.
        ("multilabel", Decision(((1, 0.1), (2, 0.05))), []),
    ],
)
def test_probable_label_errors_are_predicted_otherwise(
    task: Task, decision: Decision, own: list[str], images: Path, trained: RunFolder
) -> None:
    first = 0.7 if task == "multiclass" else 0.1
    records = records_of(task, np.array([[first, 0.2, 0.1]]), np.eye(3, dtype=bool)[[1]], decision)
    found = Results({}, {"val": replace(records, paths=("ok/000.png",), classes=("a", "b", "c"))})
    shown = read_images(found, Manifest.read(trained.manifest), Album(load(trained.path), images, "", THUMBNAIL_BUDGET))
    assert [thumbnail.caption for thumbnail in shown.label_errors.thumbnails] == own


def test_the_common_folder_of_all_paths_ends_with_a_slash() -> None:
    assert common_folder(["/a/set/ok/1.png", "/a/set/old/2.png"]) == "/a/set/"
    assert common_folder(["ok/1.png", "old/2.png"]) == ""


def test_a_report_that_cannot_be_written_does_not_lose_the_run(images: Path, short: Recipe, tmp_path: Path) -> None:
    class Blocking(NullReporter):
        """Creates a folder in place of the page as soon as the results are shown."""

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
    with pytest.raises(DataError, match=r"evaluation\.json: is not what a run writes"):
        report(run.path)


def test_the_report_names_everything_that_reproduces_the_run(trained: RunFolder, content: Content) -> None:
    provenance = content.provenance
    sums = (trained.model / "SHA256SUMS").read_text()
    assert f"{provenance.weights_sha256}  model.safetensors" in sums
    assert Recipe.load(trained.recipe).to_yaml() == provenance.recipe and provenance.seed == 0
    facts = provenance.facts
    assert "core" in facts["machine"] and "PyTorch" in facts["versions"]
    parts = [part.part for part in content.times]
    assert parts[0].startswith("feature extraction") and parts[-1] == "total"


def test_recall_and_false_positive_rate_decrease_with_the_threshold() -> None:
    rng = np.random.default_rng(1)
    counts = counts_at(rng.random(200), rng.random(200) < 0.5, np.linspace(0.0, 1.0, 101))
    recalls = [hits / counts.positives for hits in counts.true_positives]
    false_positive_rates = [wrong / counts.negatives for wrong in counts.false_positives]
    assert recalls == sorted(recalls, reverse=True)
    assert false_positive_rates == sorted(false_positive_rates, reverse=True)
    assert recalls[0] == false_positive_rates[0] == 1.0


def test_a_class_is_of_interest_if_something_is_required_of_it(trained: RunFolder) -> None:
    manifest, thresholds = Manifest.read(trained.manifest), ((0, 0.3), (2, 0.3), (1, 0.3))
    required = Decision(thresholds, reason="recall of scratch at least 0.9")
    assert find_class_of_interest(required, manifest) == manifest.classes.index("scratch")
    # As class weights give every label one.
    weighted = Decision(thresholds, reason="each class counts as in training, with balanced weights")
    assert find_class_of_interest(weighted, manifest) is None
    assert find_class_of_interest(Decision(), manifest) is None
