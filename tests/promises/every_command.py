"""Runs every command that is not asked for a download, one after the other, in one process.

python every_command.py IMAGES FOLDER
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

ASKS_FOR_A_DOWNLOAD = {"push"}
SERVERS = {"serve", "studio"}
"""Commands that end with Ctrl+C."""


def commands(images: Path, folder: Path) -> list[list[object]]:
    """The command lines, in an order in which each finds what it needs."""
    run, runs = folder / "runs" / "train-1", folder / "runs"
    data = [images, "--backbone", "starter", "--set", "preprocessing.image_size=64"]
    quick = ["--set", "phases.0.epochs=1", "--set", "phases.1.epochs=1"]
    image = next(images.rglob("*.png"))
    return [
        ["models", "list", "resnet50"],
        ["settings", "seed"],
        ["plan", *data, "--out", folder / "recipe.yaml"],
        ["inspect", *data, "--runs", runs],
        ["label", images, *data[1:3], "--image-size", "64", "--out", folder / "queue.csv"],
        ["quantise", *data, "--out", folder / "int8.safetensors"],
        ["train", *data, *quick, "--engine", "openvino-fp32", "--runs", runs],
        ["search", *data, "--engine", "openvino-fp32", "--trials", "5", "--runs", runs],
        ["evaluate", run, images],
        ["explain", run, image, "--out", folder / "explained"],
        ["decide", run, "--recall", "ok=0.9", "--out", folder / "decided"],
        ["compare", run, run],
        ["report", run],
        ["predict", run, images, "--out", folder / "predictions.csv"],
        # The one export that goes through ONNX, ONNX Runtime and OpenVINO.
        ["export", run, "--to", "openvino", "--out", folder / "openvino"],
        ["serve", run, "--port", "0"],
        ["studio", images, "--project", folder / "studio", "--set", "backbone=starter", "--no-browser"],
        ["update", run, folder / "new", "--runs", runs],
        ["cache", "list"],
        ["cache", "clear", "--run", run],
        ["cache", "clear"],
        ["demo", "--folder", folder / "demo"],
    ]


def _run_all(images: Path, folder: Path) -> None:
    from typer.main import get_command

    from thaw.cli import app
    from thaw.data.surfaces import write_surfaces

    lines = commands(images, folder)
    missing = set(get_command(app).commands) - {str(line[0]) for line in lines} - ASKS_FOR_A_DOWNLOAD  # type: ignore[attr-defined]
    assert not missing, f"add these commands here: {missing}"
    write_surfaces(folder / "new", images_per_class=6, size=64, classes=("crack",))
    for line in lines:
        if line[0] in SERVERS:
            threading.Timer(10, os.kill, (os.getpid(), signal.SIGINT)).start()
        started = time.perf_counter()
        try:
            app([str(word) for word in line], standalone_mode=False)
        except SystemExit as done:
            assert not done.code, line
        except KeyboardInterrupt:
            assert line[0] in SERVERS
        print(f"{time.perf_counter() - started:5.1f} s  {line[0]}", file=sys.stderr)


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir()
    _run_all(Path(sys.argv[1]), Path(sys.argv[2]))
