"""`pretraining.prove` on three tiny data sets; results of tiny networks are meaningless, only bookkeeping is tested."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import timm
from safetensors.torch import save_file

from pretraining import prove
from pretraining.prove import Cell, LabelledFiles, linear, table
from thaw.recipe import AugmentSettings, Phase, PreprocessingSettings, Recipe
from thaw.run_folder import RunFolder

TEACHER = "test_efficientnet"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes, dark and bright, of 16 images each."""
    rng = np.random.default_rng(0)
    for label, grey in (("dark", 60), ("bright", 180)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(16):
            pixels = rng.integers(grey - 40, grey + 40, (40, 40, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "images" / label / f"{number}.png"), pixels)
    return tmp_path / "images"


def test_few_is_ten_of_each_class_and_the_rest_is_the_test(images: Path) -> None:
    data = LabelledFiles.open(images)
    train, test = data.split("few", seed=0)
    assert sorted(data.labels[train]) == ["bright"] * 10 + ["dark"] * 10
    assert sorted([*train, *test]) == list(range(32))
    assert not np.array_equal(train, data.split("few", seed=1)[0])


def test_a_linear_head_reads_what_is_there() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 40)
    features = rng.normal(size=(80, 5)) + 4 * (labels == "a")[:, None]
    rows = rng.permutation(80)
    assert linear(features, labels, rows[:40], rows[40:]) > 95


def test_the_table_says_how_much_of_the_gap_is_closed() -> None:
    cells = [
        Cell("steel", "few", "linear", kind, seed, accuracy, "w")
        for kind, accuracies in {"random": (40, 60), "starter": (80, 90), "teacher": (99, 91)}.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    assert table(cells).splitlines()[-1] == (
        "| steel | few | linear | 2 | 50.0 ± 10.0 | 85.0 ± 5.0 | 95.0 ± 4.0 | 78 % |"
    )


@pytest.mark.slow
def test_results_are_kept_and_not_computed_again(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(timm.create_model(TEACHER).state_dict(), tmp_path / "t.safetensors")
    save_file(timm.create_model("mobilenetv2_100").state_dict(), tmp_path / "s.safetensors")
    words = [str(tmp_path / "proof"), f"tiny={images}", "--teacher", str(tmp_path / "t.safetensors")]
    words += ["--starter", str(tmp_path / "s.safetensors")]
    words += ["--teacher-name", TEACHER, "--images", "few", "--seeds", "1"]
    prove.main(words)
    assert "| tiny | few | linear | 1 |" in capsys.readouterr().out
    prove.main(words)
    assert "Cell(" not in capsys.readouterr().out
    save_file(timm.create_model("mobilenetv2_100").state_dict(), tmp_path / "s.safetensors")
    prove.main(words)
    # Neither the teacher nor a random start has changed.
    said = capsys.readouterr().out
    assert said.count("Cell(") == said.count("backbone='starter'") == 1


def test_both_phases_are_tested_on_the_other_images(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = Recipe(
        backbone=TEACHER,
        weights="random",
        engine="pytorch-fp32",
        preprocessing=PreprocessingSettings(image_size=64),
        augment=AugmentSettings(preset="none"),
        phases=(Phase(name="head", cut="head", epochs=2, lr=1e-2),),
    )
    monkeypatch.setattr(prove, "Recipe", lambda **settings: quick.model_copy(update=settings))
    data = LabelledFiles.open(images)
    train, test = data.split("few", seed=0)
    accuracy = prove.both_phases(data, train, test, (TEACHER, "random"), 0, tmp_path / "work")
    evaluation = RunFolder.earlier(tmp_path / "work" / "runs")[0].read_evaluation().evaluations["test"]
    assert evaluation.images == len(test)
    assert accuracy == 100 * evaluation.overall["accuracy"].value
