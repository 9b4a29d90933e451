from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

import thaw
from tests.browsing import OpenPage, window
from tests.exports.classifiers import random_classifier
from tests.serve.conftest import NAME, policy_rejecting, running
from thaw.classifier.decision import Decision
from thaw.serve.access import AccessPolicy
from thaw.serve.limits import Limits
from thaw.serve.service import Service

TOKEN = "a-token-of-some-length"


@pytest.fixture
def opened(browser: Any) -> Iterator[OpenPage]:
    """A page on a phone in dark mode."""
    with window(browser, 390, 844, color_scheme="dark") as page:
        yield page


@pytest.fixture(scope="module")
def service(bundle: Path, images: Path) -> Service:
    """A service for which a white image is out of distribution."""
    classifier = thaw.load(bundle)
    known = np.asarray(Image.open(images / "scratch" / "000.png").convert("RGB"))
    classifier.review_policy = policy_rejecting(classifier, [known], outlier=np.full((64, 64, 3), 255, np.uint8))
    return Service(classifier, NAME, Limits())


def test_a_chosen_image_shows_label_probabilities_and_evidence(
    service: Service, images: Path, tmp_path: Path, opened: OpenPage
) -> None:
    white = tmp_path / "white.png"
    Image.new("RGB", (64, 64), "white").save(white)
    with running(service) as url:
        page = opened.page
        page.goto(url)
        page.set_input_files("#file", images / "scratch" / "000.png")
        page.wait_for_selector("#bars li")
        assert page.inner_text("#label") in service.classifier.classes
        assert page.inner_text("#confidence").startswith("Confidence ")
        assert page.locator("#bars li").count() == 3 and page.locator("#bars .chosen").count() == 1
        assert page.is_hidden("#note") and page.is_visible("#image")
        page.click("#why")
        page.wait_for_selector("#map img")
        assert page.evaluate("document.querySelector('#map img').naturalWidth") == 64
        page.set_input_files("#file", white)
        page.wait_for_selector("#note:not([hidden])")
        assert page.inner_text("#note").startswith("Out of distribution") and page.is_hidden("#map")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert all(one.startswith((f"{url}/", f"blob:{url}/", "data:,")) for one in opened.urls)
    assert not opened.console


@pytest.mark.parametrize("threshold", [2.0, 0.0])
def test_the_evidence_is_named_by_the_likeliest_label_also_where_there_is_none_or_several(
    threshold: float, images: Path, opened: OpenPage
) -> None:
    classifier = random_classifier(task="multilabel")
    classifier.decision = Decision(tuple((index, threshold) for index in range(3)))
    with running(Service(classifier, NAME, Limits())) as url:
        page = opened.page
        page.goto(url)
        page.set_input_files("#file", images / "scratch" / "000.png")
        page.wait_for_selector("#bars li")
        assert (page.inner_text("#label") == "No label") == (threshold > 1)
        page.click("#why")
        page.wait_for_selector("#map img")
        likeliest = page.inner_text("#bars li:first-child span")
        assert page.inner_text("#explained") == likeliest
    (asked,) = [one for one in opened.urls if "/explain" in one]
    assert parse_qs(urlsplit(asked).query)["class"] == [likeliest]


def test_an_image_can_be_dropped_or_pasted(url: str, opened: OpenPage, photo: bytes) -> None:
    program = """([kind, bytes]) => {
      const held = new DataTransfer();
      held.items.add(new File([new Uint8Array(bytes)], "a.png", { type: "image/png" }));
      const event = kind === "drop" ? new DragEvent("drop", { dataTransfer: held, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: held, bubbles: true });
      document.getElementById("drop").dispatchEvent(event);
    }"""
    for kind in ("drop", "paste"):
        opened.page.goto(url)
        opened.page.evaluate(program, [kind, list(photo)])
        opened.page.wait_for_selector("#bars li")
    assert not opened.console


def test_a_file_that_is_not_an_image_shows_the_reason(url: str, opened: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_bytes(b"not an image")
    opened.page.goto(url)
    opened.page.set_input_files("#file", tmp_path / "notes.png")
    opened.page.wait_for_selector("#note.alarm")
    assert "Not a JPEG" in opened.page.inner_text("#note") and opened.page.is_visible("#invitation")


def test_the_page_asks_for_a_token_if_one_is_required(bundle: Path, images: Path, opened: OpenPage) -> None:
    service = Service(thaw.load(bundle), NAME, Limits())
    with running(service, AccessPolicy(TOKEN)) as url:
        page = opened.page
        page.goto(url)
        assert page.is_visible("#token")
        page.set_input_files("#file", images / "ok" / "000.png")
        page.wait_for_selector("#note.alarm")
        page.fill("#token", TOKEN)
        page.press("#token", "Enter")
        page.wait_for_selector("#bars li")
        assert page.is_hidden("#note")
