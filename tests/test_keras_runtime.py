"""Keras runs on PyTorch whatever the user has configured for other programs, and changes nothing of theirs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from thaw.errors import PackageError

CHECK = """
import os
from thaw.keras_runtime import keras
assert keras.backend.backend() == "torch"
assert keras.backend.floatx() == "float32" and keras.backend.image_data_format() == "channels_last"
assert os.environ["KERAS_BACKEND"] == "jax" and "KERAS_HOME" not in os.environ
"""


def test_the_configuration_in_the_home_folder_is_neither_read_nor_written(tmp_path: Path) -> None:
    folder = tmp_path / ".keras"
    folder.mkdir()
    configuration = '{"backend": "tensorflow", "floatx": "float16", "image_data_format": "channels_first"}'
    (folder / "keras.json").write_text(configuration)
    environment = {**os.environ, "HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "KERAS_BACKEND": "jax"}
    environment.pop("KERAS_HOME", None)
    subprocess.run([sys.executable, "-c", CHECK], env=environment, check=True)
    assert [file.name for file in folder.iterdir()] == ["keras.json"]
    assert (folder / "keras.json").read_text() == configuration


@pytest.fixture
def not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "thaw.keras_runtime", raising=False)


@pytest.mark.usefixtures("not_imported")
@pytest.mark.parametrize("name", ["keras", "h5py"])
def test_a_missing_package_is_an_error_with_the_install_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(PackageError, match=rf'need {name}: pip install "thaw-vision\[keras\]"'):
        importlib.import_module("thaw.keras_runtime")


@pytest.mark.usefixtures("not_imported")
def test_keras_that_was_imported_with_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = SimpleNamespace(backend=SimpleNamespace(backend=lambda: "tensorflow"))
    monkeypatch.setitem(sys.modules, "keras", other)
    with pytest.raises(PackageError, match="backend tensorflow, but Thaw needs torch"):
        importlib.import_module("thaw.keras_runtime")
