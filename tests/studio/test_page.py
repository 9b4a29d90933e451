import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.browsing import window
from tests.studio.conftest import Opened
from tests.studio.pages import running
from tests.studio.predictions import of_many_classes
from tests.studio.waiting import until
from thaw.run_folder import RunFolder
from thaw.studio import mistakes as studio_mistakes
from thaw.studio.features import ImageFeatures, Snapshot
from thaw.studio.marks import AMBIGUOUS, EXCLUDED, Mark
from thaw.studio.piles import find_piles
from thaw.studio.training_queue import Begun, Job, Request
from thaw.studio.workspace import Workspace

AWAITED = {
    "images": "#cell-0 .mark",
    "label": ".ask",
    "train": ".column table",
    "mistakes": ".maps img",
    "decide": ".of-class .rates",
    "try": ".drop",
    "ship": ".ship .verdict",
}
"""What each screen shows once it is complete."""
NO_CAMERA = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError') }; 0"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def computed(workspace: Workspace, features: ImageFeatures) -> Workspace:
    """A project whose features and piles are there."""
    workspace.features = features
    workspace.piles = find_piles(Snapshot(features, workspace.labels.marks(), workspace.labels.classes))
    workspace.piles_at = workspace.labels.changed
    return workspace


@pytest.fixture
def half_labelled(computed: Workspace) -> Workspace:
    """The same, where half of the images of each class have no label."""
    computed.labels.edit({row: Mark(computed.images.labels[row]) for row in range(36) if row % 12 > 5}, Mark())
    return computed


def test_images_are_labelled_by_keys_alone(browser: Any, computed: Workspace) -> None:
    with running(computed) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.goto(address)
        page.wait_for_selector("#cell-0 .mark")
        assert "token" not in page.url
        page.keyboard.press("3")
        page.wait_for_selector("#cell-1.cursor")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("x")
        page.wait_for_selector("#cell-4.out")
        page.keyboard.press("Escape")
        page.keyboard.press("End")
        page.keyboard.press("n")
        page.keyboard.type(HOSTILE)
        page.keyboard.press("Enter")
        page.wait_for_selector(".class:nth-of-type(5)")
        marks = computed.labels.marks()
        assert marks[0] == Mark("stain") and marks[2:5] == [EXCLUDED] * 3 and marks[35] == Mark(HOSTILE)
        page.keyboard.press("u")
        page.wait_for_selector(".message:has-text('Undone')")
        assert computed.labels.mark(35) == Mark("stain")
        page.keyboard.press("Enter")
        page.wait_for_selector(".viewer img")
        page.keyboard.press("Escape")
        page.wait_for_selector(".grid")
        base = page.url.partition("#")[0]
        assert all(url.startswith((base, "data:")) for url in opened.urls)
    assert not opened.console


@pytest.mark.slow
def test_a_label_that_another_window_has_changed_is_shown(browser: Any, computed: Workspace) -> None:
    with running(computed) as address, window(browser, 1280, 800) as opened:
        opened.page.goto(address)
        opened.page.wait_for_selector("#cell-0 .mark")
        computed.labels.edit({0: Mark("ok")}, Mark("scratch"))
        opened.page.keyboard.press("3")
        opened.page.wait_for_selector(".message.alarm")
        assert "another window" in opened.page.inner_text(".message")
        assert opened.page.inner_text("#cell-0 .mark") == "scratch"
    assert computed.labels.mark(0) == Mark("scratch")


def test_the_queue_by_keys_alone(browser: Any, half_labelled: Workspace) -> None:
    labels = half_labelled.labels
    with running(half_labelled) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.goto(address)
        page.wait_for_selector("nav")
        page.evaluate("location.hash = 'label'")
        for labelled in (19, 20):
            page.wait_for_selector(".suggestion .mark")
            page.keyboard.press("Enter")
            page.wait_for_selector(f".progress:has-text('{labelled} labelled')")
        asked = page.inner_text(".ask .path")
        page.keyboard.press("2")
        page.wait_for_selector(".progress:has-text('21 labelled')")
        page.keyboard.press("u")
        page.wait_for_selector(f".ask .path:has-text('{asked}')")
        labels.edit({0: Mark("ok")}, Mark("stain"))
        skipped = page.inner_text(".ask .path")
        page.keyboard.press("s")
        page.wait_for_selector(f".ask .path:not(:has-text('{skipped}'))")
        page.wait_for_selector(".strip button")
        page.keyboard.press("Shift+Digit2")
        page.wait_for_selector(".message:has-text('labelled scratch')")
        assert labels.last_edit and len(labels.last_edit.changes) > 1
    assert not opened.console


def test_a_label_that_another_window_has_given_meanwhile_is_not_overwritten_unseen(
    browser: Any, half_labelled: Workspace
) -> None:
    labels, paths = half_labelled.labels, half_labelled.images.paths
    with running(half_labelled) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.goto(address)
        page.wait_for_selector("nav")
        page.evaluate("location.hash = 'label'")
        page.wait_for_selector(".suggestion .mark")
        page.wait_for_selector(".strip button")
        asked = paths.index(page.inner_text(".ask .path"))
        labels.edit({asked: Mark()}, Mark("stain"))
        with page.expect_response(lambda reply: "/api/rows" in reply.url):
            page.evaluate("import('/static/store.js').then((store) => store.refresh())")
        page.keyboard.press("1")
        page.wait_for_selector(".message:has-text('image labelled'), .message.alarm:has-text('another window')")
        assert labels.mark(asked) == Mark("stain")
        assert page.inner_text(".ask .path") == f"{paths[asked]} stain"
        page.keyboard.press("1")
        page.wait_for_selector(".message:has-text('1 image labelled ok')")
        assert labels.mark(asked) == Mark("ok")
        page.wait_for_selector(".ask .path:not(:has(.mark))")
    # The refusal.
    assert [message for message in opened.console if "409" not in message] == []


def test_a_suggestion_whose_answer_is_undone_does_not_count(browser: Any, half_labelled: Workspace) -> None:
    with running(half_labelled) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.goto(address)
        page.wait_for_selector("nav")
        page.evaluate("location.hash = 'label'")
        for labelled in range(19, 24):
            page.wait_for_selector(".suggestion .mark")
            page.keyboard.press("Enter")
            page.wait_for_selector(f".progress:has-text('{labelled} labelled')")
        page.wait_for_selector(".progress:has-text('Of the last 5 suggestions, 5 were right')")
        page.keyboard.press("u")
        page.wait_for_selector(".progress:has-text('22 labelled')")
        page.keyboard.press("1" if page.inner_text(".suggestion .mark") != "ok" else "2")
        page.wait_for_selector(".progress:has-text('23 labelled')")
        page.wait_for_selector(".progress:has-text('Of the last 5 suggestions, 4 were right')")
    assert not opened.console


def test_every_screen_fits_a_phone(browser: Any, computed: Workspace, with_run: RunFolder) -> None:
    with running(computed) as address, window(browser, 390, 844) as opened:
        opened.page.goto(address)
        opened.page.wait_for_selector("nav")
        for screen, awaited in AWAITED.items():
            opened.page.evaluate(f"location.hash = '{screen}'")
            opened.page.wait_for_selector(awaited)
            assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), screen
    assert not opened.console


def test_curves_have_round_ends_that_differ(browser: Any, computed: Workspace) -> None:
    bounds = "([ys, low]) => import('/static/charts.js').then((charts) => charts.bounds(ys, low, 0.02))"
    expected = {
        (0.9983, 0.9991): [0.99, 1],
        (0.861, 0.862): [0.86, 0.87],
        (0.5, 0.93): [0.5, 1],
        (1, 1): [0.99, 1.01],
        (2.3, 0.4): [0, 3],
        (0, 0): [-0.01, 0.01],
    }
    with running(computed) as address, window(browser, 1280, 800) as opened:
        opened.page.goto(address)
        opened.page.wait_for_selector("nav")
        found = {values: opened.page.evaluate(bounds, [values, None]) for values in expected}
        assert found == expected
        assert opened.page.evaluate(bounds, [(0, 0), 0]) == [0, 0.01]
        assert opened.page.evaluate(bounds, [(0.1, 0.34), 0]) == [0, 0.4]


@pytest.mark.slow
def test_mistakes_of_many_classes_are_a_list_of_the_most_frequent_ones(
    browser: Any, computed: Workspace, with_run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = of_many_classes(1_000, errors=38)
    monkeypatch.setattr(studio_mistakes, "read_predictions", lambda *_: many)
    with running(computed) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.goto(address)
        page.wait_for_selector("nav")
        page.evaluate("location.hash = 'mistakes'")
        page.wait_for_selector("p:has-text('The 24 most frequent of 37 confusions of 1,000 classes')")
        page.click("button[aria-label='class 1 predicted as class 0: 2']")
        page.wait_for_selector("h2:has-text('class 1, predicted as class 0')")
        assert page.locator(".confusions tbody tr").count() == 24 and page.locator(".error").count() == 2


@pytest.mark.slow
def test_a_training_image_behind_an_error_is_fixed_by_keys(
    browser: Any, computed: Workspace, with_run: RunFolder
) -> None:
    computed.background.start()
    with running(computed) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.goto(address)
        page.wait_for_selector("nav")
        page.evaluate("location.hash = 'mistakes'")
        page.click("button:has-text('Find them')")
        page.wait_for_selector("p:has-text('Without one of these')")
        page.click(".candidates >> nth=1 >> button >> nth=0")
        page.wait_for_selector("span:has-text('for the chosen training image')")
        page.keyboard.press("x")
        page.wait_for_selector(".candidates .mark.out")
        assert computed.labels.last_edit and computed.labels.last_edit.sentence == "1 image excluded"
        page.wait_for_selector("span:has-text('for the chosen training image')", state="detached")
        asked = page.inner_text(".detail .path")
        page.keyboard.press("m")
        page.wait_for_selector(".error .mark:has-text('ambiguous')")
        (change,) = computed.labels.last_edit.changes
        assert computed.images.paths[change[0]] == asked and change[1].after == AMBIGUOUS
    assert not opened.console


@pytest.mark.slow
def test_runs_are_planned_and_queued(browser: Any, computed: Workspace, training_program: None) -> None:
    with running(computed) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.goto(address)
        page.wait_for_selector("nav")
        page.evaluate("location.hash = 'train'")
        page.click("button:has-text('Show the plan first')")
        page.wait_for_selector("h2:has-text('Measuring and planning')")
        page.click("button:has-text('Cancel')")
        page.click("button:has-text('Start training')")
        page.click("button:has-text('to the queue')")
        page.click("button:has-text('to the queue')")
        page.click("td button:has-text('Cancel') >> nth=1")
        page.wait_for_selector("h2:has-text('Queue')")
        until(lambda: [job.number for job in computed.training.waiting] == [2])
        page.click("button:has-text('Stop')")
        until(lambda: not computed.training.is_running)
    assert not opened.console


@pytest.mark.slow
def test_a_run_that_diverged_is_shown_and_another_can_be_started(
    browser: Any, computed: Workspace, with_run: RunFolder
) -> None:
    header, first, *others = with_run.metrics.read_text().splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True))
    diverged = ",".join((cells | {"train_loss": "nan", "val_loss": "inf"}).values())
    with_run.metrics.write_text("\n".join([header, first, *others, diverged]) + "\n")
    job = Job(1, "2026-01-01T00:00:00+00:00", Request({}, 36, 2))
    computed.training._queue.begun.append(Begun(job, job.when, 0))
    with running(computed) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.goto(address)
        page.wait_for_selector("nav")
        page.evaluate("location.hash = 'train'")
        page.wait_for_selector("button:has-text('Train again')")
        page.wait_for_selector("text=/On training ., on validation .$/")
        assert "NaN" not in page.inner_text("body")
    assert not opened.console


@pytest.mark.slow
def test_an_image_is_tried(browser: Any, computed: Workspace, with_run: RunFolder, images: Path) -> None:
    with running(computed) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.goto(address)
        page.wait_for_selector("nav")
        page.evaluate("location.hash = 'try'")
        page.wait_for_selector(".drop")
        page.set_input_files("input[type=file]", [images / "ok" / "000.png", Path(__file__)])
        page.wait_for_selector(".tried .alarm")
        page.wait_for_selector(".verdict")
        assert page.inner_text(".verdict").split()[0] in ("ok", "scratch", "stain")
        assert page.evaluate("document.querySelector('.tried img').naturalWidth") == 64


@pytest.mark.slow
def test_a_camera_is_classified_where_it_is_allowed(browser: Any, computed: Workspace, with_run: RunFolder) -> None:
    with running(computed) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.goto(address)
        page.evaluate("location.hash = 'try'")
        page.click("button:has-text('Camera')")
        page.click("button:has-text('Start the camera')")
        page.wait_for_selector(".alarm:has-text('does not allow Studio to use the camera')")
        page.context.grant_permissions(["camera"])
        page.click("button:has-text('Start the camera')")
        page.wait_for_selector(".tried .path:has-text('2 images classified')")
        assert page.inner_text(".verdict").split()[0] in ("ok", "scratch", "stain")
        assert page.evaluate("document.querySelector('.tried img').naturalWidth") == 64
        page.evaluate(NO_CAMERA)
        page.click("button:has-text('Stop the camera')")
        page.click("button:has-text('Start the camera')")
        page.wait_for_selector(".alarm:has-text('No camera was found')")
    assert not opened.console


@pytest.mark.slow
def test_images_that_arrive_in_a_folder_are_shown(
    browser: Any, computed: Workspace, with_run: RunFolder, images: Path
) -> None:
    incoming = computed.project.path / "incoming"
    incoming.mkdir()
    with running(computed) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.goto(address)
        page.evaluate("location.hash = 'try'")
        page.click("button:has-text('Watched folder')")
        page.fill("input[aria-label=Folder]", "incoming")
        page.keyboard.press("Enter")
        page.wait_for_selector("p:has-text('Waiting for images')")
        for name in ("000.png", "001.png"):
            shutil.copy(images / "stain" / name, incoming)
            page.wait_for_selector(f".tried .path:has-text('{name}')")
        assert page.inner_text(".tried .path") == "001.png"
        page.reload()
        page.click("button:has-text('Watched folder')")
        page.wait_for_selector(".tried .verdict")
        page.click("button:has-text('Stop')")
        page.wait_for_selector("code:has-text('--watch')")
    assert not opened.console


@pytest.mark.slow
def test_a_classifier_is_decided_on_and_promoted_by_keys(
    browser: Any, computed: Workspace, with_run: RunFolder
) -> None:
    with running(computed) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.goto(address)
        page.wait_for_selector("nav")
        page.evaluate("location.hash = 'decide'")
        page.wait_for_selector(".of-class")
        page.keyboard.press("2")
        page.keyboard.press("ArrowDown")
        page.wait_for_selector("p:has-text('Recall of scratch at least 0.95.')")
        page.keyboard.press("Escape")
        page.keyboard.press("w")
        page.wait_for_selector(".written code")
        assert "train-1-decision-1 IMAGES" in page.inner_text(".written code")
        page.evaluate("location.hash = 'ship'")
        for promoted in ("train-1", "train-1-decision-1"):
            page.wait_for_selector(".ship button.primary:not(:disabled)")
            page.keyboard.press("p")
            page.wait_for_selector(f".verdict:has-text('{promoted} is promoted')")
        page.wait_for_selector("th:has-text('only train-1 is right')")
        page.keyboard.press("r")
        page.wait_for_selector(".verdict:has-text('train-1 is promoted')")
        assert [line["action"] for line in computed.promotions.lines] == ["promote", "promote", "roll back"]
    assert not opened.console


def test_a_comparison_that_failed_is_made_again_once_labels_have_changed(
    browser: Any, computed: Workspace, with_run: RunFolder
) -> None:
    shutil.copytree(with_run.path, computed.project.runs / "train-2")
    computed.promotions.promote("train-1", None, "")
    computed.labels.edit({row: Mark(label) for row, label in enumerate(computed.images.labels)}, Mark())
    refresh = "import('/static/store.js').then((store) => store.refresh())"
    with running(computed) as address, window(browser, 1280, 800) as opened:
        page = opened.page
        page.goto(address)
        page.wait_for_selector("nav")
        page.evaluate("location.hash = 'ship'")
        page.wait_for_selector(".flag:has-text('none of its test images has a label now')")
        assert computed.labels.last_edit
        computed.labels.undo(computed.labels.last_edit.number)
        page.evaluate(refresh)
        page.wait_for_selector("th:has-text('only train-1 is right')")
        computed.labels.edit({row: Mark(label) for row, label in enumerate(computed.images.labels)}, Mark())
        page.evaluate(refresh)
        page.wait_for_selector(".flag:has-text('none of its test images has a label now')")


def test_targets_of_a_run_are_replaced_only_once_one_of_them_is_changed(
    browser: Any, computed: Workspace, with_run: RunFolder
) -> None:
    required = {"recall": {"ok": 0.6}, "precision": {"ok": 0.5}, "costs": {"stain": {"ok": 2.0}}}
    recipe = yaml.safe_load(with_run.recipe.read_text(encoding="utf-8"))
    recipe["decision"] |= required
    with_run.recipe.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    with running(computed) as address, window(browser, 1280, 800) as opened:
        page = opened.page

        def asked(act: Callable[[], object]) -> dict[str, Any]:
            """What the server is asked for, without what is not given."""
            with page.expect_request(lambda request: request.method == "POST") as found:
                act()
            return {name: value for name, value in found.value.post_data_json.items() if value is not None}

        def fill(label: str, value: str) -> None:
            page.fill(f"input[aria-label='{label} in percent']", value)
            page.keyboard.press("Escape")

        page.goto(address)
        page.wait_for_selector("nav")
        page.evaluate("location.hash = 'decide'")
        page.wait_for_selector(".of-class")
        assert page.is_disabled("button.primary")
        assert asked(lambda: fill("Coverage", "50")) == {"coverage": 0.5}
        assert asked(lambda: page.keyboard.press("w")) == {"coverage": 0.5}
        page.wait_for_selector(".written code")
        changed = asked(lambda: fill("precision of ok", "40"))
        assert changed == {"coverage": 0.5, **required, "precision": {"ok": 0.4}}
        asked(lambda: page.click("button[aria-label=Remove]"))
        none = asked(lambda: page.select_option("#target-0", ""))
        assert none == {"coverage": 0.5, "recall": {}, "precision": {}, "costs": {}}
        page.wait_for_selector("p:has-text('The most likely class is predicted.')")
    assert not opened.console


def test_names_of_files_are_text(browser: Any, opened: Opened, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for label in (HOSTILE.replace("/", ""), "b"):
        (folder / label).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(folder / label / "<img src=x onerror=alert(2)>.png")
    with running(opened(folder)) as address, window(browser, 1280, 800) as page_opened:
        page = page_opened.page
        page.goto(address)
        page.wait_for_selector("#cell-1 .mark")
        assert "<img src=x onerror=alert(2)>.png" in page.inner_text("#cell-0 .caption")
        page.keyboard.press("Enter")
        page.wait_for_selector(".viewer img")
        assert not page.query_selector("img[src='x']")
    assert not page_opened.console
