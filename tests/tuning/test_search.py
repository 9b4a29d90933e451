"""A whole search on small images: what it leaves, what it may see, and that it is the same after interruptions."""

import csv
import math
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import NoReturn, cast

import numpy as np
import pytest
import torch
from PIL import Image

from tests.in_use import on_windows
from tests.reporters import Listening
from tests.runs import outcome
from tests.searches import RECIPE, SPACE
from tests.stopping import done_despite_stops
from thaw import pipeline
from thaw.cli import app
from thaw.clock import CONCLUDING_SECONDS, Clock
from thaw.data.dataset import Dataset
from thaw.data.manifest import Manifest
from thaw.data.surfaces import write_surfaces
from thaw.device import threads_restored, use_threads
from thaw.errors import DataError, RecipeError, ResumeError, WriteError
from thaw.pipeline.tuning import continue_search
from thaw.planning.time_limit import LEAST_EPOCHS
from thaw.progress import NullReporter
from thaw.recipe import Recipe
from thaw.run_folder import RunFolder
from thaw.run_folder.lock import held
from thaw.run_folder.search_folder import SearchFolder
from thaw.run_folder.trial_record import LevelName, TrialName, TrialRecord
from thaw.trial import training
from thaw.tuning import search, thawed
from thaw.tuning.begin import Wanted, begin, resume
from thaw.tuning.final import PLAN, trained_afresh
from thaw.tuning.levels import SHORT
from thaw.tuning.limits import Limits
from thaw.tuning.recipes import AS_PLANNED, recipe_of
from thaw.tuning.schedule import Tried
from thaw.tuning.search import SearchResult, carry_on
from thaw.tuning.state import PageState, Search
from thaw.tuning.studies import Asked
from thaw.tuning.workers import claimed
from thaw.yaml_text import write_yaml

TRIALS = 11

pytestmark = [pytest.mark.slow, pytest.mark.ci]


def searched(images: Path | Dataset, runs: Path, trials: int = TRIALS, refit: bool = False) -> SearchResult:
    return pipeline.search(images, RECIPE, SPACE, runs, Limits(None, trials), reporter=NullReporter(), refit=refit)


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "surfaces"
    write_surfaces(folder, images_per_class=20, size=48, classes=("ok", "scratch", "stain"))
    return folder


@pytest.fixture(scope="module")
def found(surfaces: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return searched(surfaces, tmp_path_factory.mktemp("runs"))


def rows(folder: Path) -> dict[str, dict[str, str]]:
    """The table of trials, but for what depends on the machine."""
    with SearchFolder(folder).table.open(newline="") as table:
        return {
            row["trial"]: {key: row[key] for key in row if key not in ("seconds", "ended", "latency_ms")}
            for row in csv.DictReader(table)
        }


def test_the_plan_is_the_first_trial_of_every_level(found: SearchResult) -> None:
    first = {record.level: record for record in found.trials if record.number == 0}
    assert set(first) == {"probe", "head", "short", "full"}
    assert all(record.origin == "plan" and record.is_usable for record in first.values())
    assert len(found.trials) == TRIALS


def test_other_tools_recipes_are_tried_before_anything_else_that_thaws(found: SearchResult) -> None:
    short = [record.origin for record in found.trials if record.level == "short"]
    assert short == ["plan", "guide", "fastai", "autogluon"][: len(short)]


def test_the_recipe_can_be_trained_with(found: SearchResult) -> None:
    folder = SearchFolder(found.folder)
    assert Recipe.load(folder.recipe) == Recipe.from_values(found.recipe.model_dump(mode="json"))
    assert found.recipe.loggers == RECIPE.loggers


def test_the_page_has_the_answer_and_every_trial(found: SearchResult) -> None:
    page = SearchFolder(found.folder).page.read_text(encoding="utf-8")
    assert found.verdict.sentence in page
    assert all(str(record.name) in page for record in found.trials)
    assert "http-equiv" not in page and "https://" not in page


@pytest.mark.parametrize(
    ("seconds", "level", "pages"),
    [
        pytest.param(0.0, "probe", 3, id="after each trial, where it is quick to write"),
        pytest.param(60.0, "probe", 1, id="at times, where it takes long"),
        pytest.param(60.0, "short", 2, id="before stages train"),
    ],
)
def test_the_page_is_written_as_long_as_that_takes_a_fraction_of_the_time(
    seconds: float, level: LevelName, pages: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [0.0]

    def render(_: object) -> str:
        written.append(written[-1] + seconds)
        return ""

    monkeypatch.setattr(search.time, "perf_counter", lambda: written[-1])
    monkeypatch.setattr(search.page, "content", lambda *_: None)
    monkeypatch.setattr(search.page, "render", render)
    folder = SearchFolder.create(tmp_path)
    record = TrialRecord(level, 0, "sampled", {}, "complete", value=0.5)
    of_level = {level: SimpleNamespace(tell=lambda _: None)}
    asked = Asked(record.name, "sampled", {}, None)
    state = SimpleNamespace(
        folder=folder,
        file=SimpleNamespace(monitor="accuracy"),
        studies=of_level,
        clock=Clock(None),
        table=SimpleNamespace(write=lambda _: None),
        page=PageState(),
        reporter=NullReporter(),
        record=lambda _: record,
        records=lambda: [record],
    )
    for _ in range(3):
        search._finish_trial(cast(Search, state), asked)
    assert len(written) - 1 == pages


def test_a_trial_goes_on_from_one_of_the_level_below(found: SearchResult) -> None:
    by_name = {record.name: record for record in found.trials}
    for record in found.trials:
        if record.parent:
            assert by_name[record.parent].settings.items() <= record.settings.items()
        else:
            assert record.level == "probe"


def test_every_head_has_a_value_in_each_fold_that_later_ones_are_compared_with(found: SearchResult) -> None:
    heads = [record for record in found.trials if record.level == "head" and record.is_usable]
    assert heads and all(len(record.by_fold) == 5 for record in heads)
    journal = SearchFolder(found.folder).journal.read_text()
    assert journal.count("intermediate_value") >= 5 * len(heads)


def test_a_trial_trained_to_its_end_went_on_from_its_checkpoint(found: SearchResult) -> None:
    """Nothing is computed twice: the epochs of the short trial are the first ones of the full one."""
    for record in found.trials:
        if record.level == "full" and record.parent:
            epochs = RunFolder(found.folder / "trials" / str(record.parent)).read_epochs()
            assert len({(epoch.phase, epoch.epoch) for epoch in epochs}) == len(epochs)


def test_a_promising_trial_is_trained_to_its_end_before_a_search_ends(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it ends because the next trial would take too long."""
    begun = search._begun

    def until_there_is_no_time(of: Search, tried: Tried) -> Asked | str | None:
        return "there is no time" if tried.counts["short"] > 1 else begun(of, tried)

    monkeypatch.setattr(search, "_begun", until_there_is_no_time)
    monkeypatch.setattr(Search, "promising", lambda self, tried: tried.unfinished_best())
    result = searched(surfaces, tmp_path, trials=100)
    short = {record.name for record in result.trials if record.level == "short"}
    assert len(short) == 2 and short == {record.parent for record in result.trials if record.level == "full"}
    assert result.ended_because == "there is no time"


def test_what_was_tried_before_is_not_tried_again(found: SearchResult) -> None:
    for level in ("probe", "head", "short"):
        tried = [str(sorted(each.settings.items())) for each in found.trials if each.level == level and each.is_usable]
        assert len(set(tried)) == len(tried)


def test_trials_never_see_a_test_image(surfaces: Path, found: SearchResult, tmp_path: Path) -> None:
    """With other pixels in every test image, all that is tried, measured and trained is the same, up to the verdict."""
    manifest = SearchFolder(found.folder).manifest
    changed = tmp_path / "surfaces"
    shutil.copytree(surfaces, changed)
    table = Manifest.read(manifest)
    for row in table.indices("test"):
        Image.new("L", (48, 48), int(row)).save(changed / table.column("path")[int(row)])
    splits = table.with_columns({"split": table.column("split")})
    dataset = Dataset(Dataset.open(changed).manifest.with_columns({"split": splits.column("split")}))
    again = searched(dataset, tmp_path / "runs")
    assert rows(again.folder) == rows(found.folder)
    assert again.verdict.optimism == found.verdict.optimism
    final = [
        [outcome(folder) for folder in RunFolder.newest_first(SearchFolder(result.folder).final)]
        for result in (found, again)
    ]
    assert final[0] == final[1]
    # Test images decide between the plan and a best trial that is another one.
    if found.verdict.comparison is None:
        assert again.verdict == found.verdict
        # The plans of two searches differ in the free disk space.
        assert not [line for line in found.recipe.differences(again.recipe) if not line.startswith("cache_gb")]


def test_a_search_that_is_stopped_anywhere_ends_as_if_it_had_not_been(
    surfaces: Path, found: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after every few writes of any file, and resumed each time."""
    folder, rng = SearchFolder(tmp_path / "search-1"), np.random.default_rng(0)

    def work() -> SearchResult | None:
        if folder.file.is_file():
            return continue_search(surfaces, folder.path, reporter=NullReporter())
        return searched(surfaces, tmp_path, refit=True)

    writes = chain([3], (int(rng.integers(4, 30)) for _ in count()))
    result, stops = done_despite_stops(work, folder.path, writes, monkeypatch, folder.file.is_file)
    assert result is not None
    assert stops >= 4
    assert rows(folder.path) == rows(found.folder)
    # The plans of two searches differ in the free disk space.
    assert not [line for line in found.recipe.differences(result.recipe) if not line.startswith("cache_gb")]
    assert result.verdict.sentence == found.verdict.sentence
    assert result.refit == folder.refit.path and folder.refit.is_finished


def test_the_recipe_of_a_search_that_has_ended_can_be_refitted(
    surfaces: Path, found: SearchResult, tmp_path: Path
) -> None:
    shutil.copytree(found.folder, tmp_path / "search-1")
    with pytest.raises(ResumeError, match="no unfinished search"):
        SearchFolder.latest_unfinished(tmp_path)
    folder = SearchFolder.latest_unfinished(tmp_path, refit=True)
    result = continue_search(surfaces, folder.path, reporter=NullReporter(), refit=True)
    assert result is not None and result.refit is not None and rows(folder.path) == rows(found.folder)
    test = RunFolder(result.refit).read_evaluation().evaluations["test"]
    assert f"on {test.images} test images" in folder.page.read_text(encoding="utf-8")
    assert [each.status for each in pipeline.predict(result.refit, [next((surfaces / "ok").iterdir())])] == ["ok"]
    shutil.copytree(found.folder, tmp_path / "search-0")
    (tmp_path / "search-1").rename(tmp_path / "search-2")
    (tmp_path / "search-0").rename(tmp_path / "search-1")
    with pytest.raises(ResumeError, match=r"search-2: has its refit, .*search-2.refit"):
        SearchFolder.latest_unfinished(tmp_path, refit=True)


def test_a_run_of_a_recipe_that_is_no_longer_the_best_is_trained_again(
    surfaces: Path, found: SearchResult, tmp_path: Path
) -> None:
    """As where a search goes on for longer after it was stopped in its comparison."""
    folder, plan = SearchFolder(tmp_path / "search-1"), found.recipe
    manifest = Manifest.read(SearchFolder(found.folder).manifest)
    first = trained_afresh(plan.with_settings({"phases.1.epochs": 1}), PLAN, folder, manifest)
    again = trained_afresh(plan, PLAN, folder, manifest)
    assert again.path == first.path and again.read_recipe().phases[1].epochs == plan.phases[1].epochs


def test_a_refit_needs_test_images(surfaces: Path, tmp_path: Path) -> None:
    recipe = RECIPE.with_settings({"split.test": 0})
    with pytest.raises(DataError, match="refit: there are no test images"):
        pipeline.search(surfaces, recipe, SPACE, tmp_path, Limits(None, 5), reporter=NullReporter(), refit=True)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def begun(found: SearchResult, tmp_path: Path) -> Iterator[SearchFolder]:
    """A search that has not ended."""
    copy = tmp_path / "runs" / "search-1"
    shutil.copytree(found.folder, copy)
    SearchFolder(copy).recipe.unlink()
    yield SearchFolder(copy)


def test_what_cannot_be_resumed_as_asked_stays_as_it_was(surfaces: Path, begun: SearchFolder, tmp_path: Path) -> None:
    shutil.copytree(surfaces, tmp_path / "less")
    next((tmp_path / "less" / "ok").iterdir()).unlink()
    before = begun.file.read_bytes()
    with pytest.raises(ResumeError, match="images have changed"):
        continue_search(tmp_path / "less", begun.path, Limits(None, 99), reporter=NullReporter(), refit=True)
    manifest = Manifest.read(begun.manifest)
    splits = ["val" if split == "test" else split for split in manifest.column("split")]
    manifest.with_columns({"split": splits}).write(begun.manifest)
    with pytest.raises(DataError, match="refit: there are no test images"):
        continue_search(surfaces, begun.path, Limits(None, 99), reporter=NullReporter(), refit=True)
    assert begun.file.read_bytes() == before and begun.read_ended()


def test_a_search_that_another_process_works_on_is_not_resumed(surfaces: Path, begun: SearchFolder) -> None:
    said = "another process works on this search; wait until it has ended, or help it by --join"
    with held(begun.path), pytest.raises(ResumeError, match=said):
        continue_search(surfaces, begun.path, reporter=NullReporter())


def test_more_trials_may_be_asked_for_when_it_is_resumed(surfaces: Path, begun: SearchFolder) -> None:
    result = continue_search(surfaces, begun.path, Limits(None, TRIALS + 1), reporter=NullReporter())
    assert result is not None and len(result.trials) == TRIALS + 1


def test_a_table_of_trials_that_stays_open_in_excel_loses_no_trial_and_is_written_when_the_search_is_resumed(
    surfaces: Path, begun: SearchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = {begun.table}
    on_windows(monkeypatch, lambda path: path in opened)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=lambda *_: None))
    monkeypatch.setattr("thaw.memory._peak", lambda info: info.rss)
    with pytest.raises(WriteError, match=r"\.csv: is open in another program, such as Excel"):
        continue_search(surfaces, begun.path, Limits(None, TRIALS + 2), reporter=NullReporter())
    assert len(begun.read_records()) == TRIALS + 2 and len(rows(begun.path)) == TRIALS
    opened.clear()
    result = continue_search(surfaces, begun.path, reporter=NullReporter())
    assert result is not None and len(result.trials) == len(rows(begun.path)) == TRIALS + 2


def test_a_limit_that_is_not_given_when_it_is_resumed_stays(surfaces: Path, begun: SearchFolder) -> None:
    begun.write_file(replace(begun.read_file(), seconds=3600.0))
    words = ["search", str(surfaces), "--resume", "--trials", str(TRIALS + 1), "--runs", str(begun.path.parent)]
    app(words, standalone_mode=False)
    file = begun.read_file()
    assert (file.seconds, file.trials) == (3600.0, TRIALS + 1)
    assert len(begun.read_records()) == TRIALS + 1


def test_a_search_that_is_interrupted_says_what_is_kept_and_the_same_command_resumes_it(
    surfaces: Path, begun: SearchFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    ended = begun.read_ended()
    begun.ended.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(search, "_choose", interrupted)
        for joins, notes in ((False, [f"{begun.path} keeps every trial that was completed"]), (True, [])):
            with pytest.raises(KeyboardInterrupt) as stopped:
                continue_search(surfaces, begun.path, joins=joins, reporter=NullReporter())
            assert getattr(stopped.value, "__notes__", []) == notes
    begun.write_ended(ended)
    recipe, space = tmp_path / "recipe.yaml", tmp_path / "space.yaml"
    recipe.write_text(RECIPE.to_yaml())
    space.write_text(write_yaml(SPACE))
    words = ["search", str(surfaces), "--recipe", str(recipe), "--runs", str(begun.path.parent), "--resume"]
    for others in (["--seed", "3"], ["--space", str(tmp_path / "other.yaml")]):
        (tmp_path / "other.yaml").write_text("views: [1, 2]")
        with pytest.raises(RecipeError, match="goes on with the settings and ranges that it began with; omit"):
            app([*words, *others], standalone_mode=False)
    app([*words, "--space", str(space)], standalone_mode=False)
    assert begun.recipe.is_file() and len(begun.read_records()) == TRIALS


def test_a_process_that_joins_begins_no_trial_once_the_search_has_ended(surfaces: Path, begun: SearchFolder) -> None:
    file = begun.read_file()
    other = resume(Dataset.open(surfaces), begun, replace(file, trials=TRIALS + 5), "", NullReporter())
    begun.write_ended("another process said so")
    page = begun.page.read_bytes()
    assert carry_on(other, is_joined=True) is None
    assert len(begun.read_records()) == TRIALS and begun.page.read_bytes() == page


def test_a_trial_that_a_process_which_joined_leaves_is_finished_before_the_search_ends(
    surfaces: Path, begun: SearchFolder
) -> None:
    """Until then no other process begins one, however late its clock is."""
    begun.ended.unlink()
    begun.write_file(replace(begun.read_file(), trials=TRIALS + 1))
    conducting, joined = (
        resume(Dataset.open(surfaces), begun, begun.read_file(), "", NullReporter()) for _ in range(2)
    )
    joined = replace(joined, file=replace(joined.file, trials=None))
    left, claims, said = joined.studies["probe"].ask(None), ExitStack(), list[object]()
    assert claimed(begun, left.name, claims)

    def is_killed() -> None:
        said.append(search._choose(joined, ExitStack(), is_joined=True))
        claims.close()

    killed = Timer(2.0, is_killed)
    killed.start()
    result = carry_on(conducting)
    killed.join()
    assert result is not None
    assert said == [result.ended_because] == [f"{TRIALS + 1} trials were asked for"]
    assert left.name in {record.name for record in result.trials}
    assert not any(study.unfinished() for study in conducting.studies.values())


def test_a_trial_that_another_process_has_is_waited_for(
    surfaces: Path, begun: SearchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that this process has just begun."""
    begun.ended.unlink()
    other = resume(Dataset.open(surfaces), begun, replace(begun.read_file(), trials=None), "", NullReporter())
    monkeypatch.setattr(search, "claimed", lambda *_: False)
    with ExitStack() as claims:
        assert search._choose(other, claims, is_joined=True) is None


def test_a_trial_that_was_interrupted_counts_the_seconds_before_too(
    surfaces: Path, begun: SearchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    search_ = resume(Dataset.open(surfaces), begun, begun.read_file(), "", NullReporter())

    def measured(_: Search, asked: Asked) -> TrialRecord:
        return TrialRecord(asked.name.level, asked.name.number, asked.origin, {}, "failed", asked.parent)

    monkeypatch.setattr(search, "evaluated", measured)
    short = search_.studies["short"].ask(TrialName("head", 0))
    folder = begun.trial(short.name)
    folder.path.mkdir()
    epochs = begun.trial(TrialName("short", 0)).read_epochs()
    folder.write_epochs([replace(epoch, seconds=100.0) for epoch in epochs[:2]])
    search._finish_trial(search_, short)
    record = search_.record(short.name)
    assert record is not None and 200 <= record.seconds < 210
    # Those of the short trial are not seconds of the one that trains on.
    for trained, expected in ((2, 0.0), (3, 100.0)):
        folder.write_epochs([replace(epoch, seconds=100.0) for epoch in epochs[:trained]])
        full = search_.studies["full"].ask(short.name)
        search._finish_trial(search_, full)
        record = search_.record(full.name)
        assert record is not None and expected - 10 < record.seconds < expected + 10


def test_a_search_that_is_opened_again_has_not_ended(
    surfaces: Path, found: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is killed at once; its answer is then that of the trials so far."""

    def killed(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    shutil.copytree(found.folder, tmp_path / "search-1")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("thaw.pipeline.tuning.carry_on", killed)
        continue_search(surfaces, tmp_path / "search-1", Limits(None, TRIALS), reporter=NullReporter())
    folder = SearchFolder.latest_unfinished(tmp_path)
    result = continue_search(surfaces, folder.path, reporter=NullReporter())
    assert result is not None and result.verdict.sentence == found.verdict.sentence
    assert folder.recipe.read_bytes() == SearchFolder(found.folder).recipe.read_bytes()


def test_a_process_that_joins_a_search_that_has_ended_leaves_its_answer(
    surfaces: Path, found: SearchResult, tmp_path: Path
) -> None:
    shutil.copytree(found.folder, tmp_path / "search-1")
    folder, reporter = SearchFolder(tmp_path / "search-1"), Listening()
    before = {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()}
    assert continue_search(surfaces, folder.path, joins=True, reporter=reporter) is None
    assert any("there is nothing to help with" in line for line in reporter.said)
    with pytest.raises(RecipeError, match="a cluster are for the process that began"):
        continue_search(surfaces, folder.path, Limits(None, TRIALS + 1), joins=True, reporter=NullReporter())
    assert {file: file.read_bytes() for file in folder.path.rglob("*") if file.is_file()} == before


def test_a_short_trial_leaves_time_for_the_comparison_and_the_best_one_may_take_a_tenth_more(
    surfaces: Path, begun: SearchFolder
) -> None:
    resumed = resume(Dataset.open(surfaces), begun, begun.read_file(), "", NullReporter())
    limited = replace(resumed, clock=Clock(1000.0))
    records = limited.records()
    plan, short = limited.seconds_of_plan(records), next(each for each in records if each.level == "short")
    assert plan > short.seconds > 0
    assert limited.tried().longest["short"] <= (1000 - CONCLUDING_SECONDS - plan) / 3
    assert limited.tried().longest["full"] == pytest.approx(1100, abs=5)
    assert limited.seconds_to_end(short) == pytest.approx(CONCLUDING_SECONDS + 5 * short.seconds + plan)


def test_a_search_that_is_resumed_computes_with_as_many_threads(surfaces: Path, begun: SearchFolder) -> None:
    with threads_restored():
        use_threads(2)
        resume(Dataset.open(surfaces), begun, begun.read_file(), "", NullReporter())
        assert torch.get_num_threads() == RECIPE.threads == 1


def test_a_short_trial_keeps_what_it_is_compared_by(found: SearchResult) -> None:
    short = [record for record in SearchFolder(found.folder).read_records() if record.level == "short"]
    lengths = {len(record.without) for record in short if record.is_usable and record.state == "complete"}
    assert len(lengths) == 1 and lengths.pop() > 1


def test_a_short_trial_that_was_stopped_after_its_last_epoch_trains_no_other(
    surfaces: Path, begun: SearchFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    search_ = resume(Dataset.open(surfaces), begun, begun.read_file(), "", NullReporter())
    recipe = recipe_of(search_.file.base, {"phases.1.cut": "stages:2", "phases.1.epochs": 3}, {})
    folder = begun.trial(TrialName("short", 99))
    measured = thawed.train_short(thawed.begin(recipe, folder, search_.bench, math.inf), search_.bench)
    assert [record.phase for record in folder.read_epochs()].count("fine-tune") == 1
    monkeypatch.setattr(training, "fit", lambda *_: pytest.fail("trained again"))
    again = thawed.begin(recipe, folder, search_.bench, math.inf)
    assert thawed.train_short(again, search_.bench).value == measured.value


def test_where_the_head_alone_was_requested_heads_that_were_found_are_trained_and_nothing_thaws(
    surfaces: Path, tmp_path: Path
) -> None:
    requested = RECIPE.model_copy(update={"strategy": "head"})
    result = pipeline.search(surfaces, requested, {}, tmp_path, Limits(None, 16), reporter=NullReporter())
    short = [record for record in result.trials if record.level == "short"]
    assert [record.origin for record in short][:2] == ["plan", AS_PLANNED]
    assert {record.settings["phases.1.cut"] for record in short} == {"head"}
    assert all(phase.cut == "head" for phase in result.recipe.phases)


def test_a_level_whose_trials_fail_one_after_the_other_says_why() -> None:
    failed = [TrialRecord("short", number, "sampled", {}, "failed", reason="no such cut") for number in range(4)]
    tried = Tried(failed, {"probe": 1, "head": 1, "short": 4, "full": 0}, {"short": math.inf})
    assert search._why_settled(tried, SHORT, None, "accuracy") == "short: trial after trial failed: no such cut"


def test_images_that_changed_are_refused(surfaces: Path, begun: SearchFolder, tmp_path: Path) -> None:
    shutil.copytree(surfaces, tmp_path / "less")
    next((tmp_path / "less" / "ok").iterdir()).unlink()
    with pytest.raises(ResumeError, match="images have changed"):
        continue_search(tmp_path / "less", begun.path, reporter=NullReporter())


def test_a_damaged_file_is_one_sentence(surfaces: Path, begun: SearchFolder) -> None:
    (begun.trials / "probe-0.json").write_text("{")
    with pytest.raises(DataError, match=r"probe-0.json: is not what a search writes"):
        begun.read_record(TrialName("probe", 0))
    begun.file.write_text("[]")
    with pytest.raises(DataError, match=r"search.json: is not what a search writes"):
        continue_search(surfaces, begun.path, reporter=NullReporter())


def test_a_time_too_short_for_one_trial_is_refused_and_leaves_nothing(surfaces: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="too short for one trial"):
        pipeline.search(surfaces, RECIPE, SPACE, tmp_path / "runs", Limits(1.0), reporter=NullReporter())
    assert not list(tmp_path.glob("runs/*"))


def test_the_time_of_a_single_run_is_refused(surfaces: Path, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"time_limit": 60.0})
    with pytest.raises(RecipeError, match="time_limit: is for a single run"):
        pipeline.search(surfaces, recipe, SPACE, tmp_path / "runs", Limits(60.0), reporter=NullReporter())


def test_limits_on_the_choice_of_a_backbone_are_refused(surfaces: Path, tmp_path: Path) -> None:
    for key in ("max_latency_ms", "max_size_mb"):
        with pytest.raises(RecipeError, match=f"{key}: is for a single run with backbone auto"):
            pipeline.search(surfaces, Recipe(backbone="auto", **{key: 5}), runs=tmp_path, reporter=NullReporter())


def test_candidates_are_for_the_trials_of_a_search_whose_plan_has_the_default_backbone(
    surfaces: Path, tmp_path: Path
) -> None:
    recipe = RECIPE.model_copy(update={"backbone": "default", "candidates": {"starter": "published"}})
    wanted = Wanted(recipe, {}, (), Limits(None, TRIALS))
    begun = begin(Dataset.open(surfaces), wanted, tmp_path, NullReporter())
    assert "starter" in begun.file.weights


def test_a_plan_that_would_take_too_long_is_shortened(
    surfaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE.with_settings({"strategy": "top", "measure.seconds": 0})
    monkeypatch.setattr("thaw.planning.time_limit.TimeLimit.for_training", lambda limit, *_: 0.0)
    found = pipeline.search(surfaces, recipe, SPACE, tmp_path / "runs", Limits(120.0, 4), reporter=NullReporter())
    (thawed,) = (phase for phase in SearchFolder(found.folder).read_file().planned.phases if phase.cut != "head")
    assert thawed.epochs == LEAST_EPOCHS


def test_too_few_trials_for_the_plan_are_refused(surfaces: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--trials 3: is too few"):
        pipeline.search(surfaces, RECIPE, SPACE, tmp_path / "runs", Limits(None, 3), reporter=NullReporter())


def test_there_is_none_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ResumeError, match="no unfinished search"):
        SearchFolder.latest_unfinished(tmp_path)
    with pytest.raises(DataError, match="there is no such search"):
        SearchFolder.at(tmp_path / "search-7")
