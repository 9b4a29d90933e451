"""The peers and their virtual environments, created on demand. Standard library only."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = "thaw"
"""The environment of Thaw itself."""


class NotInstallable(Exception):
    """The packages of a peer cannot be installed; the message is the reason."""


@dataclass(frozen=True)
class Peer:
    """One module of `bench.versus.peers`: its title in tables, its environment and its own packages."""

    name: str
    title: str
    environment: str
    packages: tuple[str, ...] = ()


PEERS = {
    peer.name: peer
    for peer in (
        Peer("thaw_cli", "Thaw", HERE),
        Peer("thaw_planned", "Thaw", HERE),
        Peer("torch_guide", "guide, PyTorch", HERE),
        Peer("keras_guide", "guide, Keras on TensorFlow", "tensorflow"),
        Peer("fastai_fine_tune", "fastai `fine_tune`", "torch", ("fastai",)),
        Peer("hf_trainer", "Hugging Face `Trainer`", "torch", ("transformers", "accelerate")),
    )
}
SHARED = ("torch", "torchvision", "timm")
"""Packages of the environment `torch`, in the versions that Thaw uses, so that all peers have the same torch."""


def python_of(peer: Peer, root: Path, thaw_python: Path) -> Path:
    """The interpreter of a peer, with its packages installed; raises `NotInstallable`."""
    if peer.environment == HERE:
        return thaw_python
    folder = root / peer.environment
    python = folder / "bin" / "python"
    marker = folder / f".has-{peer.name}"
    if marker.is_file():
        return python
    if not python.is_file():
        _call([sys.executable, "-m", "venv", str(folder)])
    needs = ["tensorflow-cpu", "keras", "safetensors"]
    if peer.environment == "torch":
        needs = [*(f"{name}=={version_in(thaw_python, name)}" for name in SHARED), "safetensors", *peer.packages]
    print(f"installing {', '.join(needs)} into {folder}", file=sys.stderr, flush=True)
    _call([str(python), "-m", "pip", "install", "--quiet", *needs])
    marker.touch()
    return python


def version_in(python: Path, package: str) -> str:
    """The version of a package in another environment, without a local suffix after `+`."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return _call([str(python), "-c", code]).strip().partition("+")[0]


def environment_of(root: Path) -> dict[str, str]:
    """Environment variables of every peer: this source tree first, offline hub."""
    here = Path(__file__).resolve().parents[2]
    paths = [str(here), str(here / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "hub")}


def _call(command: list[str]) -> str:
    """Standard output of a command; raises `NotInstallable` with its last error line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise NotInstallable(errors[-1].removeprefix("ERROR: ") if errors else f"{command[0]}: {done.returncode}")
    return done.stdout
