from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import thaw
from tests.serve.conftest import NAME, knowing_only, running
from thaw.serve.guard import AccessPolicy
from thaw.serve.limits import Limits
from thaw.serve.service import Service

CHROMIUM = Path("/usr/bin/chromium")
TOKEN = "a-token-of-some-length"
QUIET = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage")


@dataclass
class Seen:
    """A page, the addresses that it asked for, and what its console said."""

    page: Any
    addresses: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.is_file():
        pytest.skip(f"needs {CHROMIUM}")
    with api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", *QUIET])
        yield chromium
        chromium.close()


@pytest.fixture
def seen(browser: Any) -> Iterator[Seen]:
    """A page the size of a phone, in the dark."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    seen = Seen(context.new_page())
    seen.page.on("request", lambda request: seen.addresses.append(request.url))
    seen.page.on("console", lambda message: seen.console.append(message.text))
    seen.page.on("pageerror", lambda error: seen.console.append(str(error)))
    yield seen
    context.close()


@pytest.fixture(scope="module")
def able(bundle: Path, images: Path) -> Service:
    """A service to which a white picture is unlike anything."""
    classifier = thaw.load(bundle)
    known = np.asarray(Image.open(images / "scratch" / "000.png").convert("RGB"))
    classifier.review_policy = knowing_only(classifier, [known], stranger=np.full((64, 64, 3), 255, np.uint8))
    return Service(classifier, NAME, Limits())


def test_a_picture_that_is_chosen_is_named_with_bars_and_a_map(
    able: Service, images: Path, tmp_path: Path, seen: Seen
) -> None:
    white = tmp_path / "white.png"
    Image.new("RGB", (64, 64), "white").save(white)
    with running(able) as url:
        page = seen.page
        page.goto(url)
        page.set_input_files("#file", images / "scratch" / "000.png")
        page.wait_for_selector("#bars li")
        assert page.inner_text("#label") in able.classifier.classes
        assert page.inner_text("#confidence").endswith("% sure")
        assert page.locator("#bars li").count() == 3 and page.locator("#bars .chosen").count() == 1
        assert page.is_hidden("#note") and page.is_visible("#picture")
        page.click("#why")
        page.wait_for_selector("#map img")
        assert page.evaluate("document.querySelector('#map img').naturalWidth") == 64
        page.set_input_files("#file", white)
        page.wait_for_selector("#note:not([hidden])")
        assert page.inner_text("#note").startswith("Out of distribution") and page.is_hidden("#map")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert all(address.startswith((f"{url}/", f"blob:{url}/", "data:,")) for address in seen.addresses)
    assert not seen.console


def test_a_picture_can_be_dropped_or_pasted(url: str, seen: Seen, photo: bytes) -> None:
    program = """([kind, bytes]) => {
      const held = new DataTransfer();
      held.items.add(new File([new Uint8Array(bytes)], "a.png", { type: "image/png" }));
      const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: held, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: held, bubbles: true });
      document.getElementById("drop").dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        seen.page.goto(url)
        seen.page.evaluate(program, [kind, list(photo)])
        seen.page.wait_for_selector("#bars li")
    assert not seen.console


def test_what_is_no_picture_is_told_in_a_sentence(url: str, seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_bytes(b"no picture")
    seen.page.goto(url)
    seen.page.set_input_files("#file", tmp_path / "notes.png")
    seen.page.wait_for_selector("#note.alarm")
    assert "Not a JPEG" in seen.page.inner_text("#note") and seen.page.is_visible("#invitation")


def test_a_token_is_asked_for_where_one_is_needed(bundle: Path, images: Path, seen: Seen) -> None:
    service = Service(thaw.load(bundle), NAME, Limits())
    with running(service, AccessPolicy(TOKEN)) as url:
        page = seen.page
        page.goto(url)
        assert page.is_visible("#token")
        page.set_input_files("#file", images / "ok" / "000.png")
        page.wait_for_selector("#note.alarm")
        page.fill("#token", TOKEN)
        page.press("#token", "Enter")
        page.wait_for_selector("#bars li")
        assert page.is_hidden("#note")
