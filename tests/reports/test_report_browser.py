"""The pages in a real browser: interaction by mouse and keyboard, phone width, and dark mode."""

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from thaw.data.dataset import Dataset
from thaw.pipeline import finetune, inspect
from thaw.progress import NullReporter
from thaw.recipe import Recipe, SplitSettings
from thaw.run_folder import InspectionFolder, RunFolder

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the extra dev")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the path")

EVIL = "<script>document.title = 'broken'</script>"
LONG = "oxide_scale_of_the_temperature_system"

# Elements with text whose contrast with the background is below 4.5 (WCAG 2.2, 1.4.3).
LOW_CONTRAST = """() => {
  const parse = text => {
    const numbers = text.match(/[\\d.e-]+/g).map(Number);
    const scale = text.startsWith("color(") ? 1 : 255;
    return { rgb: numbers.slice(0, 3).map(value => value / scale), alpha: numbers[3] ?? 1 };
  };
  const luminance = rgb => {
    const [r, g, b] = rgb.map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.alpha > 0.99) return colour.rgb;
    }
    return [1, 1, 1];
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || element.closest("option, script, title")) continue;
    const style = getComputedStyle(element);
    const ink = parse(element.closest("svg") ? style.fill : style.color).rgb;
    const [low, high] = [luminance(ink), luminance(background(element))].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) found.push(`${element.tagName} ${element.textContent.trim().slice(0, 30)}: ${contrast}`);
  }
  return found;
}"""

TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter(element => !element.closest(".scroll, pre") && element.getBoundingClientRect().right > innerWidth + 1)
  .map(element => element.outerHTML.slice(0, 100))"""


@pytest.fixture(scope="module")
def report(images: Path, quick: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with class names that need escaping and wrapping."""
    folder = tmp_path_factory.mktemp("browser")
    names = {"ok": "ok", "scratch": EVIL, "stain": LONG}
    table = folder / "table.csv"
    with table.open("w", newline="") as stream:
        rows = [(str(file), names[kind]) for kind in names for file in sorted((images / kind).iterdir())]
        csv.writer(stream).writerows([("path", "label"), *rows])
    recipe = quick.model_copy(update={"phases": quick.phases[:1], "split": SplitSettings(val=0.3, test=0.3)})
    finetune(Dataset.open(table), recipe, folder / "runs", reporter=NullReporter())
    return RunFolder(folder / "runs" / "train-1").report


@pytest.fixture(scope="module")
def inspection(images: Path, quick: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspected")
    inspect(Dataset.open(images), quick, folder, reporter=NullReporter())
    return InspectionFolder(folder / "inspect-1").page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=options)
        yield chromium
        chromium.close()


class Tab:
    """An open page; records its console messages and requests."""

    def __init__(self, browser: Any, file: Path, width: int = 1100, scheme: str = "light") -> None:
        self.messages: list[str] = []
        self.requests: list[str] = []
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = context.new_page()
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        context.route("**", lambda route: route.continue_() if _is_local(route.request.url) else route.abort())
        self.page.goto(file.as_uri())

    def external_requests(self) -> list[str]:
        """Requests for anything but the file itself."""
        return [url for url in self.requests if not _is_local(url)]


def _is_local(url: str) -> bool:
    return url.startswith(("file://", "data:"))


@pytest.fixture(params=["report", "inspection"])
def file(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_a_page_loads_without_errors_or_network_requests(browser: Any, file: Path) -> None:
    tab = Tab(browser, file)
    tab.page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    tab.page.wait_for_function("[...document.images].every(image => image.complete)")
    assert tab.page.evaluate("[...document.querySelectorAll('img[src]')].every(image => image.naturalWidth > 0)")
    assert tab.messages == [] and tab.external_requests() == [] and tab.page.title() != "broken"
    assert [url for url in tab.requests if url.startswith("file:")] == [file.as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_sufficient_contrast(browser: Any, file: Path, scheme: str) -> None:
    tab = Tab(browser, file, scheme=scheme)
    background = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(22, 22, 24)") == (scheme == "dark")
    for details in tab.page.query_selector_all("details"):
        details.evaluate("element => element.open = true")
    assert tab.page.evaluate(LOW_CONTRAST) == []


def test_nothing_is_wider_than_a_phone(browser: Any, file: Path) -> None:
    tab = Tab(browser, file, width=360)
    for details in tab.page.query_selector_all("details"):
        details.evaluate("element => element.open = true")
    for cell in tab.page.query_selector_all(".cell"):
        cell.evaluate("element => element.hidden = false")
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 360
    assert tab.page.evaluate(TOO_WIDE) == []


def test_a_click_on_a_cell_opens_its_images_and_closes_the_previous_cell(browser: Any, report: Path) -> None:
    page = Tab(browser, report).page
    buttons = page.locator("button[aria-controls^=cell-]")
    assert buttons.count() >= 2 and page.locator(".cell:visible").count() == 0
    for number in (0, 1):
        button = buttons.nth(number)
        button.click()
        assert button.get_attribute("aria-expanded") == "true"
        shown = page.locator(".cell:visible")
        assert shown.count() == 1 and shown.get_attribute("id") == button.get_attribute("aria-controls")
        images = int(button.get_attribute("aria-label").split()[0])
        assert shown.locator("img").count() == images
    buttons.nth(1).click()
    assert page.locator(".cell:visible").count() == 0


def test_a_cell_is_reached_and_opened_by_keyboard(browser: Any, report: Path) -> None:
    page = Tab(browser, report).page
    for _ in range(40):
        page.keyboard.press("Tab")
        if (page.evaluate("document.activeElement.getAttribute('aria-controls')") or "").startswith("cell-"):
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    opened = page.evaluate("document.activeElement.getAttribute('aria-controls')")
    page.keyboard.press("Enter")
    assert page.locator(f"#{opened}").is_visible()
    page.keyboard.press("Space")
    assert not page.locator(f"#{opened}").is_visible()


def test_the_slider_updates_the_metrics_by_keyboard(browser: Any, report: Path) -> None:
    page = Tab(browser, report).page
    assert set(page.locator("#class option").all_text_contents()) == {"ok", EVIL, LONG}
    page.select_option("#class", index=1)
    page.focus("#slider")

    def metrics() -> list[str]:
        return page.locator("#effect tbody td").all_text_contents()

    page.keyboard.press("Home")
    lowest = metrics()
    assert page.locator("#value").text_content() == "0.000"
    assert lowest[0].startswith("100.0%") and lowest[1].startswith("100.0%")
    page.keyboard.press("ArrowRight")
    assert page.locator("#value").text_content() == "0.005"
    page.keyboard.press("End")
    highest = metrics()
    assert page.locator("#value").text_content() == "1.000"
    assert highest[0].startswith("0.0%") and highest[1].startswith("0.0%") and highest[2].startswith("-")
    assert page.locator("#effect tbody th").all_text_contents() == ["test", "validation"]
    assert page.locator("#curves polyline").count() == 6


def test_arrow_keys_move_between_the_dots_of_the_map(browser: Any, inspection: Path) -> None:
    page = Tab(browser, inspection).page
    assert page.locator("circle[data-thumbnail]").count() > 2
    assert page.locator("circle[tabindex='0']").count() == 1
    page.focus("circle[tabindex='0']")
    first = page.locator("#preview span").text_content()
    page.keyboard.press("ArrowRight")
    assert page.locator("#preview").is_visible() and page.locator("#preview span").text_content() != first
    page.keyboard.press("ArrowLeft")
    assert page.locator("#preview span").text_content() == first
    assert page.locator("circle[tabindex='0']").count() == 1
    page.keyboard.press("Escape")
    assert not page.locator("#preview").is_visible()


def test_the_recipe_is_copied(browser: Any, report: Path) -> None:
    page = Tab(browser, report).page
    page.locator("summary", has_text="Resolved recipe").click()
    page.click("#copy")
    page.wait_for_function("document.getElementById('copy').textContent !== 'copy'")
    recipe = report.with_name("recipe.yaml").read_text(encoding="utf-8")
    assert page.evaluate("getSelection().toString()").strip() == recipe.strip()
