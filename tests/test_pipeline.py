import csv
import json
import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import thaw
from tests.reporters import Listening
from tests.runs import outcome
from thaw.data.dataset import Dataset
from thaw.errors import DataError, RecipeError, ResumeError
from thaw.pipeline import finetune
from thaw.progress import NullReporter, OnProgress
from thaw.recipe import Phase, PreprocessingSettings, Recipe, SplitSettings
from thaw.run_folder import RunFolder
from thaw.terminal.training import durations
from thaw.training import epoch
from thaw.training.head_solver import PENALTIES


def test_one_file_is_predicted_like_a_list_of_it_and_a_batch_has_an_image(
    trained: RunFolder, images: Path, tmp_path: Path
) -> None:
    file = images / "ok" / "000.png"
    listed = thaw.predict(trained.path, [file])
    assert thaw.predict(trained.path, file) == thaw.predict(trained.path, str(file)) == listed
    (shown,) = thaw.explain(trained.path, str(file), tmp_path / "why")
    assert shown.status == "ok"
    for batch_size in (0, -1):
        with pytest.raises(RecipeError, match=r"batch_size: .* is less than 1"):
            thaw.predict(trained.path, [file], batch_size)


@pytest.mark.parametrize("function", [thaw.inspect, thaw.label])
def test_a_network_that_only_a_plan_chooses_is_asked_for_before_images_are_read(
    function: Callable[..., object], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=r"^backbone auto: is chosen when a run is planned; name the network to "):
        function(tmp_path / "nowhere", recipe=Recipe(backbone="auto"))


class Interruption(Exception):
    """Stands for a power cut."""


class Unplugged(NullReporter):
    """Cuts the power after some epochs."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def bar(self, title: str) -> OnProgress:
        def advance(done: int, total: int) -> None:
            self.left -= title.startswith("phase ")
            if not self.left:
                raise Interruption

        return advance


def test_the_public_names_are_these_and_each_is_there() -> None:
    assert thaw.__all__ == sorted(thaw.__all__, key=lambda name: (name.islower(), name))
    assert set(thaw.__all__) == {
        "Classifier",
        "Dataset",
        "Limits",
        "NullReporter",
        "Phase",
        "Recipe",
        "ThawError",
        "compare",
        "cross_validate",
        "decide",
        "evaluate",
        "explain",
        "export",
        "finetune",
        "inspect",
        "label",
        "load",
        "plan",
        "predict",
        "push",
        "quantise",
        "report",
        "save",
        "search",
        "update",
    }
    assert all(getattr(thaw, name) for name in thaw.__all__)


def test_five_lines_of_python_do_it_all(
    images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = thaw.Dataset.from_folder(images)
    classifier = thaw.finetune(dataset, quick)
    predictions = thaw.predict(classifier, sorted(images.rglob("*.png"))[:3])
    thaw.save(classifier, "model")
    assert thaw.predict(thaw.load("model"), [row.path for row in predictions]) == predictions


def test_same_seed_same_weights_whatever_the_number_of_workers(
    images: Path, quick: Recipe, trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    for module in ("thaw.data.prepare", "thaw.features.view_request"):
        monkeypatch.setattr(f"{module}.worker_count", lambda: 7)
    finetune(Dataset.open(images), quick, tmp_path / "runs", reporter=NullReporter())
    assert outcome(RunFolder(tmp_path / "runs" / "train-1")) == outcome(trained)


def test_another_seed_gives_other_weights(images: Path, quick: Recipe, trained: RunFolder, tmp_path: Path) -> None:
    finetune(Dataset.open(images), quick.model_copy(update={"seed": 1}), tmp_path, reporter=NullReporter())
    assert not set(outcome(RunFolder(tmp_path / "train-1"))) & set(outcome(trained))


@pytest.mark.parametrize("outputs", ["binary", "multilabel"])
def test_binary_and_multilabel_data_train_and_predict(
    outputs: str, images: Path, quick: Recipe, tmp_path: Path
) -> None:
    kinds = ("ok", "stain") if outputs == "binary" else ("ok", "scratch", "stain")
    rows = [(str(file), kind) for kind in kinds for file in sorted((images / kind).iterdir())]
    if outputs == "multilabel":
        marked = {"ok": "", "scratch": "scratch|dark", "stain": "stain"}
        rows = [(path, marked[kind]) for path, kind in rows]
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label" if outputs == "binary" else "labels"), *rows])
    dataset = Dataset.open(table)
    assert dataset.task == outputs
    classifier = finetune(dataset, quick, tmp_path / "runs", reporter=NullReporter())
    prediction = thaw.predict(classifier, [rows[0][0]])[0]
    assert len(prediction.probabilities) == len(dataset.classes)
    assert classifier.head.state_dict()[list(classifier.head.state_dict())[-1]].shape == (
        (1,) if outputs == "binary" else (3,)
    )
    if outputs == "binary":
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-6)


def test_the_task_of_the_recipe_holds_from_python_too(images: Path, quick: Recipe, tmp_path: Path) -> None:
    pair = tmp_path / "pair.csv"
    rows = [(str(file), file.parent.name) for kind in ("ok", "stain") for file in sorted((images / kind).iterdir())]
    with pair.open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "label"), *rows])
    asked = quick.model_copy(update={"task": "multiclass", "phases": quick.phases[:1]})
    assert finetune(Dataset.open(pair), asked, tmp_path / "runs", reporter=NullReporter()).task == "multiclass"
    binary = quick.model_copy(update={"task": "binary"})
    for begin in (finetune, thaw.search):
        with pytest.raises(DataError, match="3 classes, but task binary needs two"):
            begin(Dataset.open(images), binary, runs=tmp_path / "others", reporter=NullReporter())
    with pytest.raises(DataError, match="3 classes, but task binary needs two"):
        thaw.plan(Dataset.open(images), binary, tmp_path / "recipe.yaml", NullReporter())


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_run_that_was_cut_off_resumes_to_the_same_weights(
    epochs: int, images: Path, quick: Recipe, trained: RunFolder, tmp_path: Path
) -> None:
    with pytest.raises(Interruption):
        finetune(Dataset.open(images), quick, tmp_path, reporter=Unplugged(epochs))
    finetune(Dataset.open(images), None, tmp_path, resume=True, reporter=NullReporter())
    assert outcome(RunFolder(tmp_path / "train-1")) == outcome(trained)


def test_a_resumed_run_counts_the_epochs_from_before_in_the_time_of_each_phase(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(Interruption):
        finetune(Dataset.open(images), quick, tmp_path, reporter=Unplugged(3))
    heard = Listening()
    finetune(Dataset.open(images), None, tmp_path, resume=True, reporter=heard)
    run = RunFolder(tmp_path / "train-1")
    plan, epochs = run.read_plan(), run.read_epochs()
    assert plan and plan.actual
    seconds = {name: sum(one.seconds for one in epochs if one.phase == name) for name in ("head", "fine-tune")}
    assert {name: taken for _, name, taken in plan.actual.phases} == pytest.approx(seconds, abs=1e-3)
    assert [part.part for part in durations(plan.predicted, plan.actual)] == [
        "feature extraction since the run was resumed",
        "phase head, 2 epochs",
        "phase fine-tune, 2 epochs",
    ]
    assert re.fullmatch(r"took .+ since the run was resumed, and [\d.]+ [MG]B of memory", heard.said[-1])


def test_the_command_that_a_plan_suggests_can_be_pasted_where_its_path_has_a_space(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    heard, recipe = Listening(), tmp_path / "my recipe.yaml"
    thaw.plan(Dataset.open(images), quick, recipe, reporter=heard)
    assert heard.said[-1].endswith(f"run it with `thaw train DATA --recipe '{recipe}'`")


def test_where_stored_features_do_not_give_what_the_bundle_gives_the_images_are_judged_anew(
    images: Path, quick: Recipe, trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thaw.trial_outputs.LARGEST_GAP", -1.0)
    reporter = Listening()
    finetune(Dataset.open(images), quick, tmp_path, reporter=reporter)
    assert any("evaluating from the images instead" in line for line in reporter.said)
    here, there = (pq.read_table(run.predictions) for run in (RunFolder(tmp_path / "train-1"), trained))
    assert here.select(["path", "split", "nearest"]) == there.select(["path", "split", "nearest"])
    for name in ("p_ok", "p_scratch", "p_stain", "distance"):
        assert here.column(name).to_numpy() == pytest.approx(there.column(name).to_numpy(), abs=1e-3)


def test_resuming_with_another_recipe_or_other_images_is_refused_with_the_difference(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    table, runs = tmp_path / "table.csv", tmp_path / "runs"
    rows = [(str(file), file.parent.name) for file in sorted(images.rglob("*.png"))]

    def dataset(number: int) -> Dataset:
        with table.open("w", newline="") as stream:
            csv.writer(stream).writerows([("path", "label"), *rows[:number]])
        return Dataset.open(table)

    with pytest.raises(Interruption):
        finetune(dataset(36), quick, runs, reporter=Unplugged(1))
    other = quick.with_settings({"phases.1.lr": 0.5})
    with pytest.raises(ResumeError, match=r"phases\.1\.lr: 0\.001 -> 0\.5"):
        finetune(dataset(36), other, runs, resume=True, reporter=NullReporter())
    with pytest.raises(ResumeError, match=r"1 removed: .*stain.011\.png"):
        finetune(dataset(35), quick, runs, resume=True, reporter=NullReporter())
    finetune(dataset(36), quick, runs, resume=True, reporter=NullReporter())
    assert RunFolder(runs / "train-1").is_finished


def test_a_solved_head_trains_resumes_and_tries_one_penalty_an_epoch(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    head_only = quick.model_copy(update={"phases": quick.phases[:1]})
    solved = head_only.with_settings({"phases.0.solver": "auto", "phases.0.epochs": 5})
    whole = finetune(Dataset.open(images), solved, tmp_path / "a", reporter=NullReporter())
    with pytest.raises(Interruption):
        finetune(Dataset.open(images), solved, tmp_path / "b", reporter=Unplugged(2))
    resumed = finetune(Dataset.open(images), None, tmp_path / "b", resume=True, reporter=NullReporter())
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())
    with (tmp_path / "a" / "train-1" / "metrics.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["phase"] == "head"]
    assert [float(row["penalty"]) for row in rows] == pytest.approx(PENALTIES[: len(rows)], rel=1e-4)
    assert not any(row["lr"] for row in rows)
    losses = [float(row["train_loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True)


def test_out_of_memory_halves_the_batch_says_so_and_goes_on(
    images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_step = epoch._train_step

    def small_memory(active, inputs, *rest):  # type: ignore[no-untyped-def]
        if len(inputs.values) > 5:
            raise epoch.OutOfMemory("no room")
        return whole_step(active, inputs, *rest)

    monkeypatch.setattr(epoch, "_train_step", small_memory)
    reporter = Listening()
    finetune(Dataset.open(images), quick, tmp_path, reporter=reporter)
    assert [line for line in reporter.said if "out of memory" in line] == [
        f"phase {phase}: out of memory at batch size {size}; continuing with {size // 2}"
        for phase in ("head", "fine-tune")
        for size in (16, 8)
    ]
    assert RunFolder(tmp_path / "train-1").is_finished


@pytest.mark.parametrize("said", ["MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory"])
def test_memory_that_runs_out_while_a_batch_is_prepared_halves_it_too_on_any_device(
    said: str, images: Path, quick: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_batches = epoch.batches

    def small_memory(source, batch_size, *rest):  # type: ignore[no-untyped-def]
        if batch_size > 8:
            raise RuntimeError(said)
        return all_batches(source, batch_size, *rest)

    monkeypatch.setattr(epoch, "batches", small_memory)
    reporter = Listening()
    finetune(Dataset.open(images), quick, tmp_path, reporter=reporter)
    assert len([line for line in reporter.said if "continuing with 8" in line]) == 2


def test_a_small_cache_means_fresh_views_and_says_so(images: Path, quick: Recipe, tmp_path: Path) -> None:
    finetune(Dataset.open(images), quick.model_copy(update={"cache_gb": 0.0}), tmp_path, reporter=NullReporter())
    plan = json.loads((tmp_path / "train-1" / "plan.json").read_text())
    inputs = {choice["setting"]: choice for choice in plan["choices"] if choice["setting"].endswith("inputs")}
    assert {choice["value"] for choice in inputs.values()} == {"fresh"}
    assert all("cache" in choice["reason"] for choice in inputs.values())


@pytest.mark.usefixtures("trained")
def test_a_second_run_reads_the_feature_cache(images: Path, quick: Recipe, tmp_path: Path) -> None:
    class Bars(NullReporter):
        def __init__(self) -> None:
            self.extracted = 0

        def bar(self, title: str):  # type: ignore[no-untyped-def]
            def advance(done: int, total: int) -> None:
                self.extracted += title.startswith("extract features") and done < total

            return advance

    reporter = Bars()
    deep = quick.model_copy(update={"phases": (*quick.phases, Phase(name="again", cut="stages:2", epochs=1, lr=1e-4))})
    finetune(Dataset.open(images), deep, tmp_path, reporter=reporter)
    assert reporter.extracted == 0


@pytest.mark.slow
@pytest.mark.ci
def test_fifty_thousand_rows_are_indexed_in_seconds_and_in_flat_memory(tmp_path: Path) -> None:
    """Five hundred files, each named in a hundred rows' worth of copies, are indexed without being opened."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    for number in range(500):
        Image.fromarray(np.full((8, 8, 3), number % 256, np.uint8)).save(folder / f"{number}.png")
    for number in range(500, 50_000):
        (folder / f"{number}.png").hardlink_to(folder / f"{number % 500}.png")
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("path", "label"), *((f"tiny/{number}.png", f"class{number % 10}") for number in range(50_000))]
        )
    tracemalloc.start()
    started = time.perf_counter()
    dataset = Dataset.open(table)
    seconds = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(dataset) == 50_000
    assert peak < 100e6
    print(f"50,000 rows indexed in {seconds:.1f} s, {peak / 1e6:.0f} MB")


def test_a_run_stops_when_its_target_is_reached_and_says_so(images: Path, quick: Recipe, tmp_path: Path) -> None:
    heard = Listening()
    thaw.finetune(Dataset.open(images), quick.with_settings({"target": {"accuracy": 0.01}}), tmp_path, reporter=heard)
    records = list(csv.DictReader((tmp_path / "train-1" / "metrics.csv").read_text().splitlines()))
    assert {row["phase"] for row in records} == {"head"} and len(records) == 1
    assert any("fine-tune is skipped: the target is reached" in line for line in heard.said)
    assert any("target reached on" in line for line in heard.said)


def test_an_optional_phase_without_an_error_to_fix_is_skipped_and_the_test_uses_the_trained_cut(
    images: Path, tmp_path: Path
) -> None:
    heard = Listening()
    recipe = Recipe(backbone="starter", strategy="top", views=2, preprocessing=PreprocessingSettings(image_size=64))
    recipe = recipe.model_copy(update={"split": SplitSettings(val=0.1, test=0.3)})
    thaw.finetune(Dataset.open(images), recipe, tmp_path, reporter=heard)
    run = RunFolder(tmp_path / "train-1")
    trained = {row["phase"] for row in csv.DictReader(run.metrics.read_text().splitlines())}
    left_out = [line for line in heard.said if "is skipped" in line]
    assert trained | {line.split()[1] for line in left_out} == {"head", "fine-tune", "deeper"}
    assert left_out and any(line.startswith("evaluated from cached features") for line in heard.said)
    actual = json.loads(run.plan.read_text())["actual"]
    assert [name for _, name, _ in actual["phases"]] == [name for name in ("head", "fine-tune") if name in trained]
    assert Recipe.load(run.recipe).strategy == "manual"
