"""Every path of Thaw once on the device: commands as a user types them, then functions with a classifier on the device.

Each is a row of its own, and the next one runs whatever happened to it.
"""

from __future__ import annotations

import csv
import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import thaw
from bench.gpu.jobs import failure
from bench.gpu.runs import command, environment
from bench.gpu.setup import Setup
from bench.gpu.table import Row, took
from thaw.cli import app
from thaw.data.surfaces import write_surfaces
from thaw.evaluation.explain import class_maps, randomised_agreement
from thaw.formats import percent
from thaw.prediction.predict import read_pixels
from thaw.run_folder import RunFolder
from thaw.serve.access import AccessPolicy
from thaw.serve.limits import Limits
from thaw.serve.server import server_for, service_of

_SETTINGS = {
    "binary": ["--set", "head.hidden=[32]", "--set", "cache_dtype=uint8", "--set", "class_weights=balanced"],
    "multilabel": ["--set", "precision=fp32", "--set", "phases.0.mixup=0.2", "--set", "phases.0.solver=optimizer"],
    "scratch": ["--weights", "random", "--strategy", "scratch", "--set", "phases.0.epochs=2"],
}


def commands(setup: Setup) -> Iterator[Row]:
    """Train, then everything that is done with what was trained."""
    yield from _rows(_Paths(setup, "commands").commands())


def trainings(setup: Setup) -> Iterator[Row]:
    """Short runs with the settings that the run of `commands` has not."""
    yield from _rows(_Paths(setup, "trainings").trainings())


def other_commands(setup: Setup) -> Iterator[Row]:
    """A short run, then the commands that learn from it, search, or train in another way."""
    yield from _rows(_Paths(setup, "other-commands").other_commands())


def _rows(calls: Mapping[str, Callable[[], str | None]]) -> Iterator[Row]:
    """The row of each call."""
    for name, call in calls.items():
        started = time.perf_counter()
        try:
            note = call() or ""
        except (Exception, SystemExit) as error:
            yield failure(name, error)
        else:
            yield took(name, time.perf_counter() - started, note)


class _Paths:
    """The paths, with what they share: images, and the run that the first of them leaves."""

    def __init__(self, setup: Setup, name: str) -> None:
        self._setup, self._folder = setup, setup.new_folder(name)
        network, weights = setup.sizes.pretrained
        self._images, self._runs = self._folder / "images", self._folder / "runs"
        write_surfaces(self._images, images_per_class=24, size=64, classes=("ok", "scratch", "stain"))
        self._run = self._runs / "train-1"
        self._files = sorted(self._images.rglob("*.png"))
        self._options = [
            "--backbone",
            network,
            "--weights",
            weights,
            "--image-size",
            "64",
            "--device",
            setup.device.type,
        ]

    def trainings(self) -> dict[str, Callable[[], str | None]]:
        """Every training by the name of its row."""
        calls = {
            "binary": lambda: self._train("binary", ["--exclude", "stain"]),
            "multilabel": lambda: self._train("multilabel", [], self._table()),
            "scratch": lambda: self._train("scratch", []),
        }
        return {f"thaw train, {name}": calls[name] for name in self._setup.sizes.trainings}

    def other_commands(self) -> dict[str, Callable[[], str | None]]:
        """The commands that `commands` has not, and further ways to train, by the name of the row."""
        run, runs, new = self._run, self._runs, self._folder / "new"
        write_surfaces(new, images_per_class=6, size=64, classes=("scratch",), seed=1)
        keras = ["--backbone", "keras:MobileNetV2", "--weights", "random", *self._options[4:]]
        launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "thaw"]
        train: list[str | Path] = ["train", self._images, "--runs"]
        return {
            "thaw train --time 1m": lambda: _thaw(*train, runs, *self._options, "--strategy", "top", "--time", "1m"),
            "thaw label": lambda: _thaw("label", self._images, *self._options, "--out", self._folder / "queue.csv"),
            "thaw decide": lambda: _thaw("decide", run, "--recall", "ok=0.9", "--out", self._folder / "decided"),
            "thaw compare": lambda: _thaw("compare", run, run),
            "thaw update": lambda: _thaw("update", run, new, "--runs", self._folder / "updated"),
            "thaw search": self._search,
            "thaw train, a network of Keras": lambda: _thaw(*train, self._folder / "keras", *keras),
            "thaw train --processes auto": lambda: _run_module(
                "thaw", *train, self._folder / "processes", *self._options, "--processes", "auto"
            ),
            "torchrun with one process": lambda: _run_module(
                *launcher, *train, self._folder / "torchrun", *self._options
            ),
        }

    def commands(self) -> dict[str, Callable[[], str | None]]:
        """Every command by the name of its row, in an order in which each finds what it needs."""
        run, folder, images = self._run, self._folder, self._images
        device = ["--device", self._setup.device.type]
        calls: dict[str, Callable[[], str | None]] = {
            "thaw train, killed and resumed": self._train_killed,
            "thaw inspect": lambda: _thaw("inspect", images, "--runs", self._runs, *self._options),
            "thaw plan": lambda: _thaw("plan", images, "--out", folder / "plan.yaml", *self._options),
        }
        for engine in ("auto", *(engine for engine in self._setup.sizes.engines if "bf16" in engine)):
            words = ["predict", run, images, *device, "--engine", engine, "--out", folder / f"{engine}.csv"]
            calls[f"thaw predict, engine {engine}"] = lambda words=words: _thaw(*words)  # type: ignore[misc]
        calls |= {
            "thaw predict --mirrored": lambda: _thaw("predict", run, images, *device, "--mirrored"),
            "thaw evaluate": lambda: _thaw("evaluate", run, images),
            "thaw evaluate --folds": lambda: _thaw("evaluate", run, "--folds", "3"),
            "thaw evaluate --options": lambda: _thaw("evaluate", run, "--options"),
            "thaw explain": lambda: _thaw("explain", run, self._files[0], "--out", folder / "explained"),
            "thaw report": lambda: _thaw("report", run),
            "thaw serve": self._serve,
            "a classifier on the device": self._functions,
        }
        if self._setup.sizes.exports:
            for target, ending in (("torch", "pt2"), ("onnx", "onnx")):
                words = ["export", run, "--to", target, "--out", folder / f"model.{ending}"]
                calls[f"thaw export --to {target}"] = lambda words=words: _thaw(*words)  # type: ignore[misc]
        return calls

    def _train_killed(self) -> str:
        """Kill a training process in its second phase, then resume the run in this one."""
        settings = ["--strategy", "top", "--set", "phases.1.epochs=3", "--set", "phases.1.optional=false"]
        words = command("train", self._images, "--runs", self._runs, *self._options, *settings)
        process = subprocess.Popen(words, env=environment())
        metrics = RunFolder(self._run).metrics
        while process.poll() is None and not (metrics.is_file() and "fine-tune" in metrics.read_text(encoding="utf-8")):
            time.sleep(0.01)
        process.kill()
        if process.wait() >= 0:
            raise RuntimeError(f"the process ended before it was killed, with exit code {process.returncode}")
        done = len(metrics.read_text(encoding="utf-8").splitlines()) - 1
        _thaw("train", self._images, "--runs", self._runs, "--resume")
        records = RunFolder.at(self._run).read_epochs()
        return f"killed after {done} of {len(records)} epochs; {_accuracy(self._run)}"

    def _train(self, name: str, options: list[str], data: Path | None = None) -> str:
        """A short run with settings that the first one has not."""
        runs = self._folder / name
        settings = [*self._options, *_SETTINGS[name], *options]
        if name != "scratch":
            settings += ["--strategy", "top", "--set", "phases.1.epochs=1"]
        _thaw("train", data or self._images, "--runs", runs, *settings)
        return _accuracy(runs / "train-1")

    def _search(self) -> str | None:
        """A search of a few trials, where Optuna is installed."""
        if find_spec("optuna") is None:
            return "skipped, Optuna is not installed"
        _thaw("search", self._images, "--runs", self._runs, *self._options, "--trials", "6")
        return None

    def _table(self) -> Path:
        """A table in which some images have two labels."""
        file = self._folder / "labels.csv"
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("path", "labels"))
            for number, image in enumerate(self._files):
                labels = [image.parent.name, *(["marked"] if number % 3 == 0 else [])]
                writer.writerow((image.relative_to(self._folder), "|".join(labels)))
        return file

    def _serve(self) -> str:
        """A server on a socket, one image to classify and one to explain."""
        server = server_for(service_of(RunFolder(self._run).model, Limits()), AccessPolicy())
        with socket.create_server(("127.0.0.1", 0)) as listening:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            while not server.started and thread.is_alive():
                time.sleep(0.02)
            answers = [
                _post(listening.getsockname()[1], f"/{route}", self._files[0]) for route in ("predict", "explain")
            ]
            server.should_exit = True
            thread.join(30)
        return ", ".join(answers)

    def _functions(self) -> str:
        """Public functions with a classifier that was moved to the device."""
        classifier = thaw.load(self._run).to(self._setup.device)
        predictions = thaw.predict(classifier, self._files[:4])
        pixels = np.stack([np.asarray(read_pixels(classifier, file)) for file in self._files[:4]])
        maps = class_maps(classifier, pixels, np.zeros(len(pixels), int))
        agreement = randomised_agreement(classifier, pixels, np.zeros(len(pixels), int))
        thaw.evaluate(classifier, self._images)
        thaw.save(classifier, self._folder / "saved")
        if self._setup.sizes.exports:
            thaw.export(classifier, "torch", self._folder / "moved.pt2")
        return (
            f"{predictions[0].label} {percent(predictions[0].confidence)}; maps {maps.shape}, "
            f"agreement with those of random weights {agreement:.2f}"
        )


def _thaw(*words: str | Path) -> None:
    """A command in this process; what it prints goes to the log."""
    print("$ thaw", *words, flush=True)
    app([str(word) for word in words], standalone_mode=False)


def _run_module(*words: str | Path) -> None:
    """A module of Python in a process of its own; what it prints goes to the log."""
    subprocess.run([sys.executable, "-m", *map(str, words)], env=environment(), check=True)


def _accuracy(run: Path) -> str:
    values = RunFolder.at(run).read_evaluation().evaluations["test"].overall
    name, value = next((name, value) for name, value in values.items() if value)
    return f"test {name} {value.value:.2f}"


def _post(port: int, route: str, file: Path) -> str:
    """Send an image to a route as a form; gives the status of the answer."""
    boundary = "b7c1"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n\r\n'
    body = head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", route, body, {"Content-Type": f"multipart/form-data; boundary={boundary}"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"{route}: {answer.status} {answer.read(200)!r}")
    return f"{route} {answer.status}"
