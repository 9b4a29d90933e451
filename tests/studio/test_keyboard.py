"""From an empty project to an export, by keyboard alone, as a person would."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.browsing import OpenPage, window
from tests.studio.pages import running, tab_to
from thaw.progress import NullReporter
from thaw.recipe import Phase, Recipe
from thaw.studio.project import Project
from thaw.studio.workspace import Workspace

RECIPE = Recipe(
    backbone="starter",
    engine="pytorch-fp32",
    views=1,
    phases=(Phase(name="head", cut="head", epochs=2, lr=1e-2, batch_size=16),),
)
LABELS = 24
WINDOWS = {"desk": (1280, 800), "phone": (390, 844)}

Ordered = Callable[[str], Path]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A new project without images."""
    with closing(Workspace(Project.open(tmp_path / "studio"), RECIPE, NullReporter().bar)) as opened:
        yield opened


def linked(files: list[Path], folder: Path) -> list[Path]:
    """Links to files in class folders, named after their class."""
    folder.mkdir()
    named = [folder / f"{file.parent.name} {file.name}" for file in files]
    for link, file in zip(named, files, strict=True):
        os.link(file, link) if file.stat().st_dev == folder.stat().st_dev else link.write_bytes(file.read_bytes())
    return named


@pytest.mark.slow
@pytest.mark.parametrize("width", WINDOWS)
def test_photos_are_labelled_trained_on_and_exported(
    browser: Any, workspace: Workspace, shared_data: Path, tmp_path: Path, width: str
) -> None:
    if not (shared_data / "trashnet").is_dir():
        pytest.skip("needs the photos of trashnet")
    folders = [shared_data / "trashnet" / name for name in ("glass", "metal", "paper")]
    files = [file for folder in folders for file in sorted(folder.iterdir())[:20]]
    go_through(browser, workspace, linked(files, tmp_path / "photos"), width)


@pytest.mark.slow
@pytest.mark.ci
def test_surfaces_are_labelled_trained_on_and_exported(
    browser: Any, workspace: Workspace, images: Path, tmp_path: Path
) -> None:
    files = sorted(file for file in images.rglob("*.png") if file.parent.name != "stain")
    go_through(browser, workspace, linked(files, tmp_path / "surfaces"), "phone")


def go_through(browser: Any, workspace: Workspace, files: list[Path], width: str) -> None:
    with running(workspace, computes=True) as address, window(browser, *WINDOWS[width]) as opened:
        opened.page.set_default_timeout(60_000)
        # A subscription that is made only when Enter is pressed may come too late.
        opened.page.on("filechooser", lambda _: None)
        opened.page.goto(address)
        base = opened.page.url.partition("#")[0]
        add(opened.page, files)
        label(opened.page)
        train(opened.page)
        look_at_mistakes(opened.page)
        decide(opened.page)
        ship(opened.page)
        assert all(url.startswith((base, "data:", "blob:")) for url in opened.urls)
        check_quiet(opened)
    assert len(workspace.images) == len(files)
    assert (workspace.project.bundles / "train-1-decision-1").is_dir() and workspace.exports


def check_quiet(opened: OpenPage) -> None:
    assert not opened.console


def go(page: Any, screen: str) -> None:
    tab_to(page, f"nav a[href='#{screen}']")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"nav a[href='#{screen}'][aria-current]")


def add(page: Any, files: list[Path]) -> None:
    page.wait_for_selector(".invitation")
    tab_to(page, ".invitation button")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(files)
    page.wait_for_selector(f".notice:has-text('{len(files)} images added')")
    # The first image, in full view and back.
    page.wait_for_selector(".grid:focus")
    page.keyboard.press("Enter")
    page.wait_for_selector(".viewer:focus img")
    tab_to(page, ".viewer button[aria-label=Next]")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.wait_for_selector(".grid:focus #cell-1.cursor")
    tab_to(page, ".notice button", backwards=True)
    page.keyboard.press("Space")
    page.wait_for_selector(".notice", state="detached")


def label(page: Any) -> None:
    go(page, "label")
    known: list[str] = []
    for done in range(LABELS):
        page.wait_for_selector(f".progress:has-text('{done} labelled')")
        page.wait_for_selector(".ask img")
        name = page.inner_text(".ask .path").rpartition("/")[2].split()[0]
        if name in known:
            page.keyboard.press(str(known.index(name) + 1))
        else:
            page.keyboard.press("n")
            page.wait_for_selector("dialog[open] input:focus")
            page.keyboard.press("Escape")
            page.wait_for_selector("dialog[open]", state="detached")
            page.keyboard.press("n")
            page.keyboard.type(name)
            page.keyboard.press("Enter")
            known.append(name)
        page.wait_for_selector(f".progress:has-text('{done + 1} labelled')")
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open].keys-help")
    page.keyboard.press("Escape")


def train(page: Any) -> None:
    go(page, "train")
    page.wait_for_selector("button.primary")
    tab_to(page, "summary")
    page.keyboard.press("Enter")
    page.wait_for_selector("details[open].settings select")
    tab_to(page, "button.primary", backwards=True)
    page.keyboard.press("Enter")
    page.wait_for_selector("td:has-text('train-1')", timeout=180_000)


def look_at_mistakes(page: Any) -> None:
    go(page, "mistakes")
    page.wait_for_selector(".matrix button")
    tab_to(page, ".matrix button")
    page.keyboard.press("Enter")
    page.wait_for_selector(".matrix button.chosen")
    page.wait_for_selector(".detail .maps img")
    tab_to(page, ".errors button")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    page.wait_for_selector(".matrix button.chosen", state="detached")


def decide(page: Any) -> None:
    go(page, "decide")
    page.wait_for_selector(".of-class")
    page.keyboard.press("1")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("p:has-text('at least 0.95.')")
    page.keyboard.press("Escape")
    page.keyboard.press("w")
    page.wait_for_selector(".written code")


def ship(page: Any) -> None:
    go(page, "ship")
    page.wait_for_selector(".ship button.primary:not(:disabled)")
    page.keyboard.press("p")
    page.wait_for_selector(".verdict:has-text('is promoted')")
    tab_to(page, "select[aria-label=Format]")
    tab_to(page, "select[aria-label=Format] + button")
    page.keyboard.press("Enter")
    page.wait_for_selector("p:has-text('Certified on')", timeout=120_000)
