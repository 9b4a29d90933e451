import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from thaw.backbones.facts import Features
from thaw.backbones.stages import AtCut
from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier, new_head
from thaw.errors import TrainingError
from thaw.features.cache import CachedFeatures
from thaw.metrics import Scored
from thaw.metrics.jackknife import jackknife_blocks
from thaw.processes import Process
from thaw.recipe import DecodeSettings, KeepPhase, Phase, PreprocessingSettings
from thaw.tensors import metadata_of
from thaw.training import checkpoint, epoch
from thaw.training.checkpoint import Progress
from thaw.training.context import FitCallbacks, FitContext, FitSettings, TrainingPaused
from thaw.training.fit import fit
from thaw.training.head_solver import PENALTIES
from thaw.training.history import EpochRecord
from thaw.training.loggers import logged_values
from thaw.training.sources import CachedSource, PhaseSources
from thaw.training.steps import AboveCut

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
IMAGES, VIEWS = 18, 2
PHASES = (
    Phase(name="head", cut="head", epochs=2, lr=1e-2, batch_size=6, solver="optimizer", mixup=0.2),
    Phase(name="top", cut="stages:1", epochs=2, lr=1e-3, batch_size=6),
)


# A head that learns next to nothing, so that the top is better, and a top that is not.
TOP_IS_BETTER = (PHASES[0].model_copy(update={"lr": 1e-6, "epochs": 1}), PHASES[1])
TOP_IS_NO_BETTER = (PHASES[0], PHASES[1].model_copy(update={"lr": 1e-5}))
DEEPER = Phase(name="deeper", cut="stages:2", epochs=1, lr=1e-9, batch_size=6)

UNBLENDED = tuple(phase.model_copy(update={"mixup": 0.0}) for phase in PHASES)


def make_classifier(dropout: float = 0.2, features: Features = "last") -> Classifier:
    backbone = build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=32))
    backbone.use_features(features)
    return Classifier(backbone, new_head(backbone, 3, dropout=dropout), "abc", "multiclass", DecodeSettings())


def sources_for(classifier: Classifier, phase: Phase, val: Sequence[int] = range(IMAGES)) -> PhaseSources:
    """Random features at the cut of a phase, with as many images of each class; `val` of them are validated on."""
    size, cut = classifier.backbone.facts.pixels.size, classifier.backbone.cut(phase.cut)
    with torch.no_grad():
        shape = classifier.backbone.run(torch.zeros(1, 3, size, size), 0, cut.position).shape[1:]
    draws = np.random.default_rng(0)
    axes = (*shape[1:], shape[0])
    features = draws.normal(size=(IMAGES, VIEWS, *axes)).astype(np.float32)
    stages = draws.normal(size=(IMAGES, VIEWS, classifier.backbone.stage_width(cut.position))).astype(np.float32)

    def source(images: Sequence[int]) -> CachedSource:
        chosen = list(images)
        cached = CachedFeatures.whole(features[chosen], stages[chosen])
        return CachedSource.of(cached, torch.arange(IMAGES)[chosen] % 3, CPU, seed=0)

    return PhaseSources(source(range(IMAGES)), source(val))


def train(
    folder: Path,
    phases: tuple[Phase, ...] = PHASES,
    callback: Callable[..., None] = lambda *_: None,
    dropout: float = 0.2,
    features: Features = "last",
    val: Sequence[int] = range(IMAGES),
    val_groups: np.ndarray | None = None,
    keep: KeepPhase = "any_gain",
    **context: Any,
) -> tuple[dict[str, Tensor], Progress]:
    """The weights of a run and its progress; `callback` is called on each epoch and note."""
    classifier = make_classifier(dropout, features)
    settings = FitSettings(0, "fp32", "accuracy", None, folder, len(val), val_groups=val_groups, keep_phase=keep)
    run = FitContext(classifier, phases, settings, FitCallbacks(callback, callback), **context)
    progress = fit(run, lambda index: sources_for(classifier, phases[index], val))
    return classifier.state_dict(), progress


def train_one_phase(
    folder: Path, phase: Phase, dropout: float = 0.0, wrong_by: int = 0, **changes: Any
) -> tuple[dict[str, Tensor], Progress]:
    """The weights and the progress of a run of one phase that is validated on its training images.

    wrong_by: added to the class of each validation image; with 1, the better a head fits, the higher is its loss.
    changes: of the settings of the run.
    """
    classifier = make_classifier(dropout)
    sources = sources_for(classifier, phase)
    assert isinstance(sources.val, CachedSource)
    sources = replace(sources, val=replace(sources.val, targets=(sources.val.targets + wrong_by) % 3))
    settings = replace(FitSettings(0, "fp32", "loss", None, folder, IMAGES), **changes)
    run = FitContext(classifier, (phase,), settings, FitCallbacks(lambda *_: None, lambda _: None))
    progress = fit(run, lambda _: sources)
    return classifier.state_dict(), progress


@dataclass(frozen=True)
class Wrapped(Process):
    """A process whose `wrap` is given."""

    def __init__(self, rank: int, count: int, wrap: Callable[[Any], nn.Module]) -> None:
        super().__init__(rank, count)
        object.__setattr__(self, "wrap", wrap)


class Wrapper(nn.Module):
    """Calls the module it wraps, as DistributedDataParallel does."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.calls = module, 0

    def forward(self, inputs: AtCut, position: int) -> Tensor:
        self.calls += 1
        return self.module(inputs, position)


def test_a_wrapped_classifier_trains_to_the_same_weights_and_is_wrapped_again_after_each_thaw(tmp_path: Path) -> None:
    wrapped: list[tuple[Wrapper, set[str]]] = []

    def wrap(classifier: Classifier) -> nn.Module:
        trains = {name for name, value in classifier.named_parameters() if value.requires_grad}
        wrapped.append((Wrapper(classifier), trains))
        return wrapped[-1][0]

    expected, _ = train(tmp_path / "a")
    weights, _ = train(tmp_path / "b", process=Wrapped(0, 1, wrap))
    assert all(torch.equal(value, weights[key]) for key, value in expected.items())
    (head, head_trains), (top, top_trains) = wrapped
    assert head.calls == top.calls == 2 * IMAGES // 6
    assert head_trains == {"head.layers.1.weight", "head.layers.1.bias"} < top_trains


def test_what_a_mode_draws_while_it_is_prepared_changes_no_dropout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Drawing(AboveCut):
        def prepare(self, *_: object) -> None:
            torch.randn(100)

    expected, _ = train(tmp_path / "a")
    monkeypatch.setattr(epoch, "AboveCut", Drawing)
    weights, _ = train(tmp_path / "b")
    assert all(torch.equal(value, weights[key]) for key, value in expected.items())


def test_random_numbers_that_are_drawn_after_training_are_those_without_it(tmp_path: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(5)
    torch.manual_seed(7)
    train(tmp_path)
    assert torch.equal(torch.rand(5), expected)
    assert torch.initial_seed() == 7


def test_each_process_trains_on_its_part_of_every_batch(tmp_path: Path) -> None:
    sizes: list[int] = []

    class Counting(Wrapper):
        def forward(self, inputs: AtCut, position: int) -> Tensor:
            sizes.append(len(inputs.values))
            return super().forward(inputs, position)

    train(tmp_path, PHASES[:1], process=Wrapped(0, 2, Counting))
    assert sizes == [3] * (2 * IMAGES // 6)


def test_a_process_that_is_not_the_main_one_writes_nothing_and_reports_nothing(tmp_path: Path) -> None:
    train(tmp_path)
    for file in tmp_path.glob("last*"):
        file.unlink()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    called: list[Any] = []
    _, progress = train(tmp_path, callback=lambda *arguments: called.append(arguments), process=Process(1, 2))
    assert len(progress.records) == 4 and not called
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_two_processes_train_to_the_weights_and_losses_of_one(tmp_path: Path) -> None:
    expected, progress = train(tmp_path / "alone", UNBLENDED, dropout=0.0)
    command = [sys.executable, "-m", "tests.training.fit_with_others", "2", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        weights = torch.load(tmp_path / f"weights-{rank}.pt")
        assert all(torch.allclose(value, weights[key], atol=1e-5) for key, value in expected.items())
        losses = json.loads((tmp_path / f"losses-{rank}.json").read_text())
        assert losses == pytest.approx([record.train_loss for record in progress.records], rel=1e-4)


def test_more_processes_than_images_in_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="fewer images than the 7 processes"):
        train(tmp_path, process=Process(0, 7))


@cache
def uninterrupted(phases: tuple[Phase, ...], features: Features) -> tuple[dict[str, Tensor], Progress]:
    """Trained once for all moments of an interruption."""
    with TemporaryDirectory() as folder:
        return train(Path(folder), phases, features=features)


@pytest.mark.parametrize("features", ["last", pytest.param("all", marks=[pytest.mark.slow, pytest.mark.ci])])
@pytest.mark.parametrize("phases", [TOP_IS_BETTER, TOP_IS_NO_BETTER], ids=["kept", "not kept"])
@pytest.mark.parametrize("interrupted_after", [1, 3, 4])
def test_a_run_that_was_interrupted_after_an_epoch_or_a_decision_resumes_to_the_same_weights(
    tmp_path: Path, phases: tuple[Phase, ...], interrupted_after: int, features: Features
) -> None:
    called: list[Any] = []

    def interrupt(*arguments: Any) -> None:
        called.append(arguments)
        if len(called) == interrupted_after:
            raise KeyboardInterrupt

    expected, whole = uninterrupted((*phases, DEEPER), features)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "resumed", (*phases, DEEPER), interrupt, features=features)
    weights, progress = train(tmp_path / "resumed", (*phases, DEEPER), features=features)
    assert all(torch.equal(value, weights[key]) for key, value in expected.items())
    assert without_seconds(progress) == without_seconds(whole)


FREEZING = (
    TOP_IS_BETTER[0],
    Phase(name="top", cut="stages:3", epochs=4, lr=1e-3, batch_size=6, freeze_after=(1, 2, 3), patience=None),
)


@pytest.mark.parametrize("phases", [(*TOP_IS_BETTER, DEEPER), FREEZING], ids=["plain", "freezing"])
def test_a_run_that_pauses_after_every_epoch_ends_with_the_same_weights(
    tmp_path: Path, phases: tuple[Phase, ...]
) -> None:
    expected, whole = uninterrupted(phases, "last")
    settings = FitSettings(0, "fp32", "accuracy", None, tmp_path, IMAGES)
    callbacks = FitCallbacks(lambda *_: None, lambda _: None, pauses=lambda records: True)

    def until_paused() -> tuple[dict[str, Tensor], Progress]:
        classifier = make_classifier()
        run = FitContext(classifier, phases, settings, callbacks)
        progress = fit(run, lambda index: sources_for(classifier, phases[index]))
        return classifier.state_dict(), progress

    for pauses in range(1, len(whole.records) + 1):
        with pytest.raises(TrainingPaused) as paused:
            until_paused()
        assert len(paused.value.records) == pauses
    weights, progress = until_paused()
    assert all(torch.equal(value, weights[key]) for key, value in expected.items())
    assert without_seconds(progress) == without_seconds(whole)


def test_a_stage_that_is_frozen_after_an_epoch_stays_bit_identical_while_those_above_go_on(tmp_path: Path) -> None:
    after_epoch: list[dict[str, Tensor]] = []
    classifier = make_classifier()
    settings = FitSettings(0, "fp32", "accuracy", None, tmp_path, IMAGES)

    def keep(*arguments: Any) -> None:
        after_epoch.append({key: value.clone() for key, value in classifier.state_dict().items()})

    run = FitContext(classifier, FREEZING, settings, FitCallbacks(keep, lambda _: None))
    records = fit(run, lambda index: sources_for(classifier, FREEZING[index])).records
    cuts = [record.cut for record in records if record.phase == "top"]
    lowest, middle, top = classifier.backbone.stage_names[-3:]
    assert cuts == [lowest, middle, top, top]

    def changes(epoch: int) -> set[str]:
        before, now = after_epoch[epoch - 1], after_epoch[epoch]
        changed = {key for key, value in now.items() if not torch.equal(value, before[key])}
        stages = {name: block.stage for block in classifier.backbone.blocks for name in block.modules}
        return {stages[name] for name in stages for key in changed if key.startswith(f"backbone.network.{name}.")}

    # The first epoch is that of the head.
    assert [changes(epoch) for epoch in range(1, 5)] == [{lowest, middle, top}, {middle, top}, {top}, {top}]


@pytest.mark.parametrize(("patience", "epochs"), [(1, 2), (3, 4), (None, 9)])
def test_a_phase_ends_once_validation_has_not_improved_for_as_many_epochs_as_its_patience(
    patience: int | None, epochs: int, tmp_path: Path
) -> None:
    phase = UNBLENDED[0].model_copy(update={"epochs": 9, "patience": patience})
    _, progress = train_one_phase(tmp_path, phase, wrong_by=1)
    losses = [record.val.loss for record in progress.records]
    assert losses == sorted(losses) and len(losses) == epochs


@pytest.mark.parametrize(("optional", "epochs"), [(True, 3), (False, 7)])
def test_an_optional_phase_ends_early_where_its_first_epochs_are_worse_than_the_phase_before(
    optional: bool, epochs: int, tmp_path: Path
) -> None:
    head, top = TOP_IS_NO_BETTER
    # Of a head that is right about all images no optional phase is trained.
    head = head.model_copy(update={"epochs": 1})
    phases = (head, top.model_copy(update={"epochs": 7, "patience": 7, "optional": optional}))
    alone, _ = train(tmp_path / "alone", phases[:1])
    said: list[str] = []
    weights, progress = train(tmp_path / "both", phases, lambda *args: said.extend(filter(is_note, args)))
    assert [record.phase for record in progress.records].count("top") == epochs
    assert [note.endswith("(ended after 3 of 7 epochs)") for note in said] == [optional]
    assert all(torch.equal(value, weights[key]) for key, value in alone.items())


def without_seconds(progress: Progress) -> list[EpochRecord]:
    return [replace(record, seconds=0.0) for record in progress.records]


def is_note(argument: object) -> bool:
    return isinstance(argument, str)


def notes_of(folder: Path, phases: tuple[Phase, ...], **settings: Any) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of a run and what it said."""
    said: list[str] = []
    weights, _ = train(folder, phases, lambda *args: said.extend(filter(is_note, args)), **settings)
    return weights, said


def test_a_phase_that_is_no_better_leaves_the_weights_of_the_one_before_and_the_next_starts_from_them(
    tmp_path: Path,
) -> None:
    alone, _ = train(tmp_path / "alone", TOP_IS_NO_BETTER[:1])
    weights, said = notes_of(tmp_path / "all", (*TOP_IS_NO_BETTER, DEEPER))
    assert all(torch.equal(value, weights[key]) for key, value in alone.items())
    assert [note.partition(": lost")[0] for note in said] == ["phase top is not kept", "phase deeper is not kept"]
    deeper = checkpoint.read(tmp_path / "all", "phase")
    assert deeper and deeper.progress.records[-1].phase == "deeper"
    assert all(torch.allclose(value, alone[key], atol=1e-7) for key, value in deeper.weights.items())


@pytest.mark.parametrize("keep", get_args(KeepPhase))
def test_a_phase_that_is_better_by_more_than_one_standard_error_replaces_the_one_before(
    keep: KeepPhase, tmp_path: Path
) -> None:
    alone, _ = train(tmp_path / "alone", TOP_IS_BETTER[:1])
    weights, said = notes_of(tmp_path / "both", TOP_IS_BETTER, keep=keep)
    assert not all(torch.equal(value, weights[key]) for key, value in alone.items())
    (note,) = said
    assert note.startswith("phase top is kept: gained ") and ", standard error " in note
    kept, phase = (checkpoint.read(tmp_path / "both", name) for name in ("best", "phase"))
    assert kept and phase and all(torch.equal(value, kept.weights[key]) for key, value in phase.weights.items())
    assert all(torch.equal(value, weights[key]) for key, value in kept.weights.items())


def as_release_0_1(folder: Path) -> None:
    """Make the checkpoints of a running phase those that release 0.1 would have left."""
    last, phase = (checkpoint.read(folder, name) for name in ("last", "phase"))
    assert last and phase and last.progress.epoch
    for name, saved in (("last", last), ("best", phase)):
        records = tuple(replace(record, without=()) for record in saved.progress.records)
        checkpoint.write(folder, name, replace(saved, progress=replace(saved.progress, records=records, gains=())))
    for file in folder.glob("phase*"):
        file.unlink()


@pytest.mark.parametrize("interrupted_after", [3, 4])
def test_a_run_that_release_0_1_began_keeps_the_best_epoch_of_all_phases(
    tmp_path: Path, interrupted_after: int
) -> None:
    """Interrupted in the best epoch, which is the last, or after it."""
    calls = 0

    def interrupt(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == interrupted_after:
            raise KeyboardInterrupt

    expected, whole = train(tmp_path / "whole", TOP_IS_BETTER)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "resumed", TOP_IS_BETTER, interrupt)
    as_release_0_1(tmp_path / "resumed")
    assert checkpoint.check(tmp_path / "resumed", "") is not None
    weights, progress = train(tmp_path / "resumed", TOP_IS_BETTER)
    assert all(torch.equal(value, weights[key]) for key, value in expected.items())
    assert [gain.is_kept for gain in progress.gains] == [gain.is_kept for gain in whole.gains] == [True, True]


def test_validation_images_of_a_group_count_as_one(tmp_path: Path) -> None:
    groups = (np.arange(IMAGES) % 9 == 0).astype(int)
    _, alone = train(tmp_path / "alone", TOP_IS_BETTER)
    _, grouped = train(tmp_path / "grouped", TOP_IS_BETTER, val_groups=groups)
    assert [len(record.without) for record in alone.records] == [IMAGES] * 3
    assert [len(record.without) for record in grouped.records] == [2] * 3
    assert [record.val for record in alone.records] == [record.val for record in grouped.records]


def test_an_epoch_of_lbfgs_records_its_penalty_and_no_learning_rate(tmp_path: Path) -> None:
    solved = PHASES[0].model_copy(update={"solver": "lbfgs", "mixup": 0.0})
    _, progress = train(tmp_path, (solved, PHASES[1]))
    head, top = progress.records[:2], progress.records[2:]
    assert [record.penalty for record in head] == list(PENALTIES[:2]) and {record.lr for record in head} == {None}
    assert {record.penalty for record in top} == {None} and all(record.lr for record in top)
    assert [{"lr", "penalty"} & logged_values(record).keys() for record in (head[0], top[0])] == [{"penalty"}, {"lr"}]


@pytest.fixture(scope="module")
def unclear(tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """Validation images that both phases of `TOP_IS_BETTER` predict correctly, and one that only the top does."""
    _, progress = train(tmp_path_factory.mktemp("run"), TOP_IS_BETTER)
    blocks = jackknife_blocks(Scored("multiclass", *[np.ones((IMAGES, 3), bool)] * 3))

    def right(record: EpochRecord) -> np.ndarray:
        """The value without an image is lower if that image is predicted correctly."""
        return np.array(record.without)[blocks] < record.val["accuracy"] * IMAGES / (IMAGES - 1) - 1e-9

    head, top = right(progress.records[0]), right(progress.records[-1])
    return [*np.flatnonzero(head & top).tolist(), int(np.flatnonzero(top & ~head)[0])]


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ("any_gain", "phase top is kept: gained {0} points of validation accuracy, standard error {0}"),
        (
            "standard_error",
            "phase top is not kept: gained {0} points of validation accuracy, within one standard error ({0})",
        ),
    ],
)
def test_a_gain_within_one_standard_error_is_kept_only_by_the_rule_that_keeps_any(
    keep: KeepPhase, said: str, unclear: list[int], tmp_path: Path
) -> None:
    weights, notes = notes_of(tmp_path / "run", TOP_IS_BETTER, val=unclear, keep=keep)
    assert notes == [said.format(f"{100 / len(unclear):.1f}")]
    alone, _ = train(tmp_path / "alone", TOP_IS_BETTER[:1], val=unclear)
    top = checkpoint.read(tmp_path / "run", "phase")
    assert top is not None
    kept = top.weights if keep == "any_gain" else alone
    assert all(torch.equal(value, weights[key]) for key, value in kept.items())


@pytest.mark.parametrize("keep", get_args(KeepPhase))
@pytest.mark.parametrize("moment", range(4))
def test_a_run_interrupted_while_it_ends_a_phase_decides_the_same_when_resumed(
    moment: int, keep: KeepPhase, unclear: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, whole = train(tmp_path / "whole", TOP_IS_BETTER, val=unclear, keep=keep)
    moments = 0
    replace_by = checkpoint._replace

    def interrupted(folder: Path, name: checkpoint.Name, content: bytes) -> None:
        nonlocal moments
        progress = checkpoint._progress_from_json(metadata_of(content)["progress"])
        moments += any(record.phase == "top" for record in progress.records)
        if moments == moment + 1:
            raise KeyboardInterrupt
        replace_by(folder, name, content)

    monkeypatch.setattr(checkpoint, "_replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "resumed", TOP_IS_BETTER, val=unclear, keep=keep)
    monkeypatch.setattr(checkpoint, "_replace", replace_by)
    weights, progress = train(tmp_path / "resumed", TOP_IS_BETTER, val=unclear, keep=keep)
    assert all(torch.equal(value, weights[key]) for key, value in expected.items())
    assert without_seconds(progress) == without_seconds(whole)
    assert [replace(gain, seconds=0.0) for gain in progress.gains] == [
        replace(gain, seconds=0.0) for gain in whole.gains
    ]
