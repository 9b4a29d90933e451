"""A finished run whose images are gone, new images, and the update that learns them."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from thaw.data.manifest import Manifest
from thaw.data.surfaces import write_surfaces
from thaw.progress import NullReporter
from thaw.run_folder import RunFolder
from thaw.updating.update import update

Copy = Callable[[Path], RunFolder]


@pytest.fixture(scope="session")
def without_images(trained: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Copies a finished run into a folder of runs; the copy names a folder of images that does not exist."""

    def copy(runs: Path) -> RunFolder:
        run = RunFolder(runs / "train-1")
        shutil.copytree(trained.path, run.path)
        manifest = Manifest.read(run.manifest)
        replace(manifest, root=tmp_path_factory.getbasetemp() / "gone").write(run.manifest)
        return run

    return copy


@pytest.fixture(scope="session")
def new_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of a class that is new, and some more of an old one."""
    folder = tmp_path_factory.mktemp("new") / "more"
    write_surfaces(folder, images_per_class=18, size=64, classes=("crack", "ok"))
    return folder


@pytest.fixture(scope="session")
def source(without_images: Copy, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run that is updated."""
    return without_images(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def updated(source: RunFolder, new_images: Path) -> RunFolder:
    """Its update."""
    return update(source, new_images, source.path.parent, NullReporter())
