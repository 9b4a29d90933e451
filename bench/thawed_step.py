"""The speed of a training step above the cut: images per second, and the fraction of this machine's bf16 peak.

    python bench/thawed_step.py [--case NAME:CUT:BATCH ...] [--return-freed-memory] [--profile]

Inputs are random features at the cut. Three variants alternate, and the median of each is printed: fp32, bf16 with
plain autocast, and bf16 as Thaw trains. The peak is that of one 2048 x 2048 x 2048 matrix product in bf16. A step
counts as three forward passes of every layer above the cut (forward, weight gradient, input gradient), less the input
gradient of the layers directly at the cut, which is not computed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from thaw.backbones.stages import AtCut
from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier
from thaw.classifier.head import Head
from thaw.device import keep_freed_memory
from thaw.features.torch_runner import autocast
from thaw.recipe import DecodeSettings, Phase
from thaw.training.autocast import training_autocast
from thaw.training.optimizer import make_optimizer

CASES = ("resnet50:layer4:32", "resnet50:layer4:64", "mobilenetv2_100:stages:3:32", "mobilenetv2_100:stages:3:64")
CPU = torch.device("cpu")
ROUNDS = 5
VARIANTS: dict[str, Callable[[], AbstractContextManager]] = {
    "fp32": partial(autocast, CPU, "fp32"),
    "bf16, plain autocast": partial(autocast, CPU, "bf16"),
    "bf16, as Thaw trains": partial(training_autocast, CPU, "bf16"),
}


class Step:
    """One training step above the cut of a network with random weights, on one batch of random maps."""

    def __init__(self, case: str) -> None:
        name, _, rest = case.partition(":")
        at, _, batch = rest.rpartition(":")
        backbone = build(name, "random")
        head = Head(backbone.facts.width, 2, (), 0.2, 0)
        self.classifier = Classifier(backbone, head, ("a", "b"), "multiclass", DecodeSettings())
        cut = backbone.cut(at)
        backbone.thaw(cut, "frozen")
        self.classifier.train()
        self.position = cut.position
        size = backbone.facts.pixels.size
        with torch.no_grad():
            shape = backbone.run(torch.zeros(1, 3, size, size), 0, self.position).shape
        self.inputs = torch.rand(int(batch), *shape[1:]).contiguous(memory_format=torch.channels_last)
        self.targets = torch.randint(2, (int(batch),))
        trained = [(name, value, 0) for name, value in self.classifier.named_parameters() if value.requires_grad]
        self.optimizer = make_optimizer(trained, Phase(name="bench", cut=at, epochs=1, lr=1e-4))

    def run(self, context: Callable[[], AbstractContextManager]) -> None:
        with context():
            logits = self.classifier(AtCut.above_nothing(self.inputs), self.position)
        self.optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(logits.float(), self.targets).backward()
        self.optimizer.step()

    def flops(self) -> int:
        """Multiplications and additions of the convolutions and linear layers in one step."""
        total = 0

        def count(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            nonlocal total
            weight = module.weight
            assert isinstance(weight, Tensor)
            is_at_the_cut = arguments[0].data_ptr() == self.inputs.data_ptr()
            total += 2 * weight.numel() * (output.numel() // weight.shape[0]) * (2 if is_at_the_cut else 3)

        with hooked(self.classifier, count), torch.no_grad():
            self.classifier(AtCut.above_nothing(self.inputs), self.position)
        return total


@contextmanager
def hooked(classifier: Classifier, hook: Callable) -> Iterator[None]:
    kinds = (nn.Conv2d, nn.Linear)
    handles = [module.register_forward_hook(hook) for module in classifier.modules() if isinstance(module, kinds)]
    yield
    for handle in handles:
        handle.remove()


def peak(dtype: torch.dtype) -> float:
    """FLOP/s of one large matrix product, the best of ten runs."""
    left, right = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    return 2 * 2048**3 / min(seconds(partial(torch.mm, left, right)) for _ in range(10))


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(case: str) -> None:
    step, best = Step(case), peak(torch.bfloat16)
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for round_ in range(ROUNDS + 1):
        for name, context in VARIANTS.items():
            taken = seconds(partial(step.run, context))
            if round_:
                times[name].append(taken)
    images, flops, best = len(step.inputs), step.flops(), max(best, peak(torch.bfloat16))
    print(f"{case}: {flops / images / 1e9:.2f} GFLOP per image, matrix peak {best / 1e12:.3f} TFLOP/s")
    for name, values in times.items():
        taken = statistics.median(values)
        print(f"  {name:22} {images / taken:7.1f} images/s, {flops / taken / best:.0%} of peak", flush=True)


def show_profile(case: str) -> None:
    step, context = Step(case), VARIANTS["bf16, as Thaw trains"]
    step.run(context)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(3):
            step.run(context)
    events = sorted(recorded.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print(f"{case}: time of a step by operation")
    for event in events[:10]:
        print(f"  {event.self_cpu_time_total / total:5.1%} {event.key}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", default=CASES)
    parser.add_argument("--return-freed-memory", action="store_true", help="as glibc does by default")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    if not arguments.return_freed_memory:
        keep_freed_memory()
    for case in arguments.case:
        show_profile(case) if arguments.profile else measure(case)
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
