import logging
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from sqlalchemy.engine import make_url

from thaw.errors import RecipeError, ResumeError
from thaw.recipe import Recipe
from thaw.run_folder.search_folder import SearchFile, SearchFolder
from thaw.run_folder.trial_record import TrialName, TrialRecord
from thaw.tuning.space import default_space
from thaw.tuning.studies import (
    Asked,
    LevelStudy,
    begin_studies,
    check_installed,
    open_database,
    open_studies,
    quiet,
    with_absolute_path,
    without_password,
)

SPACE = default_space(["starter"], {})
FILE = SearchFile(Recipe(), None, Recipe(), {}, {}, "accuracy", seed=3)  # type: ignore[arg-type]


def opened(path: Path, level: str = "short") -> LevelStudy:
    path.mkdir(exist_ok=True)
    folder = SearchFolder(path)
    found = (open_studies if folder.journal.exists() else begin_studies)(folder, FILE, None, SPACE)
    return found[level]  # type: ignore[index]


def told(study: LevelStudy, asked: Asked, value: float) -> None:
    study.tell(TrialRecord(asked.name.level, asked.name.number, asked.origin, {}, "complete", value=value))


def sampled(path: Path, reopened_after: int | None, trials: int = 12) -> list[dict]:
    """Settings of some trials, by one process or by a second one from some trial on."""
    study, found = opened(path), []
    for number in range(trials):
        if number == reopened_after:
            study = opened(path)
        asked = study.ask(TrialName("head", 0))
        found.append(dict(asked.settings))
        told(study, asked, asked.settings["phases.1.layer_decay"])
    return found


def test_settings_depend_on_the_seed_and_the_trials_before_not_on_the_process(tmp_path: Path) -> None:
    with quiet():
        assert sampled(tmp_path / "one", None) == sampled(tmp_path / "two", 7)


def test_optuna_is_quiet_for_a_search_and_not_afterwards(tmp_path: Path) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.INFO)
    try:
        check_installed()
        with quiet():
            sampled(tmp_path / "one", None, 1)
            assert optuna.logging.get_verbosity() == logging.WARNING
        assert optuna.logging.get_verbosity() == logging.INFO
    finally:
        optuna.logging.set_verbosity(before)


def test_it_learns_what_is_good(tmp_path: Path) -> None:
    with quiet():
        found = [settings["phases.1.layer_decay"] for settings in sampled(tmp_path / "one", None, 30)]
    assert sum(found[-10:]) / 10 > sum(found[:5]) / 5


def test_a_trial_that_was_begun_is_found_again_with_its_settings(tmp_path: Path) -> None:
    with quiet():
        asked = opened(tmp_path / "one").ask(TrialName("head", 2))
        study = opened(tmp_path / "one")
        assert study.unfinished() == [asked]
        told(study, asked, 0.5)
        assert study.unfinished() == [] and len(study) == 1


def test_a_trial_that_another_process_has_ended_too_keeps_its_value(tmp_path: Path) -> None:
    with quiet():
        study = opened(tmp_path / "one")
        asked = study.ask(None)
        told(study, asked, 0.5)
        told(study, asked, 0.6)
        study.tell(TrialRecord(asked.name.level, asked.name.number, asked.origin, {}, "failed"))
        assert study.study.best_value == 0.5


def test_a_trial_that_was_killed_while_it_was_described_is_described_to_its_end(tmp_path: Path) -> None:
    with quiet():
        expected = opened(tmp_path / "whole").ask(None)
        torn = opened(tmp_path / "torn")
        torn.study.ask()
        assert len(torn) == 0 and torn.unfinished() == []
        assert opened(tmp_path / "torn").ask(None) == expected


def test_given_settings_are_kept_exactly_though_the_sampler_sees_the_nearest(tmp_path: Path) -> None:
    with quiet():
        study = opened(tmp_path / "one")
        asked = study.enqueue("plan", {"phases.1.lr": 0.5, "phases.1.cut": "blocks.5"}, None, SPACE)
        assert asked.settings == {"phases.1.lr": 0.5, "phases.1.cut": "blocks.5"}
        assert study.study.trials[0].params["phases.1.lr"] == pytest.approx(3e-3)


def test_a_half_written_line_at_the_end_of_the_journal_is_dropped(tmp_path: Path) -> None:
    with quiet():
        study = opened(tmp_path / "one")
        told(study, study.ask(None), 0.5)
        with SearchFolder(tmp_path / "one").journal.open("ab") as journal:
            journal.write(b'{"op_code": 4, "wor')
        assert len(opened(tmp_path / "one")) == 1


def test_a_trial_much_worse_in_every_fold_is_pruned(tmp_path: Path) -> None:
    with quiet():
        study = opened(tmp_path / "one", "head")
        good, bad = study.ask(None), study.ask(None)
        for fold in range(5):
            assert not study.report(good.name.number, fold, 0.9 + fold / 100)
        told(study, good, 0.92)
        pruned = [study.report(bad.name.number, fold, 0.5 + fold / 50) for fold in range(5)]
    assert pruned[-1] and not pruned[0]


def test_a_database_that_cannot_be_used_is_one_sentence_without_the_password() -> None:
    with pytest.raises(RecipeError, match="--storage nothing://user@host/db: cannot be used") as error:
        open_database("nothing://user:secret@host/db")
    assert "secret" not in str(error.value)


def test_a_database_holds_the_studies_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    with quiet():
        other = begin_studies(SearchFolder(tmp_path), replace(FILE, identity="another"), open_database(url), SPACE)
        studies = begin_studies(SearchFolder(tmp_path), replace(FILE, identity="one"), open_database(url), SPACE)
        studies["probe"].ask(None)
        again = open_studies(SearchFolder(tmp_path), replace(FILE, identity="one"), open_database(url), SPACE)
    assert len(again["probe"]) == 1 and len(other["probe"]) == 0


@pytest.mark.parametrize("identity", ["", "0123456789ab"])
def test_a_search_has_its_studies_whatever_its_folder_is_called_now(
    identity: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Searches of earlier versions have no identity, or the same names of studies."""
    file, first = replace(FILE, identity=identity), SearchFolder.create(tmp_path)
    with quiet():
        asked = begin_studies(first, file, None, SPACE)["probe"].ask(None)
        first.path.rename(tmp_path / "renamed")
        (tmp_path / "linked").symlink_to(tmp_path / "renamed")
        monkeypatch.chdir(tmp_path / "renamed")
        for path in (Path(), tmp_path / "linked", tmp_path / "renamed"):
            assert open_studies(SearchFolder(path), file, None, SPACE)["probe"].unfinished() == [asked]


def test_a_search_whose_studies_are_elsewhere_gets_no_empty_ones(tmp_path: Path) -> None:
    """A process that joined would try everything again."""
    url = f"sqlite:///{tmp_path / 'other.db'}"
    with quiet():
        begin_studies(SearchFolder(tmp_path), FILE, None, SPACE)
        for _ in range(2):
            with pytest.raises(ResumeError, match="this database has no studies of this search; give the database"):
                open_studies(SearchFolder(tmp_path), FILE, open_database(url), SPACE)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("postgresql://me:pw@host/db", "postgresql://me@host/db"),
        ("postgresql://me@server:pw@host/db", "postgresql://me@server@host/db"),
        ("postgresql://:pw@host/db", "postgresql://@host/db"),
        ("mysql+pymysql://me:p/w:x@host:3306/db", "mysql+pymysql://me@host:3306/db"),
        ("postgresql://host/db?password=pw&connect_timeout=3", "postgresql://host/db?connect_timeout=3"),
        ("postgresql://host:5432/db?sslpassword=pw", "postgresql://host:5432/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("sqlite:////data/study.db", "sqlite:////data/study.db"),
    ],
)
def test_a_url_is_kept_without_its_password(url: str, kept: str) -> None:
    assert without_password(url) == kept
    assert make_url(kept) == make_url(url)._replace(password=None).difference_update_query(["password", "sslpassword"])


def test_the_file_of_a_database_is_the_same_one_for_processes_in_other_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert with_absolute_path("sqlite:///study.db?timeout=3") == f"sqlite:///{tmp_path}/study.db?timeout=3"
    for url in ("", "sqlite://", "sqlite:///:memory:", "sqlite:////data/study.db", "postgresql://host/db"):
        assert with_absolute_path(url) == url
