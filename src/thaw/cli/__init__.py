"""The command line: one command is one call.

`training` holds what leads to a classifier, `trust` what tells how good it is, `use` what puts it to work, `various`
the networks, what is kept between runs, and the demo.
"""

from __future__ import annotations

import sys

from thaw.cli import training, trust, use, various
from thaw.cli.app import app
from thaw.errors import ThawError

USER_ERROR, INTERRUPTED = 2, 130

__all__ = ["app", "main", "training", "trust", "use", "various"]


def main() -> None:
    """Run a command; a mistake that the user can mend is one message and exit code 2, never a traceback."""
    try:
        app()
    except ThawError as error:
        print(f"thaw: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from None
    except KeyboardInterrupt:
        print("\nthaw: interrupted; a run that was training goes on with --resume", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
