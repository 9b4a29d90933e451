"""Every public function says what it takes, gives and raises, and its example runs."""

import doctest
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import thaw
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder

FUNCTIONS = [name for name in thaw.__all__ if inspect.isfunction(getattr(thaw, name))]


@pytest.fixture
def workplace(images: Path, quick: Recipe, trained: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, a recipe and a finished run, as the examples expect it."""
    (tmp_path / "images").symlink_to(images)
    (tmp_path / "recipe.yaml").write_text(quick.to_yaml())
    shutil.copytree(trained.path, tmp_path / "runs" / "train-1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRACES = pytest.param("export", marks=[pytest.mark.slow, pytest.mark.ci])


@pytest.mark.parametrize("name", [TRACES if name == "export" else name for name in FUNCTIONS])
def test_the_example_of_a_public_function_runs(name: str, workplace: Path) -> None:
    (test,) = doctest.DocTestFinder(recurse=False).find(getattr(thaw, name), name, globs={"thaw": thaw})
    assert test.examples, f"thaw.{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    said: list[str] = []
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_path_that_the_system_refuses_is_an_error_of_thaw(name: str, tmp_path: Path) -> None:
    """As here a name that is too long, or elsewhere a folder that must not be read."""
    place, out = str(tmp_path / ("a" * 300)), tmp_path / "out"
    takes_more: dict[str, tuple[Any, ...]] = {
        "compare": (place,),
        "decide": (Recipe().decision, out),
        "evaluate": (place,),
        "explain": (place, out),
        "export": ("torch", out),
        "predict": (place,),
        "push": ("acme/steel",),
        "quantise": (tmp_path / "int8.safetensors",),
        "save": (out,),
        "update": (place,),
    }
    with pytest.raises(thaw.ThawError) as error:
        getattr(thaw, name)(place, *takes_more.get(name, ()))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_documents_its_arguments_result_and_errors(name: str) -> None:
    function = getattr(thaw, name)
    text = inspect.getdoc(function) or ""
    assert "Raises:" in text
    if inspect.signature(function).return_annotation not in (None, "None"):
        assert "Returns:" in text
    arguments = text.partition("Args:")[2].partition("Raises:")[0]
    documented = re.findall(r"^    (\w+):", arguments, flags=re.MULTILINE)
    assert documented[: len(inspect.signature(function).parameters)] == list(inspect.signature(function).parameters)
