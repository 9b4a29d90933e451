import json
import shutil
from pathlib import Path

import pytest

from tests.cli.running import thaw
from tests.runs import without_test
from thaw.bundle import digest_of, read_bundle
from thaw.data.manifest import Manifest
from thaw.run_folder import RunFolder


def test_evaluate_by_folds_says_each_seed_and_the_mean_and_writes_them(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "folds.json"
    assert thaw(monkeypatch, "evaluate", trained.path, "--folds", 3, "--seeds", 2, "--out", out) == 0
    said = capsys.readouterr().out
    assert "3 folds of 36 images" in said and "mean" in said and "±" in said
    assert len(json.loads(out.read_text())["by_seed"]) == 2


def test_evaluate_offers_ways_to_predict(
    trained: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert thaw(monkeypatch, "evaluate", trained.path, "--options") == 0
    said = capsys.readouterr().out
    assert "64 px, with the mirror image" in said and "predict" in said.splitlines()[-1]


def test_compare_says_who_is_better(
    trained: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert thaw(monkeypatch, "compare", trained.path, trained.path) == 0
    assert "No significant difference" in capsys.readouterr().out


def test_compare_on_a_split_that_a_run_lacks_says_which_one_there_is(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = without_test(shutil.copytree(trained.path, tmp_path / "train-2"))
    assert thaw(monkeypatch, "compare", trained.path, other.path) == 2
    assert f"{other.path}: has no predictions on test; use --split val" in capsys.readouterr().err
    assert thaw(monkeypatch, "compare", trained.path, other.path, "--split", "val") == 0


def test_compare_leaves_out_files_that_were_replaced_between_the_runs(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = RunFolder(Path(shutil.copytree(trained.path, tmp_path / "train-2")))
    manifest = Manifest.read(other.manifest)
    tested = manifest.indices("test")
    digests = list(manifest.column("sha256"))
    digests[tested[0]] = "0" * 64
    manifest.with_columns({"sha256": digests}).write(other.manifest)
    assert thaw(monkeypatch, "compare", trained.path, other.path) == 0
    assert f"on {len(tested) - 1} images" in capsys.readouterr().out


def test_evaluate_counts_images_of_one_part_as_dependent(
    trained: RunFolder,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As training finds parts in file names."""
    for number, file in enumerate(sorted(images.rglob("*.png"))):
        place = tmp_path / "parts" / file.parent.name / f"part{number // 3}_{number % 3}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    out = tmp_path / "metrics.json"
    assert thaw(monkeypatch, "evaluate", trained.path, tmp_path / "parts", "--out", out) == 0
    assert "groups found in file names: 12 of 3 images" in capsys.readouterr().out
    assert json.loads(out.read_text())["groups"] == 12


def test_decide_writes_a_model_card_with_the_metrics_of_the_new_decision(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    assert thaw(monkeypatch, "decide", trained.path, "--recall", "scratch=1", "--out", out) == 0
    card, before = ((folder / "MODEL_CARD.md").read_text() for folder in (out, trained.model))
    recall = next(line for line in card.splitlines() if line.startswith("| scratch |")).split("|")[4]
    assert recall.strip().startswith("100.0%")
    assert "Decision: recall of scratch at least 1." in card
    assert card.count("### Classes on val") == before.count("### Classes on val") == 1


def test_decide_writes_a_bundle_with_the_threshold_and_says_what_it_does(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model-99"
    assert thaw(monkeypatch, "decide", trained.path, "--recall", "scratch=0.99", "--out", out) == 0
    said = capsys.readouterr().out
    assert "val: scratch if p >= " in said and "test: scratch if p >= " in said and "false-positive rate" in said
    decision = read_bundle(out).decision
    assert decision.thresholds[0][0] == 1 and "recall of scratch" in decision.reason
    written = json.loads((out / "config.json").read_text(encoding="utf-8"))["thaw"]["provenance"]
    assert written == {"decision_of": trained.path.name, "bundle": digest_of(trained.model)}
    assert thaw(monkeypatch, "decide", trained.path, "--recall", "scratch=0.9", "--out", out) == 2
    assert "already exists" in capsys.readouterr().err


def test_decide_shows_validation_alone_for_a_run_without_test_images(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, out = tmp_path / "runs", tmp_path / "model"
    settings = ("--backbone", "starter", "--image-size", 64, "--strategy", "head", "--set", "split.test=0")
    assert thaw(monkeypatch, "train", images, "--runs", runs, *settings) == 0
    assert thaw(monkeypatch, "decide", runs / "train-1", "--recall", "scratch=0.9", "--out", out) == 0
    said = capsys.readouterr().out
    assert "There is no test set." in said
    assert "val: scratch if p >= " in said and "test: scratch if p >= " not in said
    assert "recall of scratch" in read_bundle(out).decision.reason


def test_decide_says_what_another_coverage_flags_and_refuses_one_that_takes_more_images(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert thaw(monkeypatch, "decide", trained.path, "--coverage", "0.99", "--out", tmp_path / "coverage") == 2
    assert "takes at least 99 validation images" in capsys.readouterr().err
    assert thaw(monkeypatch, "decide", trained.path, "--coverage", "0.5", "--out", tmp_path / "coverage") == 0
    said = capsys.readouterr().out
    assert "val: flagged for review" in said and "test: flagged for review" in said and "before" not in said


def test_decide_on_what_is_flagged_keeps_the_decision(
    trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert thaw(monkeypatch, "decide", trained.path, "--in-distribution", "0.5", "--out", out) == 0
    assert "in_distribution 0.5" in capsys.readouterr().out
    before, after = read_bundle(trained.model), read_bundle(out)
    assert before.decision == after.decision and before.review_policy and after.review_policy
    assert after.review_policy.max_distance < before.review_policy.max_distance
    assert after.review_policy.min_probability == before.review_policy.min_probability


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("evaluate", "RUN"), "give either DATA"),
        (("evaluate", "RUN", "DATA", "--options"), "give either DATA"),
        (("evaluate", "RUN", "DATA", "--whole"), "--whole is for cross-validation; add --folds K"),
        (("evaluate", "RUN", "DATA", "--seeds", "2"), "--seeds is for cross-validation; add --folds K"),
        (("evaluate", "RUN", "--folds", "1"), "needs at least two folds"),
        (("decide", "RUN", "--out", "OUT"), "name a requirement"),
        (("decide", "RUN", "--recall", "dent=0.9", "--out", "OUT"), "no class 'dent'"),
        (("decide", "RUN", "--recall", "scratch", "--out", "OUT"), "decision.recall"),
        (("decide", "RUN", "--coverage", "1", "--out", "OUT"), "decision.coverage"),
        (("compare", "RUN", "OUT"), "there is no such run"),
        (("compare", "RUN", "RUN", "--split", "holdout"), "no predictions on holdout"),
        (("report", "OUT"), "there is no such run"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    words: tuple[str, ...],
    says: str,
    trained: RunFolder,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"RUN": trained.path, "DATA": images, "OUT": tmp_path / "nothing"}
    assert thaw(monkeypatch, *(places.get(word, word) for word in words)) == 2
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said
    assert not (tmp_path / "nothing").exists()
