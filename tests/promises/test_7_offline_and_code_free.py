import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

import thaw
from thaw.cli import app
from thaw.data.dataset import Dataset
from thaw.pipeline import evaluate, finetune, load
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder

ELSEWHERE = re.compile(r"connect\(.*sa_family=AF_INET6?\b(?!.*(127\.0\.0\.1|::1))|sendto\(.*sa_family=AF_INET6?\b")
"""A system call that reaches for another machine, as strace writes it; asking for an address is one as well."""

PLAIN = {".safetensors", ".json", ".parquet", ".csv", ".yaml", ".png", ".md", ".txt", ".TAG", ""}


@pytest.fixture
def sealed_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a socket or unpickling fails the test."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a socket was opened, or a pickle read")

    class Refused(pickle.Unpickler):
        # A class, because PyTorch derives its own from it when it is first imported.
        __init__ = refuse

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(pickle, "Unpickler", Refused)
    monkeypatch.setattr(torch, "load", refuse)


@pytest.mark.usefixtures("sealed_off")
def test_training_evaluating_and_predicting_open_no_socket_and_read_no_pickle(
    images: Path, quick: Recipe, tmp_path: Path
) -> None:
    finetune(Dataset.open(images), quick, tmp_path / "runs", reporter=NullReporter())
    classifier = load(tmp_path / "runs" / "train-1")
    assert evaluate(classifier, Dataset.open(images)).images == 36
    assert thaw.predict(classifier, sorted(images.rglob("*.png"))[:2])[0].status == "ok"


@pytest.mark.usefixtures("sealed_off")
def test_openvino_opens_no_socket(images: Path, quick: Recipe, tmp_path: Path) -> None:
    finetune(
        Dataset.open(images), quick.model_copy(update={"engine": "openvino-fp32"}), tmp_path, reporter=NullReporter()
    )
    assert RunFolder(tmp_path / "train-1").is_finished


@pytest.mark.usefixtures("sealed_off")
def test_listing_the_models_opens_no_socket() -> None:
    with pytest.raises(SystemExit) as done:
        app(["models", "list", "resnet50"])
    assert done.value.code in (0, None)


def network_calls(program: list[str], home: Path) -> list[str]:
    """The system calls with which a program and its children reach for another machine, as a user's own process."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace, which watches child processes too")
    trace = home.with_name("trace")
    # Some libraries report nothing under a continuous integration, and would be let off here.
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "GITHUB_ACTIONS")}
    home.mkdir()
    watch = [strace, "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", trace]
    done = subprocess.run(
        [*watch, sys.executable, *program],
        env={**environment, "HOME": str(home), "THAW_CACHE": str(home.with_name("cache"))},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in trace.read_text(errors="replace").splitlines() if ELSEWHERE.search(line)]


def test_the_watch_sees_a_child_that_looks_up_an_address(tmp_path: Path) -> None:
    lookup = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 53))"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {lookup!r}])"
    assert network_calls(["-c", child], tmp_path / "home")


def test_loading_the_engines_reports_nothing_and_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    # The report that OpenVINO sends on import comes from a child process, which needs a moment.
    program = "import thaw.openvino_runtime, thaw.exports.onnx_runtime, time; time.sleep(1)"
    assert network_calls(["-c", program], home) == [] and list(home.iterdir()) == []


@pytest.mark.slow
@pytest.mark.ci
def test_no_command_reaches_for_another_machine(images: Path, tmp_path: Path) -> None:
    home, script = tmp_path / "home", Path(__file__).with_name("every_command.py")
    assert network_calls([str(script), str(images), str(tmp_path / "work")], home) == []
    assert {entry.name for entry in home.iterdir()} <= {".cache", ".config"}
    assert not (home / ".cache" / "Microsoft").exists()


def test_all_files_of_a_run_and_the_cache_are_in_formats_without_code(trained: RunFolder, own_cache: Path) -> None:
    for folder in (trained.path, own_cache):
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert files
        logs = [file for file in files if file.parent.name == "tensorboard"]
        assert all(file.name.startswith("events.out.tfevents.") for file in logs)
        others = [file for file in files if file not in logs and file.name != trained.report.name]
        assert {file.suffix for file in others} <= PLAIN | {".bin"}
    # The length of the header, and then its JSON: a pickle has no such bytes, whatever the length begins with.
    assert all(file.read_bytes()[8:9] == b"{" for file in trained.path.rglob("*.safetensors"))
