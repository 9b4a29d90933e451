"""Run the same job with Thaw and its peers, one after the other, and write the table.

    python bench/elpv_csv.py FOLDER elpv.csv
    python -m bench.versus elpv.csv --weights mobilenetv2_100=FILE --out docs/benchmark.md

Each seed is a round in which every peer runs once, so that other load on the machine affects all of them. A backbone
without weights gets random ones from one file, and its accuracy is omitted. With `--epochs 2` a peer runs two epochs of
each phase, and the rest is extrapolated, which the table says; Thaw always runs all epochs. Every measurement is
appended to the results file immediately; `--draw` only writes the table from that file.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from bench.versus.environments import PEERS, NotInstallable, environment_of, python_of
from bench.versus.jobs import BACKBONES, JOBS, Job
from bench.versus.table import draw

THAW = "thaw_cli"
DEFAULT_PEERS = (THAW, "keras_guide", "torch_guide", "torch_guide@bf16", "fastai_fine_tune", "hf_trainer")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.versus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path, nargs="?", help="CSV with the columns path, label, split")
    parser.add_argument(
        "--weights", nargs="*", default=[], metavar="BACKBONE=FILE", help="FILE with its config.json in the same folder"
    )
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), metavar="JOB", help=", ".join(JOBS))
    known = f"PEER or PEER@bf16 of {', '.join(PEERS)}"
    parser.add_argument("--peers", nargs="+", default=DEFAULT_PEERS, metavar="PEER", help=known)
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
    arguments = parser.parse_args()
    arguments.results = arguments.results or arguments.envs / "results.jsonl"
    unknown = [name for name in arguments.peers if name.partition("@")[0] not in PEERS]
    unknown += [item for item in arguments.weights if item.partition("=")[0] not in BACKBONES]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; peers are {', '.join(PEERS)}; backbones {', '.join(BACKBONES)}")
    if arguments.table is None and not arguments.draw:
        parser.error("a table of images is needed, unless --draw")
    return arguments


def last_line(command: list[str], arguments: argparse.Namespace) -> dict:
    """The JSON object in the last line of a command's output; raises `RuntimeError` with its last line."""
    command = [*shlex.split(arguments.prefix), *command]
    here = Path(__file__).resolve().parents[2]
    settings = {"cwd": here, "env": environment_of(arguments.envs), "text": True}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **settings)
    lines = done.stdout.splitlines() or [""]
    if done.returncode:
        raise RuntimeError(f"ended with {done.returncode}: {lines[-1]}")
    return json.loads(lines[-1])


def weights_of(backbone: str, arguments: argparse.Namespace) -> tuple[Path, bool]:
    """The weights file, and whether it is random; random weights are created once."""
    given = dict(item.split("=", 1) for item in arguments.weights)
    if backbone in given:
        return Path(given[backbone]).resolve(), False
    folder = arguments.envs / "random-weights" / backbone
    if not (folder / "model.safetensors").is_file():
        python = [str(arguments.thaw_python), "-m", "bench.versus.random_weights", backbone, str(folder)]
        subprocess.run(python, check=True, env=environment_of(arguments.envs), stdout=subprocess.DEVNULL)
    return folder / "model.safetensors", True


def measure(spec: str, job: Job, seed: int, arguments: argparse.Namespace) -> dict:
    """One record of the results: a peer on a job, or why it failed."""
    name, _, precision = spec.partition("@")
    peer = PEERS[name]
    weights, is_random = weights_of(job.backbone, arguments)
    run = arguments.epochs_per_phase if name == THAW else arguments.epochs or arguments.epochs_per_phase
    head, top = job.epochs(min(run, arguments.epochs_per_phase))
    record = {
        "kind": "run",
        "peer": spec,
        "title": f"{peer.title}{f', {precision}' if precision else ''}",
        "job": job.name,
        "table": arguments.table.stem,
        "limit": arguments.limit,
        "epochs_wanted": job.epochs(arguments.epochs_per_phase),
        "seed": seed,
        "random_weights": is_random,
        "load_before": round(os.getloadavg()[0], 2),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    options = ["--backbone", job.backbone, "--weights", str(weights), "--seed", str(seed)]
    options += ["--epochs-head", str(head), "--epochs-top", str(top)]
    options += ["--precision", precision] if precision else []
    options += ["--limit", str(arguments.limit)] if arguments.limit else []
    try:
        python = python_of(peer, arguments.envs, arguments.thaw_python)
        module = ["-m", f"bench.versus.peers.{name}"]
        return record | last_line([str(python), *module, str(arguments.table.resolve()), *options], arguments)
    except NotInstallable as error:
        return record | {"failure": f"not installable: {error}"}
    except RuntimeError as error:
        return record | {"failure": str(error)}


def main() -> None:
    arguments = parse()
    # Do not resolve links: the interpreter of a virtual environment finds its packages by its own path.
    arguments.envs, arguments.thaw_python = arguments.envs.absolute(), arguments.thaw_python.absolute()
    arguments.results.parent.mkdir(parents=True, exist_ok=True)

    def keep(record: dict) -> None:
        with arguments.results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record) + "\n")

    if not arguments.draw:
        machine = last_line([str(arguments.thaw_python), "-m", "bench.versus.machine"], arguments)
        keep({"kind": "machine", **machine})
        for seed in arguments.seeds:
            for job in arguments.jobs:
                for spec in arguments.peers:
                    print(f"seed {seed}, {job}, {spec}", file=sys.stderr, flush=True)
                    record = measure(spec, JOBS[job], seed, arguments)
                    keep(record)
                    print(f"  {record.get('failure') or record['total_seconds']}", file=sys.stderr, flush=True)
    records = [json.loads(line) for line in arguments.results.read_text(encoding="utf-8").splitlines()]
    text = draw(records)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
