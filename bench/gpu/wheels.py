"""Packages that a machine without a network lacks: wheels from a folder, installed into a temporary folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def install(wheels: Path, target: Path) -> None:
    """Install every wheel of a folder into `target` and let it be found before everything else.

    Raises:
        SystemExit: There is no wheel, or pip fails.
    """
    files = sorted(map(str, wheels.glob("*.whl")))
    if not files:
        raise SystemExit(f"{wheels}: has no wheels; the README of bench/gpu says how to collect them")
    options = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target", str(target)]
    if subprocess.run([sys.executable, "-m", "pip", "install", *options, *files], check=False).returncode:
        raise SystemExit(f"{wheels}: pip cannot install these wheels")
    sys.path.insert(0, str(target))
