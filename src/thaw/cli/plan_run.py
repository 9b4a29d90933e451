"""Begins a run in a folder of its own, up to its plan. Studio starts it as a process, and shows the plan.

python -m thaw.cli.plan_run DATA RUNS FOLDER --recipe FILE --set KEY=VALUE
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from thaw.cli import USER_ERROR, message, prepare
from thaw.cli.leaving import leave
from thaw.cli.system_errors import system_errors_explained
from thaw.cli.training import opened, recipe_to_plan
from thaw.errors import ThawError
from thaw.marker import mark
from thaw.recipe import Recipe


def main(words: Sequence[str]) -> int:
    """The exit code: 0, or 2 for an error that the user can fix."""
    parser = argparse.ArgumentParser(prog="thaw.cli.plan_run")
    for name in ("data", "runs", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args(words)
    try:
        requested = recipe_to_plan(given.recipe, given.set, {}) or Recipe()
        dataset = opened(given.data, requested)

        from thaw.device import keep_freed_memory
        from thaw.run import plan_run
        from thaw.run_folder import RunFolder
        from thaw.terminal.console import ConsoleReporter

        keep_freed_memory()
        with system_errors_explained(), closing(ConsoleReporter()) as shown:
            given.folder.mkdir()
            mark(given.folder)
            plan_run(dataset, requested, RunFolder(given.folder), given.runs, shown)
    except ThawError as error:
        print(message(error), file=sys.stderr)
        return USER_ERROR
    return 0


if __name__ == "__main__":
    prepare()
    leave(main(sys.argv[1:]))
