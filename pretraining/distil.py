"""Distil a teacher into a student of the same architecture: `draw` the crops, `train` part by part, `export`.

    python -m pretraining.distil draw   pretraining/starter.yaml WORK --photographs FOLDER
    python -m pretraining.distil train  pretraining/starter.yaml WORK --teacher teacher.safetensors [--parts lower]
    python -m pretraining.distil export pretraining/starter.yaml WORK starter.safetensors --teacher teacher.safetensors

WORK holds the crops, what lies where a part begins, and a checkpoint of each part. Each command goes on from where
it was stopped; parts on the teacher's inputs need no other part and may be trained at the same time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pretraining.configuration import Configuration
from pretraining.crops import Crops
from pretraining.export import measure_statistics, mute_silent_channels, write_backbone
from pretraining.pictures import make_up, read_photographs
from pretraining.shards import PIXELS, Shards, draw
from pretraining.student import load_teacher, new_student
from pretraining.training import Pair, load_parts, train_part


def run_draw(arguments: argparse.Namespace) -> None:
    """Draw every crop that is not there yet."""
    configuration = Configuration.load(arguments.configuration)
    images = configuration.images
    made_up = make_up(images.made_up, configuration.seed)
    photographs = read_photographs(arguments.photographs)
    draw(Crops(photographs, made_up, images, images.size, configuration.seed), images, arguments.work)


def run_train(arguments: argparse.Namespace) -> None:
    """Train the parts in their order, each from its checkpoint where there is one."""
    configuration = Configuration.load(arguments.configuration)
    for name in arguments.parts or configuration.parts:
        train_part(name, _pair(configuration, arguments.teacher), configuration, arguments.work)


def run_export(arguments: argparse.Namespace) -> None:
    """Write what the parts learned in half precision and print its SHA-256."""
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
            command.add_argument("--size", type=int, default=224, help="pixels that users' images get")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Run one command; `words` instead of those of the command line."""
    arguments = parse(words)
    arguments.run(arguments)


if __name__ == "__main__":
    main()
