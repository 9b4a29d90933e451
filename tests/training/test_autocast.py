from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from thaw.training.autocast import training_autocast

CPU = torch.device("cpu")


def gradients(layer: nn.Conv2d, inputs: torch.Tensor, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The outputs of a layer, and the gradient of its inputs."""
    inputs = inputs.clone().requires_grad_()
    with training_autocast(CPU, precision):  # type: ignore[arg-type]
        outputs = layer(inputs)
    layer.zero_grad()
    outputs.float().square().sum().backward()
    assert inputs.grad is not None
    return outputs.detach(), inputs.grad


@pytest.mark.parametrize(
    ("kernel", "stride", "groups", "exact"), [(3, 2, 8, True), (5, 1, 8, True), (3, 1, 8, False), (3, 2, 1, False)]
)
def test_a_strided_or_wide_depthwise_layer_is_computed_in_fp32_and_returned_in_bf16(
    kernel: int, stride: int, groups: int, exact: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=groups)
    inputs = torch.randn(2, 8, 9, 9)
    expected, _ = gradients(layer, inputs, "fp32")
    outputs, _ = gradients(layer, inputs, "bf16")
    assert outputs.dtype == torch.bfloat16 and expected.dtype == torch.float32
    assert torch.equal(outputs, expected.bfloat16()) == exact


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_gradients_agree_with_fp32_within_rounding(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 16, kernel, stride, kernel // 2, groups=16, bias=False)
    inputs = torch.randn(4, 16, 12, 12)
    _, exact = gradients(layer, inputs, "fp32")
    exact_weights = layer.weight.grad.clone()  # type: ignore[union-attr]
    _, rounded = gradients(layer, inputs, "bf16")
    assert (rounded - exact).norm() < 0.02 * exact.norm()
    assert (layer.weight.grad - exact_weights).norm() < 0.02 * exact_weights.norm()  # type: ignore[operator]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_convolutions_in_fp32_are_not_rounded_to_tf32(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    gradients(nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8), precision)
    assert not torch.backends.cudnn.allow_tf32


def allow_by_products() -> None:
    torch.set_float32_matmul_precision("high")


def allow_by_all_backends() -> None:
    torch.backends.fp32_precision = "tf32"


@pytest.fixture
def settings_restored() -> Iterator[None]:
    yield
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True


@pytest.mark.usefixtures("settings_restored")
@pytest.mark.parametrize("allow", [allow_by_products, allow_by_all_backends])
def test_what_a_user_has_allowed_to_be_rounded_to_tf32_is_not_on_a_gpu(
    allow: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    backends = torch.backends
    for _ in range(2):
        allow()
        with training_autocast(CPU, "fp32"):
            rounded = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul)
            assert {setting.fp32_precision for setting in rounded} == {"ieee"}
            # Compiling reads these, which raise where they contradict the ones above.
            assert not backends.cudnn.allow_tf32 and not backends.cuda.matmul.allow_tf32
            assert torch.get_float32_matmul_precision() == "highest"


def test_products_of_matrices_on_a_cpu_have_the_precision_that_the_user_chose() -> None:
    if torch.cuda.is_available():
        pytest.skip("for machines without a GPU of NVIDIA")
    before = torch.get_float32_matmul_precision()
    with training_autocast(CPU, "fp32"):
        assert torch.get_float32_matmul_precision() == before
