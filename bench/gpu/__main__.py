"""The check of Thaw on a GPU: does every path run there, does it compute what the CPU does, and where does it wait?

    PYTHONPATH=src python -m bench.gpu --out results.md [--wheels DIR] [--jobs NAME ...]
    PYTHONPATH=src python -m bench.gpu --tiny

Needs no network and ends within 8 minutes. Every job runs in a process of its own for a limited time; one that fails is
a row with its error. `--tiny` is the rehearsal: everything on the CPU, with the smallest networks and images.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from bench.gpu import wheels
from bench.gpu.table import Row, Table

SECONDS, _LEAST_SECONDS = 460.0, 5.0


def main() -> int:
    """Run the jobs; gives 1 where one of them failed."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="thaw-gpu-") as scratch:
        # A process that starts finds what this one has compiled, as it would where Python may write beside its files.
        sys.dont_write_bytecode, sys.pycache_prefix = False, str(Path(scratch) / "compiled")
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
        if arguments.wheels:
            wheels.install(arguments.wheels, Path(scratch) / "packages")
        return _run(arguments, Path(scratch) / "work")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--logs", type=Path, help="folder for what the jobs print; by default a temporary one")
    parser.add_argument("--wheels", type=Path, help="install the wheels in this folder first, into a temporary folder")
    parser.add_argument("--jobs", nargs="+", metavar="NAME", help="run only these")
    parser.add_argument("--device", default="cuda", help="the device, as PyTorch names it")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="stop after this time")
    parser.add_argument("--tiny", action="store_true", help="on the CPU, with the smallest networks and images")
    return parser.parse_args()


def _run(arguments: argparse.Namespace, folder: Path) -> int:
    """Run the chosen jobs one after the other."""
    # Not before the wheels are installed.
    import torch

    from bench.gpu import bare, correctness, decoding, fastai_peer, images, machine, peers, runs, smoke, through_thaw
    from bench.gpu.jobs import Job, rows_of
    from bench.gpu.setup import TINY, Setup, Sizes

    # The jobs of a row run at the same time, those that measure speed alone.
    plan = (
        [Job("machine", machine.describe, 30)],
        [Job("images", images.write, 60)],
        [
            Job("losses", correctness.losses, 120),
            Job("engines", correctness.engines, 90),
            Job("bundle", correctness.predictions, 90),
            Job("commands", smoke.commands, 130),
            Job("trainings", smoke.trainings, 130),
            Job("other commands", smoke.other_commands, 150),
            Job("decoding", decoding.measure, 60),
        ],
        [Job("through Thaw: whole", through_thaw.whole, 150)],
        [Job("through Thaw: frozen", through_thaw.frozen, 100)],
        [Job("through Thaw: layer4", through_thaw.thawed, 80)],
        [Job("two phases", runs.two_phases, 130)],
        [Job("whole runs", runs.networks, 100)],
        [Job("bare: whole", bare.whole_steps, 90)],
        [Job("bare: layer4", bare.top_steps, 50)],
        [Job("bare: frozen", bare.forward_passes, 40)],
        [Job("peers", peers.measure, 40)],
        [Job("fastai", fastai_peer.measure, 90)],
    )
    jobs = [job for row in plan for job in row]
    unknown = set(arguments.jobs or ()) - {job.name for job in jobs}
    if unknown:
        raise SystemExit(f"no such job: {', '.join(sorted(unknown))}; known are {', '.join(job.name for job in jobs)}")
    sizes, device = (TINY, "cpu") if arguments.tiny else (Sizes(), arguments.device)
    folder.mkdir()
    os.environ["THAW_CACHE"] = str(folder / "cache")
    setup, logs = Setup(sizes, torch.device(device), folder), arguments.logs or folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    table, ends, failed = Table(arguments.out), time.perf_counter() + arguments.seconds, False
    for row in plan:
        # A rehearsal may share its machine with other tests.
        patience = 4 if arguments.tiny else 1
        chosen = [
            replace(job, seconds=patience * job.seconds)
            for job in row
            if not arguments.jobs or job.name in arguments.jobs
        ]
        left = ends - time.perf_counter()
        if left < _LEAST_SECONDS:
            for job in chosen:
                table.add(Row("skipped", "no time left", job=job.name))
            continue
        for result in rows_of(chosen, setup, left, logs):
            failed |= "**" in result.result + result.note or result.measured == "time limit"
            table.add(result)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
