"""What is started instead of `thaw train`, and what a test does with it."""

from tests.studio.waiting import until
from thaw.studio.training import Labelled, Training

PROGRAM = """
import pathlib, signal, sys, time
words = sys.argv[1:]
if "thaw.cli.plan_run" in words:
    print("plans", *words, flush=True)
    while not (pathlib.Path(words[4]).parent / "end").exists():
        time.sleep(0.01)
    sys.exit()
runs = pathlib.Path(words[words.index("--runs") + 1])
resumes = "--resume" in words
folder = runs / f"train-{len(list(runs.iterdir())) + (not resumes)}"
folder.mkdir(exist_ok=True)
print("began", *words, "as told", flush=True)
def end(*_):
    print("terminated", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
while not (folder / "end").exists():
    time.sleep(0.01)
"""
"""A run that ends when it is told to; a plan, too."""


def start(training: Training, settings: dict[str, str] | None = None, table: str = "path,label\n") -> None:
    training.start(Labelled(table, 3, 7, {}), settings or {})


def end(training: Training) -> None:
    """The run that trains now ends as one that has finished."""
    assert training.run
    (training.run.path / "evaluation.json").touch()
    (training.run.path / "end").touch()
    until(lambda: not training.is_running)


def begun(training: Training) -> None:
    # What it prints arrives word by word.
    until(lambda: training.run and "as told" in log_of(training))


def log_of(training: Training) -> str:
    """What the latest run has printed."""
    return "\n".join(training.log(training.latest, 1000)) if training.latest else ""
