"""The pages in a real browser: what moves, what the keyboard reaches, what a phone and a dark screen show."""

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

# What is drawn in a colour that the ground hides: each element with text of its own, its contrast (WCAG 2.2, 1.4.3).
FAINT = """() => {
  const parse = text => {
    const numbers = text.match(/[\\d.e-]+/g).map(Number);
    const scale = text.startsWith("color(") ? 1 : 255;
    return { rgb: numbers.slice(0, 3).map(value => value / scale), alpha: numbers[3] ?? 1 };
  };
  const luminance = rgb => {
    const [r, g, b] = rgb.map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
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
    const [low, high] = [luminance(ink), luminance(ground(element))].sort((a, b) => a - b);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5) found.push(`${element.tagName} ${element.textContent.trim().slice(0, 30)}: ${contrast}`);
  }
  return found;
}"""

BROADER = """() => [...document.querySelectorAll("body *")]
  .filter(element => !element.closest(".scroll, pre") && element.getBoundingClientRect().right > innerWidth + 1)
  .map(element => element.outerHTML.slice(0, 100))"""


@pytest.fixture(scope="module")
def report(images: Path, quick: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run whose classes have names that break pages and lines."""
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
    """A page that is open; remembers what it said and what it asked for."""

    def __init__(self, browser: Any, file: Path, width: int = 1100, scheme: str = "light") -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        context.route("**", lambda route: route.continue_() if _is_own(route.request.url) else route.abort())
        self.page.goto(file.as_uri())

    def strangers(self) -> list[str]:
        """Addresses outside the file itself."""
        return [url for url in self.asked if not _is_own(url)]


def _is_own(url: str) -> bool:
    return url.startswith(("file://", "data:"))


@pytest.fixture(params=["report", "inspection"])
def file(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_a_page_loads_without_an_error_and_without_asking_anybody(browser: Any, file: Path) -> None:
    tab = Tab(browser, file)
    tab.page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
    tab.page.wait_for_function("[...document.images].every(image => image.complete)")
    assert tab.page.evaluate("[...document.querySelectorAll('img[src]')].every(image => image.naturalWidth > 0)")
    assert tab.said == [] and tab.strangers() == [] and tab.page.title() != "broken"
    assert [url for url in tab.asked if url.startswith("file:")] == [file.as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_its_ground(browser: Any, file: Path, scheme: str) -> None:
    tab = Tab(browser, file, scheme=scheme)
    ground = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(22, 22, 24)") == (scheme == "dark")
    for details in tab.page.query_selector_all("details"):
        details.evaluate("element => element.open = true")
    assert tab.page.evaluate(FAINT) == []


def test_nothing_is_broader_than_a_phone(browser: Any, file: Path) -> None:
    tab = Tab(browser, file, width=360)
    for details in tab.page.query_selector_all("details"):
        details.evaluate("element => element.open = true")
    for cell in tab.page.query_selector_all(".cell"):
        cell.evaluate("element => element.hidden = false")
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 360
    assert tab.page.evaluate(BROADER) == []


def test_a_cell_opens_its_images_by_mouse_and_closes_the_one_before(browser: Any, report: Path) -> None:
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


def test_a_cell_is_reached_and_opened_by_keyboard_alone(browser: Any, report: Path) -> None:
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


def test_the_slider_moves_the_figures_by_keyboard(browser: Any, report: Path) -> None:
    page = Tab(browser, report).page
    assert set(page.locator("#class option").all_text_contents()) == {"ok", EVIL, LONG}
    page.select_option("#class", index=1)
    page.focus("#slider")

    def figures() -> list[str]:
        return page.locator("#effect tbody td").all_text_contents()

    page.keyboard.press("Home")
    everything = figures()
    assert page.locator("#value").text_content() == "0.000"
    assert everything[0].startswith("100.0 %") and everything[1].startswith("100.0 %")
    page.keyboard.press("ArrowRight")
    assert page.locator("#value").text_content() == "0.005"
    page.keyboard.press("End")
    nothing = figures()
    assert page.locator("#value").text_content() == "1.000"
    assert nothing[0].startswith("0.0 %") and nothing[1].startswith("0.0 %") and nothing[2].startswith("-")
    assert page.locator("#effect tbody th").all_text_contents() == ["test", "validation"]
    assert page.locator("#curves polyline").count() == 6


def test_the_map_of_an_inspection_is_walked_with_the_arrow_keys(browser: Any, inspection: Path) -> None:
    page = Tab(browser, inspection).page
    assert page.locator("circle[data-picture]").count() > 2
    assert page.locator("circle[tabindex='0']").count() == 1
    page.focus("circle[tabindex='0']")
    first = page.locator("#seen span").text_content()
    page.keyboard.press("ArrowRight")
    assert page.locator("#seen").is_visible() and page.locator("#seen span").text_content() != first
    page.keyboard.press("ArrowLeft")
    assert page.locator("#seen span").text_content() == first
    assert page.locator("circle[tabindex='0']").count() == 1
    page.keyboard.press("Escape")
    assert not page.locator("#seen").is_visible()


def test_the_recipe_is_copied(browser: Any, report: Path) -> None:
    page = Tab(browser, report).page
    page.locator("summary", has_text="The recipe").click()
    page.click("#copy")
    page.wait_for_function("document.getElementById('copy').textContent !== 'copy'")
    recipe = report.with_name("recipe.yaml").read_text(encoding="utf-8")
    assert page.evaluate("getSelection().toString()").strip() == recipe.strip()
