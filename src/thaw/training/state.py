"""What a run must remember to go on: the weights that any of its phases trains, and the optimizer's memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from thaw.classifier.classifier import Classifier
from thaw.errors import ResumeError
from thaw.recipe import Phase
from thaw.training import checkpoint
from thaw.training.checkpoint import Checkpoint, Progress
from thaw.training.optimizer import load_state_tensors, make_optimizer, state_tensors


class TrainingState:
    """The optimizer of one phase over everything that trains, and the checkpoints that it can be put back from."""

    def __init__(self, classifier: Classifier, phases: Sequence[Phase], index: int, folder: Path) -> None:
        trained = [(f"head.{name}", parameter, 0) for name, parameter in classifier.head.named_parameters()]
        trained += [
            (f"backbone.{name}", parameter, 1 + depth)
            for name, parameter, depth in classifier.backbone.trainable_parameters()
        ]
        self._classifier, self._phases, self._folder = classifier, phases, folder
        self._names: dict[nn.Parameter, str] = {parameter: name for name, parameter, _ in trained}
        self.optimizer: Optimizer = make_optimizer(trained, phases[index])

    def save_last(self, progress: Progress) -> None:
        """Keep weights and the optimizer's memory, from which a resumed run goes on."""
        memory = state_tensors(self.optimizer, self._names)
        save(self._classifier, self._phases, progress, self._folder, "last", memory)

    def restore_last(self) -> None:
        """Put weights and optimizer back to where `save_last` kept them."""
        saved = load_weights(self._classifier, self._folder, "last")
        if saved:
            load_state_tensors(self.optimizer, self._names, saved.optimizer)


def weights_of(classifier: Classifier, phases: Sequence[Phase]) -> dict[str, Tensor]:
    """The head and every block that some phase trains, later ones too.

    A later phase that loses is undone by loading an earlier phase's best, which must hold all that the later one moved.
    """
    lowest = min(classifier.backbone.cut(phase.cut).position for phase in phases)
    weights = {f"backbone.{key}": value for key, value in classifier.backbone.state_from(lowest).items()}
    return weights | {f"head.{key}": value for key, value in classifier.head.state_dict().items()}


def save(
    classifier: Classifier,
    phases: Sequence[Phase],
    progress: Progress,
    folder: Path,
    name: str,
    memory: dict[str, Tensor] | None = None,
) -> None:
    """Make the weights that the classifier holds now the checkpoint called `name`."""
    checkpoint.write(folder, name, Checkpoint(weights_of(classifier, phases), memory or {}, progress))


def load_weights(classifier: Classifier, folder: Path, name: str) -> Checkpoint | None:
    """Put the weights of a checkpoint into the classifier; `None` where there is no such checkpoint."""
    saved = checkpoint.read(folder, name)
    if saved:
        unexpected = classifier.load_state_dict(saved.weights, strict=False).unexpected_keys
        if unexpected:
            raise ResumeError(f"{folder}: the checkpoint has {len(unexpected)} tensors that this network lacks")
    return saved
