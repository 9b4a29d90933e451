"""Distil a teacher into a student of the same architecture: `draw` the crops, `train` part by part, `export`.

    python -m pretraining.distil draw   pretraining/starter.yaml WORK --photographs FOLDER
    python -m pretraining.distil train  pretraining/starter.yaml WORK --teacher teacher.safetensors [--parts lower]
    python -m pretraining.distil export pretraining/starter.yaml WORK starter.safetensors --teacher teacher.safetensors

WORK contains the crops, the inputs of each part, and a checkpoint of each part. Re-run an interrupted command to
resume; parts on the teacher's inputs are independent of other parts and can be trained in parallel.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pretraining.configuration import Configuration
from pretraining.crops import Crops
from pretraining.export import measure_statistics, mute_silent_channels, write_backbone
from pretraining.images import read_photographs, synthetic_images
from pretraining.shards import PIXELS, Shards, draw
from pretraining.student import load_teacher, new_student
from pretraining.training import Pair, load_parts, train_part


def run_draw(arguments: argparse.Namespace) -> None:
    """Draw all missing crops."""
    configuration = Configuration.load(arguments.configuration)
    images = configuration.images
    synthetic = synthetic_images(images.synthetic, configuration.seed)
    photographs = read_photographs(arguments.photographs)
    draw(Crops(photographs, synthetic, images, images.size, configuration.seed), images, arguments.work)


def run_train(arguments: argparse.Namespace) -> None:
    """Train the parts in order, each from its checkpoint if there is one."""
    configuration = Configuration.load(arguments.configuration)
    for name in arguments.parts or configuration.parts:
        train_part(name, _pair(configuration, arguments.teacher), configuration, arguments.work)


def run_export(arguments: argparse.Namespace) -> None:
    """Write the trained student in half precision and print its SHA-256."""
    configuration = Configuration.load(arguments.configuration)
    pair = _pair(configuration, arguments.teacher)
    load_parts(pair, configuration, arguments.work)
    measure_statistics(pair.student, Shards(arguments.work / PIXELS))
    mute_silent_channels(pair.student)
    print(write_backbone(pair.student, configuration, arguments.size, arguments.out))


def _pair(configuration: Configuration, weights: Path) -> Pair:
    teacher = load_teacher(configuration.teacher, weights, configuration.images.size)
    return Pair(teacher, new_student(teacher))


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run in (run_draw, run_train, run_export):
        command = commands.add_parser(run.__name__.removeprefix("run_"), help=run.__doc__)
        command.add_argument("configuration", type=Path)
        command.add_argument("work", type=Path)
        command.set_defaults(run=run)
        if run is run_draw:
            command.add_argument("--photographs", type=Path, required=True)
        else:
            command.add_argument("--teacher", type=Path, required=True, help="the teacher's weights")
        if run is run_train:
            command.add_argument("--parts", nargs="+", help="only these parts")
        if run is run_export:
            command.add_argument("out", type=Path)
            command.add_argument("--size", type=int, default=224, help="input size in pixels for users")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Run one command, with `words` in place of the command line."""
    arguments = parse(words)
    arguments.run(arguments)


if __name__ == "__main__":
    main()
