"""Whatever stops a command, it says so and how to go on."""

import os
import shlex
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.cli.running import thaw
from tests.interrupting import heard
from thaw import pipeline
from thaw.cli.interrupts import Terminated, sentence
from thaw.recipe import Phase, Recipe
from thaw.run_folder import RunFolder
from thaw.serve import server


@pytest.fixture(autouse=True)
def here(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that the commands name, which they check before they begin."""
    for name in ("images", "my images"):
        (tmp_path / name).symlink_to(images, target_is_directory=True)
    bundle = tmp_path / "runs" / "train-1" / "model"
    bundle.mkdir(parents=True)
    (bundle / "config.json").touch()
    monkeypatch.chdir(tmp_path)


def interrupt(*notes: str) -> Callable[..., NoReturn]:
    def raising(*_: object, **__: object) -> NoReturn:
        stop = KeyboardInterrupt()
        for note in notes:
            stop.add_note(note)
        raise stop

    return raising


def terminate(*_: object, **__: object) -> None:
    """What SIGTERM does. The signal itself would end in the stack that pytest keeps for reports of crashes, which
    engines may have moved; the slow test below sends it to a process of its own."""
    handler = signal.getsignal(signal.SIGTERM)
    assert callable(handler)
    handler(signal.SIGTERM, None)


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "finetune", interrupt("runs/train-1 keeps every epoch that was completed"))
    assert thaw(monkeypatch, "train", "my images", "--seed", 3) == 130
    said = capsys.readouterr().err
    assert said == (
        "\nthaw: interrupted; runs/train-1 keeps every epoch that was completed; "
        "resume with: thaw train 'my images' --seed 3 --resume\n"
    )


@pytest.mark.parametrize("words", ["--set seed=3 --runs 'my runs' --refit", "--resume --trials=9"])
def test_a_search_is_resumed_by_the_same_command(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("thaw.cli.tuning.Limits", interrupt("every trial is kept"))
    given = ["search", "my images", *shlex.split(words)]
    assert thaw(monkeypatch, *given) == 130
    resume = shlex.join(["thaw", *given, *([] if "--resume" in given else ["--resume"])])
    assert capsys.readouterr().err == f"\nthaw: interrupted; every trial is kept; resume with: {resume}\n"


def test_a_command_without_resume_is_not_said_to_have_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("thaw.demo.run_demo", interrupt("thaw-demo/runs/train-1 keeps every epoch that was completed"))
    assert thaw(monkeypatch, "demo") == 130
    said = capsys.readouterr().err
    assert said == "\nthaw: interrupted; thaw-demo/runs/train-1 keeps every epoch that was completed\n"


def test_before_there_is_a_run_nothing_is_promised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "finetune", interrupt())
    assert thaw(monkeypatch, "train", "images") == 130
    assert capsys.readouterr().err == "\nthaw: interrupted\n"


def test_sigterm_ends_a_command_as_ctrl_c_does_and_its_handler_goes_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "plan", terminate)
    before = signal.getsignal(signal.SIGTERM)
    assert thaw(monkeypatch, "plan", "images") == 143
    assert capsys.readouterr().err == "\nthaw: terminated\n"
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("system", [sys.platform, "win32"])
@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_a_signal_that_arrives_where_python_ignores_exceptions_still_ends_the_command(
    raised: type[KeyboardInterrupt], code: int, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill = os.kill

    def kill_as_there(process: int, number: int) -> None:
        assert system != "win32", "the process would have ended without a word"
        kill(process, number)

    class Kept:
        """What a callback waits for the end of."""

    def interrupted(_: object) -> NoReturn:
        raise raised

    def planning(*_: object, **__: object) -> NoReturn:
        kept = Kept()
        _reference = weakref.ref(kept, interrupted)
        del kept
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            time.sleep(0.01)
        raise AssertionError("nothing ended the command")

    monkeypatch.setattr(pipeline, "plan", planning)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(os, "kill", kill_as_there)
    before = sys.unraisablehook
    with heard():
        assert thaw(monkeypatch, "plan", "images") == code
    assert sys.unraisablehook == before


def test_a_server_that_is_stopped_has_ended_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stop in (interrupt(), terminate):
        monkeypatch.setattr(server, "serve", stop)
        assert thaw(monkeypatch, "serve", "runs/train-1") == 0
    assert capsys.readouterr().err == ""


def test_a_stream_that_ends_too_early_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ended(*_: object, **__: object) -> NoReturn:
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")

    monkeypatch.setattr(pipeline, "finetune", ended)
    assert thaw(monkeypatch, "train", "images") == 2
    said = capsys.readouterr().err
    assert said.startswith("thaw: a file or stream ended too early (Compressed file ended") and "Abort" not in said


@pytest.mark.parametrize(
    ("words", "end"),
    [
        (["predict", "m", "i", "--out", "o.csv"], "terminated; re-run the same command to resume"),
        (["predict", "m", "i", "--out=o.csv"], "terminated; re-run the same command to resume"),
        (["predict", "m", "i"], "terminated"),
        (["update", "r", "i"], "terminated; re-run the same command to resume"),
        (["inspect", "i"], "terminated"),
    ],
)
def test_only_what_can_be_resumed_is_said_to_be(words: list[str], end: str) -> None:
    assert sentence(Terminated(), words) == end


def test_a_password_in_an_address_is_not_repeated() -> None:
    stop = KeyboardInterrupt()
    stop.add_note("kept")
    words = ["search", "ftp://me:secret@host/images", "--storage=postgresql://me:secret@host/studies", "--resume"]
    assert sentence(stop, words, words) == (
        "interrupted; kept; resume with: thaw search ftp://me@host/images "
        "--storage=postgresql://me@host/studies --resume"
    )


@pytest.mark.slow
@pytest.mark.ci
def test_a_run_that_a_scheduler_terminates_ends_within_its_grace_period_and_resumes_as_it_says(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    recipe, runs = tmp_path / "recipe.yaml", tmp_path / "new"
    long = Phase(name="head", cut="head", epochs=100, lr=1e-2, solver="optimizer", patience=None)
    recipe.write_text(quick.model_copy(update={"phases": (long,)}).to_yaml())
    program = "import sys; sys.argv[0] = 'thaw'; from thaw.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}

    def started(words: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", program, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    training = started(["train", str(images), "--recipe", str(recipe), "--runs", str(runs)])
    run = RunFolder(runs / "train-1")
    deadline = time.monotonic() + 120
    while not run.metrics.exists():
        assert training.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    training.terminate()
    _, said = training.communicate(timeout=20)
    assert training.returncode == 143 and "Traceback" not in said
    _, _, command = said.strip().partition("resume with: thaw ")
    kept = len(run.read_epochs())
    resumed = started(shlex.split(command))
    resumed.communicate(timeout=200)
    assert resumed.returncode == 0 and run.is_finished and len(run.read_epochs()) == 100 > kept
