import csv
import io
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Refuse
from tests.cli.running import thaw
from tests.runs import outcome
from thaw.backbones.timm_backbone import build
from thaw.data import ahead, pixel_store
from thaw.device import threads_restored
from thaw.planning.time_limit import LEAST_EPOCHS
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder


@pytest.fixture
def recipe(quick: Recipe, tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(quick.to_yaml())
    return file


def test_train_leaves_a_run_with_all_its_files(
    images: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    code = thaw(monkeypatch, "train", images, "--recipe", recipe, "--runs", runs, "--set", "phases.1.lr=1e-5")
    assert code == 0
    run = RunFolder(runs / "train-1")
    assert Recipe.load(run.recipe).phases[1].lr == 1e-5
    for file in (run.plan, run.manifest, run.augmentations, run.metrics, run.evaluation):
        assert file.stat().st_size > 0
    assert (run.model / "MODEL_CARD.md").is_file()
    rows = list(csv.DictReader(run.metrics.read_text().splitlines()))
    assert [(row["phase"], row["epoch"]) for row in rows] == [
        ("head", "1"),
        ("head", "2"),
        ("fine-tune", "1"),
        ("fine-tune", "2"),
    ]
    said = capsys.readouterr().out
    assert "36 images, 3 classes" in said and "kept: phase" in said and "with 95% confidence intervals" in said


def test_options_are_settings_of_the_recipe(
    images: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    options = ("--seed", "7", "--augment", "none", "--image-size", "32", "--set", "phases.1.epochs=1")
    assert thaw(monkeypatch, "train", images, "--recipe", recipe, "--runs", runs, *options) == 0
    resolved = Recipe.load(runs / "train-1" / "recipe.yaml")
    assert (resolved.seed, resolved.augment.preset, resolved.preprocessing.image_size) == (7, "none", 32)
    assert resolved.phases[1].epochs == 1


def test_running_the_resolved_recipe_again_gives_the_same_weights(
    trained: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with threads_restored():
        # The recipe has the number of threads that the run was trained with.
        torch.set_num_threads(torch.get_num_threads() + 1)
        assert thaw(monkeypatch, "train", images, "--recipe", trained.recipe, "--runs", tmp_path) == 0
    assert outcome(RunFolder(tmp_path / "train-1")) == outcome(trained)


def test_evaluate_writes_its_figures_as_json(
    trained: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "figures.json"
    assert thaw(monkeypatch, "evaluate", trained.path, images, "--out", out) == 0
    figures = json.loads(out.read_text())
    assert figures["images"] == 36
    assert sum(map(sum, figures["confusion"])) == 36


def test_predict_writes_one_row_for_each_file_in_order(
    trained: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(images / "stain", folder)
    (folder / "005.png").write_bytes(b"not an image")
    out = tmp_path / "results.csv"
    assert thaw(monkeypatch, "predict", trained.path, folder, "--out", out) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [Path(row["path"]).name for row in rows] == [f"{number:03d}.png" for number in range(12)]
    assert [row["status"] for row in rows].count("error") == 1 and rows[5]["reason"]
    assert {"p_ok", "p_scratch", "p_stain"} <= set(rows[0])
    assert sum(float(rows[0][f"p_{name}"]) for name in ("ok", "scratch", "stain")) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("encoding", "shown"), [("cp1252", "ü\\u3072"), ("ascii", "\\xfc\\u3072"), ("utf-8", "üひ")])
def test_a_name_that_the_console_lacks_is_escaped(
    encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "üひ"))
    assert thaw(monkeypatch, "cache", "list") == 0
    stdout.flush()
    assert shown in stdout.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]


def test_predictions_are_in_utf8_where_the_system_has_another_encoding(
    trained: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, stdout = tmp_path / "Größe ひ.png", io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    shutil.copy(min(images.rglob("*.png")), file)
    monkeypatch.setattr(sys, "stdout", stdout)
    assert thaw(monkeypatch, "predict", trained.path, file) == 0
    lines = stdout.buffer.getvalue().decode("utf-8").splitlines()  # type: ignore[attr-defined]
    assert lines[0].startswith("path,") and lines[1].startswith(f"{file},ok,")


def test_predicting_nothing_is_a_failure_whose_reasons_are_in_the_table(
    trained: RunFolder,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "a.gif").write_bytes(b"GIF89a")
    out = tmp_path / "results.csv"
    assert thaw(monkeypatch, "predict", trained.path, tmp_path / "a.gif", "--out", out) == 2
    assert f"predict: no image was classified; the column reason of {out} says why" in capsys.readouterr().err
    assert [row["status"] for row in csv.DictReader(out.read_text().splitlines())] == ["error"]
    assert thaw(monkeypatch, "explain", trained.path, tmp_path / "a.gif", "--out", tmp_path / "why") == 2
    assert "explain: no image was explained" in capsys.readouterr().err
    assert thaw(monkeypatch, "predict", trained.path, out, "--out", tmp_path / "more.csv") == 2
    assert "a .csv file is not an image" in capsys.readouterr().err and not (tmp_path / "more.csv").exists()


def test_models_can_be_filtered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert thaw(monkeypatch, "models", "list", "mobilenetv3") == 0
    said = capsys.readouterr().out
    assert "mobilenetv3_large_100" in said and "resnet50" not in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("train", "nowhere"), "nowhere"),
        (("train", "IMAGES", "--set", "phases.1.lrr=1"), "did you mean 'lr'"),
        (("train", "IMAGES", "--set", "lr"), "KEY=VALUE"),
        (("train", "IMAGES", "--backbone", "resnt50"), "resnet50"),
        (("train", "IMAGES", "--weights", "absent.safetensors"), "absent.safetensors"),
        (("train", "IMAGES", "--weights", "random", "--set", "phases.1.cut=stages:99"), "stages:99"),
        (("train", "IMAGES", "--resume"), "no unfinished run"),
        (("train", "IMAGES", "--max-size-mb", "5"), "max_size_mb: is for backbone auto; add --backbone auto"),
        (
            ("train", "IMAGES", "--backbone", "resnet50", "--max-latency-ms", "5"),
            "max_latency_ms: is for backbone auto",
        ),
        (("plan", "IMAGES", "--backbone", "resnet50", "--candidates", "resnet18"), "candidates: is for backbone auto"),
        (("search", "IMAGES", "--max-size-mb", "5"), "max_size_mb: is for a single run with backbone auto"),
        (("train", "IMAGES", "--device", "cuda:7"), "cuda:7"),
        (("evaluate", "nowhere", "IMAGES"), "no such run"),
        (("predict", "IMAGES", "IMAGES"), "neither a finished run nor a bundle"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2_and_leaves_nothing_behind(
    words: tuple[str, ...], expected: str, images: Path, refuse: Refuse
) -> None:
    said = refuse(*(str(images) if word == "IMAGES" else word for word in words)).err
    assert expected in said and said.startswith("thaw: ")


def test_help_and_version_import_nothing_that_takes_long() -> None:
    heavy = ("torch", "timm", "sklearn", "cv2", "numpy")
    program = f"import sys, thaw, thaw.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_wrong_with_files_is_said_before_torch_is_imported(images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    commands = [
        ("train", "nowhere"),
        ("inspect", "empty"),
        ("plan", str(images), "--exclude", "nothing"),
        ("train", str(images), "--resume"),
        *((command, "nowhere", "x") for command in ("predict", "evaluate", "compare", "push")),
        *((command, "nowhere") for command in ("report", "serve")),
        ("predict", "empty", "x"),
        ("explain", "nowhere", "x", "--out", "o"),
        ("decide", "nowhere", "--out", "o", "--recall", "ok=0.9"),
        ("export", "nowhere", "--to", "onnx", "--out", "o.onnx"),
    ]
    program = f"""
import sys, thaw.cli
for words in {commands}:
    sys.argv = ["thaw", *words]
    try:
        thaw.cli.main()
    except SystemExit as done:
        assert done.code == 2, words
    else:
        raise AssertionError(words)
    assert "torch" not in sys.modules, words
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(commands) and "Traceback" not in done.stderr


def test_weights_are_fetched_into_a_file_that_trains_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "starter.safetensors"
    assert thaw(monkeypatch, "models", "fetch", "starter", "--to", str(file)) == 0
    assert f"--backbone starter --weights {file.name}" in capsys.readouterr().out
    fetched, bundled = build("starter", str(file)), build("starter")
    assert fetched.facts.pixels == bundled.facts.pixels
    assert fetched.facts.model_args == bundled.facts.model_args
    state = bundled.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in fetched.state_dict().items())


def test_a_file_that_is_there_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"mine")
    assert thaw(monkeypatch, "models", "fetch", "starter", "--to", str(file)) == 2
    assert "already exists" in capsys.readouterr().err
    assert file.read_bytes() == b"mine"
    assert thaw(monkeypatch, "models", "fetch", "starter", "--to", str(tmp_path / "a.bin")) == 2
    assert thaw(monkeypatch, "models", "fetch", "starter", "--to", str(tmp_path / "no" / "a.safetensors")) == 2


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("plan", "IMAGES", "--out"), "recipe.yaml"),
        (("predict", "RUN", "IMAGES", "--out"), "rows.csv"),
        (("export", "RUN", "--to", "onnx", "--out"), "model.onnx"),
        (("export", "RUN", "--to", "openvino", "--out"), "model"),
        (("decide", "RUN", "--recall", "ok=0.5", "--out"), "bundle"),
        (("evaluate", "RUN", "IMAGES", "--out"), "metrics.json"),
        (("models", "fetch", "starter", "--to"), "weights.safetensors"),
    ],
)
def test_what_is_in_the_place_of_an_output_stays_whatever_it_is(
    words: tuple[str, ...],
    name: str,
    trained: RunFolder,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [{"RUN": str(trained.path), "IMAGES": str(images)}.get(word, word) for word in words]
    place = tmp_path / name
    for make in (
        lambda: place.write_text("mine"),
        lambda: place.symlink_to("nowhere"),
        lambda: os.mkfifo(place),
    ):
        make()
        before = (place.lstat().st_ino, place.lstat().st_mtime_ns)
        assert thaw(monkeypatch, *given, str(place)) == 2
        assert f"{name}: already exists" in capsys.readouterr().err
        assert (place.lstat().st_ino, place.lstat().st_mtime_ns) == before and [
            file.name for file in tmp_path.iterdir()
        ] == [name]
        place.unlink()


@pytest.mark.parametrize(
    "words",
    [
        ("train", "IMAGES", "--runs"),
        ("inspect", "IMAGES", "--runs"),
        ("explain", "RUN", "IMAGES", "--out"),
        ("demo", "--folder"),
    ],
)
def test_a_folder_of_outputs_that_is_a_file_is_one_sentence(
    words: tuple[str, ...],
    trained: RunFolder,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [{"RUN": str(trained.path), "IMAGES": str(images)}.get(word, word) for word in words]
    (tmp_path / "file").write_text("mine")
    assert thaw(monkeypatch, *given, str(tmp_path / "file")) == 2
    said = capsys.readouterr().err
    assert "cannot be written: " in said and "not a folder" in said and said.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("words", [("--time", "1s"), ("--set", "time_limit=1s")])
def test_the_time_of_a_run_shortens_its_plan(
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    images: Path,
    tmp_path: Path,
) -> None:
    small = ("--backbone", "mobilenetv3_small_050", "--weights", "random", "--image-size", "48", "--strategy", "top")
    quick = ("--engine", "pytorch-fp32", "--precision", "fp32", "--threads", "1")
    assert thaw(monkeypatch, "plan", images, *small, *quick, *words, "--out", tmp_path / "planned.yaml") == 0
    planned = Recipe.load(tmp_path / "planned.yaml")
    assert [phase.epochs for phase in planned.phases[1:]] == [LEAST_EPOCHS] and planned.time_limit is None
    said = " ".join(capsys.readouterr().out.split())
    assert "time_limit 1 s exceeded by up to" in said and "instead of 10, to fit into the time limit" in said


def test_a_plan_is_a_recipe_that_runs_as_it_was_planned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], images: Path, tmp_path: Path, quick: Recipe
) -> None:
    asked, planned = tmp_path / "asked.yaml", tmp_path / "planned.yaml"
    asked.write_text(quick.to_yaml(), encoding="utf-8")
    assert thaw(monkeypatch, "plan", images, "--recipe", asked, "--out", planned) == 0
    said = capsys.readouterr().out
    assert "as requested" in said and "forecast: " in said
    assert not list(tmp_path.glob("**/train-*"))
    recipe = Recipe.load(planned)
    assert "auto" not in planned.read_text(encoding="utf-8")
    assert thaw(monkeypatch, "train", images, "--recipe", planned, "--runs", tmp_path / "runs") == 0
    assert Recipe.load(RunFolder(tmp_path / "runs" / "train-1").recipe) == recipe
    capsys.readouterr()
    assert thaw(monkeypatch, "plan", images, "--recipe", asked, "--out", planned) == 2
    assert "already exists" in capsys.readouterr().err
    assert Recipe.load(planned) == recipe


@pytest.mark.parametrize("command", ["train", "plan"])
def test_images_are_decoded_by_a_process_of_its_own(
    images: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ahead, "FEWEST", 1)
    monkeypatch.setattr(ahead, "worker_count", lambda: 2)
    out = ("--out", tmp_path / "planned.yaml") if command == "plan" else ("--runs", tmp_path / "runs")

    def decoded_again(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(pixel_store, "_build", decoded_again)
    assert thaw(monkeypatch, command, images, "--recipe", recipe, *out) == 0


def test_explain_writes_a_picture_for_each_image_and_says_which_class_it_shows(
    trained: RunFolder,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, broken = tmp_path / "why", tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert thaw(monkeypatch, "explain", trained.path, images / "ok", broken, "--out", out, "--class", "stain") == 0
    said = capsys.readouterr()
    assert len(list(out.rglob("*.png"))) == len(said.out.splitlines()) == 12
    assert all(": stain, " in line for line in said.out.splitlines())
    assert f"{broken}: not a JPEG" in said.err and "12 written" in said.err and "1 failed" in said.err


def test_explain_refuses_a_class_that_is_unknown(
    trained: RunFolder,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("explain", trained.path, images, "--out", tmp_path / "why", "--class", "rust")
    assert thaw(monkeypatch, *words) == 2
    assert "class 'rust': the classifier does not know it" in capsys.readouterr().err
    assert not (tmp_path / "why").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["2000", "1"]),
        ({"GOMP_SPINCOUNT": "7", "OPENBLAS_NUM_THREADS": "2"}, ["7", "2"]),
        ({"OMP_WAIT_POLICY": "active"}, [None, "1"]),
    ],
)
def test_threads_that_wait_leave_their_core_to_other_programs_unless_the_user_says_otherwise(
    given: dict[str, str], expected: list[str | None]
) -> None:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    code = (
        "import json, os, sys\nfrom thaw.cli import main\nsys.argv = ['thaw', '--version']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "names = ['GOMP_SPINCOUNT', 'OPENBLAS_NUM_THREADS']\n"
        "imported = [name for name in ('numpy', 'torch') if name in sys.modules]\n"
        "print(json.dumps([os.environ.get(name) for name in names] + imported))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment | given, capture_output=True, text=True, check=True
    )
    # They are read when NumPy and PyTorch are imported.
    assert json.loads(done.stdout.splitlines()[-1]) == expected


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.skipif(find_spec("keras") is None, reason="needs the extra keras")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_keras_model_is_trained_further_predicts_without_keras_and_becomes_one_again(
    images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from thaw.keras_runtime import keras

    base = keras.applications.MobileNetV3Small(weights=None, include_top=False, input_shape=(64, 64, 3), alpha=0.75)
    features = keras.layers.GlobalAveragePooling2D()(base.output)
    hidden = keras.layers.Dense(8, activation="relu")(features)
    keras.Model(base.input, keras.layers.Dense(3, activation="softmax")(hidden)).save(tmp_path / "own.keras")
    recipe = quick.model_copy(update={"backbone": str(tmp_path / "own.keras"), "weights": "published"})
    recipe = recipe.model_copy(update={"preprocessing": type(recipe.preprocessing)()})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    runs = tmp_path / "runs"
    assert thaw(monkeypatch, "train", images, "--recipe", tmp_path / "recipe.yaml", "--runs", runs) == 0
    said = capsys.readouterr().out
    assert "training goes on from the head of own.keras" in " ".join(said.split())
    assert Recipe.load(runs / "train-1" / "recipe.yaml").head.hidden == (8,)
    model = runs / "train-1" / "model"
    code = (
        "import sys; sys.modules['keras'] = sys.modules['h5py'] = None\n"
        "from thaw.cli import main; sys.argv = ['thaw', *sys.argv[1:]]; main()"
    )
    command = [sys.executable, "-c", code, "predict", str(model), str(images), "--out", str(tmp_path / "rows.csv")]
    subprocess.run(command, check=True, capture_output=True)
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert len(rows) == 36
    assert thaw(monkeypatch, "export", model, "--to", "keras", "--out", tmp_path / "better.keras") == 0
    assert "certified on" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["train"], ["search"], ["predict", "--out", "table.csv"], ["evaluate"]])
def test_an_address_of_a_cluster_that_is_empty_is_refused(
    words: list[str], images: Path, trained: RunFolder, refuse: Refuse
) -> None:
    command, *options = words
    places = {"predict": [trained.path, images], "evaluate": [trained.path]}.get(command, [images])
    assert "--cluster: the address is empty" in refuse(command, *places, *options, "--cluster", "").err
