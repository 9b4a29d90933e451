"""The Optuna studies of a search, one for each level, in one journal file or database.

What is sampled depends on the search's seed, the number of the trial and the trials before it, not on the process: a
search that was killed goes on as it would have.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.errors import PackageError, RecipeError, ResumeError, first_line
from thaw.recipe.ranges import Range, Searched
from thaw.run_folder.search_folder import SearchFile, SearchFolder
from thaw.run_folder.trial_record import LevelName, TrialName, TrialRecord
from thaw.seeds import derive_seed
from thaw.tuning.levels import LEVELS, Level
from thaw.tuning.space import Space

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage

STARTUP_TRIALS = 5
"""Trials of a level that are random; the others are by the Tree-structured Parzen Estimator (Bergstra et al. 2011)."""

P_VALUE = 0.1
"""Of the Wilcoxon test over folds below which a trial is pruned."""

_PASSWORDS = ("password", "passwd", "sslpassword")
"""Parameters of drivers that a URL may have after its `?`."""

_SETTINGS, _ORIGIN, _PARENT = "settings", "origin", "parent"


@dataclass(frozen=True)
class Asked:
    """A trial to evaluate: its settings at its level, where they are from, and the trial that it goes on from."""

    name: TrialName
    origin: str
    settings: Mapping[str, Any]
    parent: TrialName | None


@dataclass(frozen=True)
class LevelStudy:
    """The study of one level."""

    level: Level
    ranges: Mapping[str, Searched]
    study: optuna.Study
    seed: int

    def __len__(self) -> int:
        return sum(_PARENT in trial.user_attrs for trial in self._trials())

    def parents(self) -> set[TrialName]:
        """The trials that trials of this level go on from."""
        found = (trial.user_attrs.get(_PARENT) for trial in self._trials())
        return {TrialName(*parent) for parent in found if parent}

    def ask(self, parent: TrialName | None) -> Asked:
        """Begin a trial with sampled settings; nobody else may begin one meanwhile."""
        return self._begin("sampled", None, parent)

    def enqueue(self, origin: str, settings: Mapping[str, Any], parent: TrialName | None, space: Space) -> Asked:
        """Begin a trial with given settings; the sampler sees the nearest ones that are in the space."""
        if all(_PARENT in trial.user_attrs for trial in self._trials()):
            nearest = space.nearest(self.level, settings)
            self.study.enqueue_trial({key: self._name(key, value) for key, value in nearest.items()})
        return self._begin(origin, settings, parent)

    def unfinished(self) -> list[Asked]:
        """Trials that were begun and have not ended, the oldest first."""
        return [
            self._asked(trial.number, trial.user_attrs)
            for trial in self._trials()
            if not trial.state.is_finished() and _PARENT in trial.user_attrs
        ]

    def report(self, number: int, fold: int, value: float) -> bool:
        """Report the value of one fold; gives whether the trial is significantly worse than the best one."""
        import optuna

        trial = optuna.trial.Trial(self.study, self._id(number))
        trial.report(value, fold)
        return trial.should_prune()

    def importances(self) -> dict[str, float]:
        """How much of the differences between trials each setting explains, 0..1; empty where that is unknown."""
        import optuna

        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        try:
            found = optuna.importance.get_param_importances(self.study, evaluator=evaluator)
        except (RuntimeError, ValueError):
            # All values are equal, or too few trials have one.
            return {}
        return {key: value for key, value in found.items() if value == value}

    def tell(self, record: TrialRecord) -> None:
        """End a trial with what it measured; where there are no file locks, another process may have ended it."""
        import optuna

        states = optuna.trial.TrialState
        if record.value is None:
            self.study.tell(record.number, state=states.FAIL, skip_if_finished=True)
        else:
            # A pruned trial has the mean of its folds so far, which says more than that it was pruned.
            self.study.tell(record.number, record.value, skip_if_finished=True)

    def _begin(self, origin: str, settings: Mapping[str, Any] | None, parent: TrialName | None) -> Asked:
        """A new trial, or the one that a process which was killed has begun and not described to its end."""
        import optuna

        begun = [trial for trial in self._trials() if _PARENT not in trial.user_attrs]
        seed = derive_seed(self.seed, self.level.name, len(self)) % 2**32
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
        is_running = bool(begun) and begun[0].state == optuna.trial.TrialState.RUNNING
        trial = optuna.trial.Trial(self.study, begun[0]._trial_id) if is_running else self.study.ask()
        sampled = {key: self._suggested(trial, key) for key in self.ranges}
        trial.set_user_attr(_SETTINGS, dict(sampled if settings is None else settings))
        trial.set_user_attr(_ORIGIN, origin)
        # Last: a trial that has it is described to its end.
        trial.set_user_attr(_PARENT, [parent.level, parent.number] if parent else None)
        return self._asked(trial.number, trial.user_attrs)

    def _suggested(self, trial: optuna.trial.Trial, key: str) -> Any:
        tried = self.ranges[key]
        if isinstance(tried, Range):
            return trial.suggest_float(key, tried.low, tried.high, log=tried.log)
        value = tried.values[tried.names.index(trial.suggest_categorical(key, tried.names))]
        return list(value) if isinstance(value, tuple) else value

    def _asked(self, number: int, attributes: Mapping[str, Any]) -> Asked:
        parent = TrialName(*attributes[_PARENT]) if attributes[_PARENT] else None
        name = TrialName(self.level.name, number)
        return Asked(name, attributes[_ORIGIN], attributes[_SETTINGS], parent)

    def _name(self, key: str, value: Any) -> Any:
        """The value as the sampler knows it."""
        tried = self.ranges[key]
        return value if isinstance(tried, Range) else tried.names[tried.values.index(value)]

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _id(self, number: int) -> int:
        return self._trials()[number]._trial_id


def open_database(url: str) -> BaseStorage | None:
    """The database of studies at a URL; `None` for an empty one, which stands for the journal in the folder.

    Raises:
        PackageError: Optuna is not installed.
        RecipeError: The database cannot be used.
    """
    optuna = _imported()
    if not url:
        return None
    with quiet():
        try:
            return optuna.storages.RDBStorage(url)
        except Exception as error:  # SQLAlchemy raises errors of the driver, which may not even be installed.
            raise RecipeError(f"--storage {without_password(url)}: cannot be used: {first_line(error)}") from error


def begin_studies(
    folder: SearchFolder, file: SearchFile, database: BaseStorage | None, space: Space
) -> dict[LevelName, LevelStudy]:
    """A new study for each level, in a database or for `None` in the journal of the folder.

    Raises `PackageError` where Optuna is not installed.
    """
    with quiet():
        optuna = _imported()
        backend = database or _journal(folder)
        # The folder is for people who read the list of a database.
        return {
            level.name: LevelStudy(
                level,
                space.of(level),
                optuna.create_study(
                    storage=backend,
                    study_name=f"{folder.path.name} {_ending(file, level)}",
                    direction="maximize",
                    pruner=_pruner(),
                ),
                file.seed,
            )
            for level in LEVELS
        }


def open_studies(
    folder: SearchFolder, file: SearchFile, database: BaseStorage | None, space: Space
) -> dict[LevelName, LevelStudy]:
    """The study of each level of a search that was begun, whatever its folder is called now.

    Raises:
        PackageError: Optuna is not installed.
        ResumeError: They are not there.
    """
    with quiet():
        optuna = _imported()
        backend = database or _journal(folder)
        names, found = optuna.get_all_study_names(backend), {}
        for level in LEVELS:
            name = next((name for name in names if name.endswith(_ending(file, level))), None)
            if name is None:
                raise ResumeError(
                    f"{folder.path}: {'this database' if database else folder.journal.name} has no studies of this "
                    "search; give the database that it began with by --storage, or start a new search"
                )
            study = optuna.load_study(study_name=name, storage=backend, pruner=_pruner())
            found[level.name] = LevelStudy(level, space.of(level), study, file.seed)
    return found


def _ending(file: SearchFile, level: Level) -> str:
    """What tells the name of a study from all others; before it is the folder that the search began in."""
    return f"{file.identity} {level.name}"


def _pruner() -> optuna.pruners.BasePruner:
    import optuna

    return optuna.pruners.WilcoxonPruner(p_threshold=P_VALUE)


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna says nothing of its own within the block: not which trial ended, nor that pruning is experimental."""
    logs = _imported().logging
    before = logs.get_verbosity()
    logs.set_verbosity(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logs.set_verbosity(before)


def check_installed() -> None:
    """Raise `PackageError` where Optuna is missing."""
    _imported()


def _imported() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise PackageError('a search needs Optuna; install it: pip install "thaw-vision[search]"') from error
    return optuna


def _journal(folder: SearchFolder) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    lock = JournalFileOpenLock(str(folder.journal))
    _drop_torn_line(folder, lock)
    return JournalStorage(JournalFileBackend(str(folder.journal), lock))


def without_password(url: str) -> str:
    """The URL of a database without its password, for which drivers have places of their own, such as ~/.pgpass."""
    # As SQLAlchemy reads it: a user may have an @, and be empty; a password may have a slash.
    url = re.sub(r"(://[^:/]*):[^@]*@", r"\1@", url, count=1)
    return re.sub(rf"(?<=[?&])(?:{'|'.join(_PASSWORDS)})=[^&]*&?", "", url).rstrip("?&")


def with_absolute_path(url: str) -> str:
    """The URL of a database whose file, where it has one, is the same one for processes in other folders."""
    match = re.fullmatch(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)", url)
    if match is None or match[2] == ":memory:" or match[2].startswith("file:"):
        return url
    return f"{match[1]}{Path(match[2]).absolute()}{match[3]}"


def _drop_torn_line(folder: SearchFolder, lock: Any) -> None:
    """Remove what a process that was killed has half-written at the end of the journal, which Optuna cannot read."""
    if not folder.journal.is_file():
        return
    lock.acquire()
    try:
        content = folder.journal.read_bytes()
        if content and not content.endswith(b"\n"):
            with folder.journal.open("r+b") as journal:
                journal.truncate(content.rfind(b"\n") + 1)
    finally:
        lock.release()
