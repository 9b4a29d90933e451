"""Run the same job with Thaw and its peers, one after the other, and write the table.

    python bench/elpv_csv.py FOLDER elpv.csv
    python -m bench.versus elpv.csv --weights mobilenetv2_100=FILE --out docs/benchmark.md

Each seed is a round in which every peer runs once, so that other load on the machine affects all of them. A backbone
without weights gets random ones from one file, and its accuracy is omitted. With `--epochs 2` a peer runs two epochs of
each phase, and the rest is extrapolated, which the table says; Thaw always runs all epochs. Every measurement is
appended to the results file immediately; `--draw` only writes the table from that file.

    python -m bench.versus elpv.csv --weights mobilenetv2_100=FILE --time-to-accuracy --seeds 0 1 2
    python -m bench.versus --time-to-accuracy --draw --out docs/benchmark.md

With `--time-to-accuracy` peers run all epochs, Thaw plans itself, and all are tested after each epoch, in time that is
not counted: how long does Thaw take to be as accurate as the fastest peer at its end? Runs that are in the results file
are not repeated, so this can be stopped at any time. `--out` then replaces one section of the file and draws the curves
beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.versus import rounds, time_to_accuracy
from bench.versus.environments import PEERS, NotInstallable, environment_of, python_of
from bench.versus.jobs import BACKBONES, JOBS, Job
from bench.versus.table import THAW, draw, with_section

OTHERS = ("keras_guide", "torch_guide", "torch_guide@bf16", "fastai_fine_tune", "hf_trainer")
TIMED_JOBS = ("mobilenetv2_100:both",)
"""The default jobs of `--time-to-accuracy`, whose backbone has pre-trained weights here."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.versus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path, nargs="?", help="CSV with the columns path, label, split")
    parser.add_argument(
        "--weights", nargs="*", default=[], metavar="BACKBONE=FILE", help="FILE with its config.json in the same folder"
    )
    parser.add_argument("--jobs", nargs="+", choices=JOBS, metavar="JOB", help=", ".join(JOBS))
    known = f"PEER or PEER@bf16 of {', '.join(PEERS)}"
    parser.add_argument("--peers", nargs="+", metavar="PEER", help=known)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one round each")
    parser.add_argument("--epochs-per-phase", type=int, default=10)
    parser.add_argument("--epochs", type=int, help="epochs per phase that peers actually run; the rest is extrapolated")
    parser.add_argument("--limit", type=int, help="maximum images per split, for trying things out")
    parser.add_argument("--envs", type=Path, default=Path.home() / ".cache" / "thaw-bench")
    parser.add_argument("--thaw-python", type=Path, default=Path(sys.executable), help="Python interpreter with Thaw")
    parser.add_argument(
        "--prefix", default="", help="command to prefix each run with, such as a lock or `taskset -c 0,1`"
    )
    parser.add_argument("--results", type=Path, help="JSON lines; by default results.jsonl in the folder of --envs")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--draw", action="store_true", help="only write the table")
    parser.add_argument("--time-to-accuracy", action="store_true", help="test accuracy against time")
    arguments = parser.parse_args()
    timed = arguments.time_to_accuracy
    arguments.jobs = arguments.jobs or (TIMED_JOBS if timed else tuple(JOBS))
    arguments.peers = arguments.peers or (rounds.THAW if timed else THAW, *OTHERS)
    arguments.results = arguments.results or arguments.envs / "results.jsonl"
    unknown = [name for name in arguments.peers if name.partition("@")[0] not in PEERS]
    unknown += [item for item in arguments.weights if item.partition("=")[0] not in BACKBONES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; peers are {', '.join(PEERS)}; backbones {', '.join(BACKBONES)}")
    if (THAW if timed else rounds.THAW) in arguments.peers:
        parser.error(f"{rounds.THAW} is for --time-to-accuracy, {THAW} for everything else")
    if timed and arguments.epochs:
        parser.error("--epochs scales, but --time-to-accuracy needs all epochs; --epochs-per-phase says how many")
    if arguments.table is None and not arguments.draw:
        parser.error("a table of images is needed, unless --draw")
    return arguments


def last_line(command: list[str], arguments: argparse.Namespace) -> dict:
    """The JSON object in the last line of a command's output; raises `RuntimeError` with its last line."""
    command = [*shlex.split(arguments.prefix), *command]
    here = Path(__file__).resolve().parents[2]
    settings: dict[str, Any] = {"cwd": here, "env": environment_of(arguments.envs), "text": True}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **settings)
    lines = done.stdout.splitlines() or [""]
    if done.returncode:
        raise RuntimeError(f"ended with {done.returncode}: {lines[-1]}")
    return json.loads(lines[-1])


def weights_of(backbone: str, arguments: argparse.Namespace) -> tuple[Path, bool]:
    """The weights file, and whether it is random; random weights are created once."""
    given = dict(item.split("=", 1) for item in arguments.weights)
    if backbone in given:
        # A link has its config.json next to itself.
        return Path(given[backbone]).absolute(), False
    folder = arguments.envs / "random-weights" / backbone
    if not (folder / "model.safetensors").is_file():
        python = [str(arguments.thaw_python), "-m", "bench.versus.random_weights", backbone, str(folder)]
        subprocess.run(python, check=True, env=environment_of(arguments.envs), stdout=subprocess.DEVNULL)
    return folder / "model.safetensors", True


def planned(spec: str, job: Job, seed: int, arguments: argparse.Namespace) -> dict:
    """What one record of the results says before it is measured."""
    name, _, precision = spec.partition("@")
    return {
        "kind": "curve" if arguments.time_to_accuracy else "run",
        "peer": spec,
        "title": f"{PEERS[name].title}{f', {precision}' if precision else ''}",
        "job": job.name,
        "table": arguments.table.stem,
        "limit": arguments.limit,
        "epochs_wanted": list(job.epochs(arguments.epochs_per_phase)),
        "seed": seed,
    }


def measure(record: dict, job: Job, arguments: argparse.Namespace) -> dict:
    """One record of the results: a peer on a job, or why it failed."""
    name, _, precision = record["peer"].partition("@")
    weights, is_random = weights_of(job.backbone, arguments)
    run = arguments.epochs_per_phase if name == THAW else arguments.epochs or arguments.epochs_per_phase
    head, top = job.epochs(min(run, arguments.epochs_per_phase))
    record = {
        **record,
        "random_weights": is_random,
        "load_before": round(os.getloadavg()[0], 2),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    options = ["--backbone", job.backbone, "--weights", str(weights), "--seed", str(record["seed"])]
    options += ["--epochs-head", str(head), "--epochs-top", str(top)]
    options += ["--precision", precision] if precision else []
    options += ["--limit", str(arguments.limit)] if arguments.limit else []
    options += ["--curve"] if arguments.time_to_accuracy else []
    try:
        python = python_of(PEERS[name], arguments.envs, arguments.thaw_python)
        module = ["-m", f"bench.versus.peers.{name}"]
        return record | last_line([str(python), *module, str(arguments.table.resolve()), *options], arguments)
    except NotInstallable as error:
        return record | {"failure": f"not installable: {error}"}
    except RuntimeError as error:
        return record | {"failure": str(error)}


def read(results: Path) -> list[dict]:
    """All records so far."""
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.is_file() else []


def is_done(wanted: dict, records: list[dict]) -> bool:
    """Whether a curve has been measured already; one that failed has not."""
    return wanted["kind"] == "curve" and any(
        "failure" not in record and record.items() >= wanted.items() for record in records if record["kind"] == "curve"
    )


def main() -> None:
    arguments = parse()
    # Do not resolve links: the interpreter of a virtual environment finds its packages by its own path.
    arguments.envs, arguments.thaw_python = arguments.envs.absolute(), arguments.thaw_python.absolute()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)

    def keep(record: dict) -> None:
        with arguments.results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")

    if not arguments.draw:
        done = read(arguments.results)
        runs = itertools.product(arguments.seeds, arguments.jobs, arguments.peers)
        wanted = [planned(spec, JOBS[job], seed, arguments) for seed, job, spec in runs]
        missing = [record for record in wanted if not is_done(record, done)]
        print(f"{len(missing)} of {len(wanted)} runs to do", file=sys.stderr, flush=True)
        if missing:
            machine = last_line([str(arguments.thaw_python), "-m", "bench.versus.machine"], arguments)
            keep({"kind": "machine", **machine})
        for record in missing:
            print(f"seed {record['seed']}, {record['job']}, {record['peer']}", file=sys.stderr, flush=True)
            measured = measure(record, JOBS[record["job"]], arguments)
            keep(measured)
            print(f"  {measured.get('failure') or measured['total_seconds']}", file=sys.stderr, flush=True)
    write(read(arguments.results), arguments)


def write(records: list[dict], arguments: argparse.Namespace) -> None:
    """Print a section of the page, and write it into the page."""
    out = arguments.out
    is_timed = arguments.time_to_accuracy
    text = time_to_accuracy.draw(records, out.parent if out else None) if is_timed else draw(records)
    if out:
        page = out.read_text(encoding="utf-8") if out.is_file() else ""
        out.write_text(with_section(page, text), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
