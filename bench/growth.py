"""How Thaw's time and memory scale with the number of images: time should be linear, memory constant.

    python -m bench.growth elpv.csv --weights mobilenetv2_100.safetensors --work FOLDER --sizes 1000 5000 20000

IMAGES is a table with the columns path and label, or a folder with one folder per class. Its images are repeated until
there are enough, as hard links, or with `--vary` as re-encoded copies, each slightly rotated, shifted and brightened.
The copies are in all splits, so accuracy is meaningless here. FOLDER is used for the images and for Thaw's cache (about
0.3 MB per image with eight views, MobileNetV2, three stages thawed).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from bench.versus.environments import environment_of
from bench.versus.interface import PARTS
from bench.versus.jobs import BACKBONES

SPLIT_OF = ("train",) * 14 + ("val",) * 3 + ("test",) * 3
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


def labelled_files(images: Path) -> list[tuple[Path, str]]:
    """(file, label) of each image of a table or of a folder of class folders."""
    if images.is_dir():
        files = sorted(file for file in images.glob("*/*") if file.suffix.lower() in SUFFIXES)
        return [(file, file.parent.name) for file in files]
    with images.open(encoding="utf-8", newline="") as stream:
        return [(images.parent / row["path"], row["label"]) for row in csv.DictReader(stream)]


def make_set(sources: list[tuple[Path, str]], size: int, folder: Path, vary: bool) -> Path:
    """Create a table of `size` images; images of earlier calls are reused."""
    folder.mkdir(parents=True, exist_ok=True)
    shuffled = random.Random(0).sample(sources, len(sources))
    rows = []
    for index in range(size):
        source, label = shuffled[index % len(shuffled)]
        file = folder / f"{index:06d}{source.suffix}"
        if not file.exists():
            _write_copy(source, file, index // len(shuffled) if vary else 0)
        rows.append((str(file.resolve()), label, SPLIT_OF[random.Random(index).randrange(len(SPLIT_OF))]))
    table = folder.with_name(f"{folder.name}-{size}.csv")
    with table.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("path", "label", "split"), *rows])
    return table


def _write_copy(source: Path, file: Path, variation: int) -> None:
    """A hard link (a copy on another disk); from the first variation on, a slightly different image."""
    if variation == 0:
        try:
            os.link(source.resolve(), file)
        except OSError:
            shutil.copyfile(source, file)
        return
    from PIL import Image, ImageEnhance

    rng = random.Random(f"{file.name}")
    with Image.open(source) as image:
        turned = image.convert("RGB").rotate(rng.uniform(-3, 3), translate=(rng.randint(-4, 4), rng.randint(-4, 4)))
        ImageEnhance.Brightness(turned).enhance(rng.uniform(0.9, 1.1)).save(file)


def run_thaw(table: Path, arguments: argparse.Namespace) -> dict:
    """Run the peer `thaw_cli` on a table; returns its measurements."""
    command = [*shlex.split(arguments.prefix), str(arguments.thaw_python), "-m", "bench.versus.peers.thaw_cli"]
    command += [str(table), "--backbone", arguments.backbone, "--weights", str(arguments.weights.resolve())]
    command += ["--epochs-head", str(arguments.epochs), "--epochs-top", str(0 if arguments.head else arguments.epochs)]
    environment = {**environment_of(arguments.work), "TMPDIR": str(arguments.work.resolve())}
    here = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=here, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def draw(results: dict[int, dict], arguments: argparse.Namespace) -> str:
    """The Markdown table, and how far intermediate sizes are from the line through the first and the last."""
    epochs = f"{arguments.epochs}{'' if arguments.head else f' + {arguments.epochs}'}"
    header = ("images", *PARTS, "**total**", "per 1,000", "one more trial", "memory", "of it anonymous", "cache")
    lines = [f"{arguments.backbone}, {epochs} epochs, seconds.\n", f"| {' | '.join(header)} |"]
    lines.append(f"|{' --- |' * len(header)}")
    for size, result in results.items():
        total = result["total_seconds"]
        cells = [f"{size:,}", *(f"{result['seconds'][part]:.1f}" for part in PARTS), f"**{total:.1f}**"]
        cells += [f"{total / size * 1000:.1f}", f"{result['second_trial_seconds']:.1f}"]
        cells += [f"{result[key]:,} MB" for key in ("peak_pss_mb", "peak_anon_mb", "cache_mb")]
        lines.append(f"| {' | '.join(cells)} |")
    sizes = list(results)
    if len(sizes) > 2:
        first, last = (results[size]["total_seconds"] for size in (sizes[0], sizes[-1]))
        slope = (last - first) / (sizes[-1] - sizes[0])
        lines.append(f"\nThe line through the first and the last size: {slope * 1000:.1f} s per 1,000 images.")
        for size in sizes[1:-1]:
            expected = first + slope * (size - sizes[0])
            off = results[size]["total_seconds"] / expected - 1
            lines.append(f"{size:,} images: {off:+.1%} from this line.")
    for smaller, larger in pairwise(sizes):
        more = (results[larger]["peak_anon_mb"] - results[smaller]["peak_anon_mb"]) * 1e6 / (larger - smaller)
        lines.append(f"\nFrom {smaller:,} to {larger:,} images: {more:+,.0f} bytes of anonymous memory per image.")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument(
        "--weights", type=Path, required=True, help=".safetensors file of timm with its config.json in the same folder"
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--backbone", choices=BACKBONES, default="mobilenetv2_100")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 20000])
    parser.add_argument("--epochs", type=int, default=10, help="epochs per phase")
    parser.add_argument("--head", action="store_true", help="phase 1 only")
    parser.add_argument("--vary", action="store_true", help="varied copies instead of hard links")
    parser.add_argument("--prefix", default="", help="command to prefix each run with, such as a lock")
    parser.add_argument("--thaw-python", type=Path, default=Path(sys.executable), help="Python interpreter with Thaw")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    arguments = parser.parse_args()
    sources = labelled_files(arguments.images)
    results = {}
    for size in sorted(arguments.sizes):
        table = make_set(sources, size, arguments.work / ("varied" if arguments.vary else "linked"), arguments.vary)
        print(f"{size} images", file=sys.stderr, flush=True)
        results[size] = run_thaw(table, arguments)
        text = draw(results, arguments)
        if arguments.out:
            arguments.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
