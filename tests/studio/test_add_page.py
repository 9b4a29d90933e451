from pathlib import Path
from typing import Any

from tests.browsing import window
from tests.studio.clients import Client
from tests.studio.pages import running, tab_to
from tests.studio.projects import png

HOSTILE = "<img src=x onerror=alert(1)>.txt"
_DROP = """([name, bytes]) => {
    const transfer = new DataTransfer();
    for (const one of [name, "new.png"]) transfer.items.add(new File([new Uint8Array(bytes)], one));
    const place = document.querySelector(".images");
    place.dispatchEvent(new DragEvent("dragover", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    place.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def test_a_folder_is_added_with_its_classes_and_given_back(browser: Any, empty: Client, tmp_path: Path) -> None:
    for number in range(8):
        folder = tmp_path / "plates" / ("ok" if number % 2 else "bad")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(png(number))
    workspace = empty.workspace
    workspace.background.start()
    # Features are not needed here.
    workspace.refresh_piles = lambda: None  # type: ignore[method-assign]
    with running(workspace) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.on("filechooser", lambda _: None)
        page.goto(address)
        page.wait_for_selector(".invitation")
        tab_to(page, ".invitation .primary + button")
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Enter")
        chooser.value.set_files(tmp_path / "plates")
        page.wait_for_selector(".notice:has-text('8 images added')")
        page.wait_for_selector(".notice:has-text('bad (4), ok (4)')")
        tab_to(page, ".notice .primary", backwards=True)
        page.keyboard.press("Enter")
        page.wait_for_selector("#cell-0 .mark:has-text('bad')")
        page.evaluate(_DROP, [HOSTILE, list(png(9))])
        page.wait_for_selector(f".notice:has-text('{HOSTILE}')")
        page.wait_for_selector("#cell-8")
        tab_to(page, ".to-folders")
        page.keyboard.press("Enter")
        page.wait_for_selector("p:has-text('8 images are copied')")
        base = page.url.partition("#")[0]
        assert all(url.startswith((base, "data:", "blob:")) for url in opened.urls)
    assert not opened.console
    assert len(list((workspace.project.path / "class-folders-1").glob("*/*.png"))) == 8


def test_images_that_are_dropped_while_an_upload_is_concluded_are_added_too(browser: Any, empty: Client) -> None:
    workspace = empty.workspace
    # Features are not needed here.
    workspace.refresh_piles = lambda: None  # type: ignore[method-assign]
    held: list[Any] = []
    with running(workspace) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.route("**/api/uploads/end", lambda route: route.continue_() if held else held.append(route))
        page.goto(address)
        page.wait_for_selector(".invitation")
        page.evaluate(_DROP, ["first.png", list(png(1))])
        while not held:
            page.wait_for_timeout(10)
        page.evaluate(_DROP, ["second.png", list(png(2))])
        held[0].continue_()
        # Of each two with the same content one is left out.
        page.wait_for_selector(".notice:has-text('2 images added'):has-text('in the project already')")
        page.wait_for_selector("#cell-1")
    assert len(workspace.images) == 2 and not opened.console
