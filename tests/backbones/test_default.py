"""A recipe that names no backbone trains with and without internet, and says with which one."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from thaw.backbones import default, download
from thaw.backbones.default import NETWORK, name_backbone
from thaw.backbones.download import fetch
from thaw.errors import ResumeError, WeightsError
from thaw.planning.resume import check_same_recipe
from thaw.recipe import Recipe


class Listener:
    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, line: str) -> None:
        self.said.append(line)


@pytest.fixture
def say() -> Listener:
    return Listener()


@pytest.fixture(autouse=True)
def nothing_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default, "is_cached", lambda _: False)
    monkeypatch.setattr(download, "_cached", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def refuse(*_: object, **__: object) -> NoReturn:
    raise AssertionError("a connection was tried")


def unreachable(source: str) -> Path:
    raise WeightsError(f"the weights {source} are not on this machine and the Hub cannot be reached; copy a file")


def test_what_is_on_this_machine_is_used_without_a_word(monkeypatch: pytest.MonkeyPatch, say: Listener) -> None:
    monkeypatch.setattr(default, "is_cached", lambda name: name == NETWORK)
    monkeypatch.setattr(default, "fetch", refuse)
    recipe, reason = name_backbone(Recipe(), say)
    assert (recipe.backbone, say.said) == (NETWORK, []) and "on this machine" in reason


def test_a_download_is_announced_and_written_in_the_plan(monkeypatch: pytest.MonkeyPatch, say: Listener) -> None:
    monkeypatch.setattr(default, "fetch", lambda source: Path(source))
    recipe, reason = name_backbone(Recipe(), say)
    assert recipe.backbone == NETWORK and "downloaded from timm/" in reason
    assert len(say.said) == 1 and "trying to download" in say.said[0]


def test_without_internet_the_starter_is_used_and_said_to_be(monkeypatch: pytest.MonkeyPatch, say: Listener) -> None:
    monkeypatch.setattr(default, "fetch", unreachable)
    recipe, reason = name_backbone(Recipe(), say)
    assert recipe.backbone == "starter"
    assert f"instead of the default {NETWORK}" in reason and "the Hub cannot be reached" in reason
    assert say.said[1].startswith("NOTE: backbone starter instead of the default") and "models fetch" in say.said[1]


def test_offline_mode_opens_no_connection_and_announces_no_download(
    monkeypatch: pytest.MonkeyPatch, say: Listener
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    recipe, reason = name_backbone(Recipe(), say)
    assert recipe.backbone == "starter" and "HF_HUB_OFFLINE forbids downloads" in reason
    assert [line.partition(":")[0] for line in say.said] == ["NOTE"]


@pytest.mark.parametrize(
    "recipe",
    [Recipe(backbone="resnet50"), Recipe(backbone=NETWORK), Recipe(weights="random"), Recipe(weights="a.safetensors")],
)
def test_a_backbone_or_weights_that_are_named_are_not_replaced(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, say: Listener
) -> None:
    monkeypatch.setattr(default, "fetch", refuse)
    named, _ = name_backbone(recipe, say)
    assert named.backbone in (recipe.backbone, NETWORK) and named.weights == recipe.weights and not say.said


@pytest.mark.parametrize("source", ["timm/nobody.has_this", "http://nowhere.invalid/w.pth"])
def test_a_name_server_that_never_answers_is_given_up_after_the_timeout(
    source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hang: Callable[..., None] = lambda *_, **__: time.sleep(3)  # noqa: E731
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    started = time.monotonic()
    with pytest.raises(WeightsError, match="cannot be reached"):
        fetch(source)
    assert time.monotonic() - started < 2


def test_a_run_of_a_release_with_the_old_default_resumes_with_the_same_command() -> None:
    check_same_recipe(Recipe(backbone=NETWORK, seed=1), Recipe(seed=1))
    with pytest.raises(ResumeError, match="backbone: resnet50 -> default"):
        check_same_recipe(Recipe(backbone="resnet50"), Recipe())
