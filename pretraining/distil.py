"""Distil a teacher into a student: `look` (the teacher, once), `train` (the student, resumable), `export`.

    python -m pretraining.distil look  pretraining/starter.yaml WORK --photographs FOLDER --teacher teacher.safetensors
    python -m pretraining.distil train pretraining/starter.yaml WORK --teacher teacher.safetensors
    python -m pretraining.distil export pretraining/starter.yaml WORK starter.safetensors

WORK holds the crops with the teacher's answers (about 80 kB a crop) and the checkpoint. Training may begin as
soon as the first crops are there; each command goes on from where it was stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from pretraining.configuration import Configuration
from pretraining.crops import Crops
from pretraining.export import measure_statistics, mute_silent_channels, write_backbone
from pretraining.pictures import make_up, read_photographs
from pretraining.shards import Shards
from pretraining.student import Student
from pretraining.teacher import fast, load_teacher, look
from pretraining.training import CHECKPOINT, resume, train


def run_look(arguments: argparse.Namespace) -> None:
    """Let the teacher look at every crop that it has not seen yet."""
    configuration = Configuration.load(arguments.configuration)
    images, size = configuration.images, configuration.teacher.size
    made_up = make_up(images.made_up, configuration.seed)
    crops = Crops(read_photographs(arguments.photographs), made_up, images, size, configuration.seed)
    look(fast(load_teacher(arguments.teacher, configuration), size), crops, configuration, arguments.work)


def run_train(arguments: argparse.Namespace) -> None:
    """Train the student, from its checkpoint where there is one."""
    configuration = Configuration.load(arguments.configuration)
    train(_student(configuration, arguments), configuration, arguments.work)


def run_export(arguments: argparse.Namespace) -> None:
    """Write the checkpoint's backbone in half precision and print its SHA-256."""
    configuration = Configuration.load(arguments.configuration)
    student = _student(configuration, arguments)
    step, _ = resume(student, [], arguments.work / CHECKPOINT)
    measure_statistics(student, Shards(arguments.work), arguments.size)
    mute_silent_channels(student.backbone)
    print(write_backbone(student.backbone, configuration, arguments.size, step, arguments.out))


def _student(configuration: Configuration, arguments: argparse.Namespace) -> Student:
    torch.manual_seed(configuration.seed)
    return Student(configuration, Shards(arguments.work).first, _classifier(arguments.teacher))


def _classifier(file: Path) -> tuple[Tensor, Tensor] | None:
    """Weight and bias of the teacher's last layer, where its file holds them."""
    tensors = load_file(file)
    if "classifier.weight" not in tensors:
        return None
    return tensors["classifier.weight"], tensors["classifier.bias"]


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for run in (run_look, run_train, run_export):
        command = commands.add_parser(run.__name__.removeprefix("run_"), help=run.__doc__)
        command.add_argument("configuration", type=Path)
        command.add_argument("work", type=Path)
        command.add_argument("--teacher", type=Path, required=True, help="the teacher's weights")
        command.set_defaults(run=run)
        if run is run_look:
            command.add_argument("--photographs", type=Path, required=True)
        if run is run_export:
            command.add_argument("out", type=Path)
            command.add_argument("--size", type=int, default=160, help="pixels that users' images get")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Run one command; `words` instead of those of the command line."""
    arguments = parse(words)
    arguments.run(arguments)


if __name__ == "__main__":
    main()
