"""PyTorch's compiler is imported for what is compiled, and for nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

IMPORT = "import sys, torch\nfrom thaw.backbones.timm_backbone import build\n"
IS_THERE = "assert 'torch._dynamo' in sys.modules\n"
IS_NOT_THERE = "assert 'torch._dynamo' not in sys.modules and 'sympy' not in sys.modules\n"
SOLVE = """
weight = torch.zeros(3, requires_grad=True)
def loss():
    optimizer.zero_grad()
    value = (weight - 1).square().sum()
    value.backward()
    return value
optimizer = torch.optim.LBFGS([weight])
optimizer.step(loss)
optimizer.load_state_dict(optimizer.state_dict())
assert float(weight.detach().min()) > 0
"""


def run(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_building_a_network_and_solving_a_head_does_not_import_the_compiler() -> None:
    run(IMPORT + IS_NOT_THERE + SOLVE + IS_NOT_THERE)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop"])
def test_steps_of_training_do_not_import_the_compiler(name: str) -> None:
    run(
        IMPORT
        + "from thaw.recipe import Phase\nfrom thaw.training.optimizer import make_optimizer, set_lr, step\n"
        + "weight = torch.nn.Parameter(torch.ones(3, 2))\n"
        + f"phase = Phase(name='top', cut='head', epochs=1, lr=0.1, optimizer='{name}')\n"
        + "optimizer = make_optimizer([('head.weight', weight, 0)], phase)\n"
        + "set_lr(optimizer, 1.0)\noptimizer.zero_grad()\nweight.square().sum().backward()\nstep(optimizer)\n"
        + "assert float(weight.detach().max()) < 1\n"
        + IS_NOT_THERE
    )


def test_counting_the_multiply_adds_of_a_network_does_not_import_the_compiler() -> None:
    run(
        IMPORT
        + "from thaw.planning.strategy import flops_above\nfrom thaw.recipe import PreprocessingSettings\n"
        + "small = PreprocessingSettings(image_size=64)\n"
        # Padded as in TensorFlow, by an operation that is no layer.
        + "network = build('tf_mobilenetv3_small_minimal_100', 'random', small, 'avg', 0)\n"
        + "assert flops_above(network)[0] == 1 > flops_above(network)[-1] > 0\n"
        + IS_NOT_THERE
    )


def test_what_is_compiled_afterwards_is_compiled() -> None:
    run(
        IMPORT
        + "assert torch.compile(lambda value: value + 1, backend='eager')(torch.ones(2)).tolist() == [2, 2]\n"
        + IS_THERE
        + "graphs = []\n"
        + "def backend(graph, inputs):\n    graphs.append(graph)\n    return graph.forward\n"
        + "torch.compile(torch.nn.Linear(2, 2), backend=backend)(torch.ones(1, 2))\n"
        + "assert len(graphs) == 1\n"
        + SOLVE
        + SOLVE.replace("LBFGS", "AdamW")
    )


def test_functions_of_torchvision_and_exports_find_the_compiler_that_they_need() -> None:
    run(
        IMPORT
        + "from torchvision.ops import roi_align\n"
        + "boxes = [torch.tensor([[0.0, 0.0, 4.0, 4.0]])]\n"
        + "torch.use_deterministic_algorithms(True)\n"
        + "assert roi_align(torch.ones(1, 1, 8, 8), boxes, 2).mean() == 1\n"
        + "program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))\n"
        + "assert program.module()(torch.ones(1, 2)).shape == (1, 2)\n"
        + IS_THERE
    )


def test_whatever_else_is_asked_of_the_compiler_imports_it() -> None:
    run(
        "import sys, torch\nfrom thaw.torch_compiler import compiler_deferred\n"
        "with compiler_deferred():\n"
        "    import torch._dynamo as found\n"
        "    assert callable(found.reset)\n"
        "assert hasattr(sys.modules['torch._dynamo'], 'optimize') and torch._dynamo is sys.modules['torch._dynamo']\n"
    )


def test_a_compiler_that_is_there_already_stays() -> None:
    run("import sys, torch, torch._dynamo\nbefore = torch._dynamo\n" + IMPORT + "assert torch._dynamo is before\n")
