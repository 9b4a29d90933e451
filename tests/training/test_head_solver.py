import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from thaw.backbones.timm_backbone import build
from thaw.classifier.classifier import Classifier, new_head, outputs_of
from thaw.classifier.head import Head
from thaw.features.cache import CachedFeatures
from thaw.recipe import DecodeSettings, PreprocessingSettings, Task
from thaw.training.head_solver import HeadSolver, history_size
from thaw.training.loss import make_loss
from thaw.training.sources import CachedSource
from thaw.training.standardise import fit_standardisation

WIDTH, IMAGES, VIEWS = 1024, 60, 2


def classifier(task: Task) -> Classifier:
    backbone = build("mobilenetv3_small_050", "random", PreprocessingSettings(image_size=32))
    assert backbone.facts.width == WIDTH
    return Classifier(backbone, Head(WIDTH, outputs_of(task, "abc"), (), 0.2, 0), "abc", task, DecodeSettings())


def source(task: Task) -> CachedSource:
    """Features of different scales: three depend on the class, one is constant and one nearly constant."""
    draws = np.random.default_rng(0)
    classes = {"multiclass": 3, "binary": 2, "multilabel": 2}[task]
    targets = draws.integers(classes, size=(IMAGES, 3) if task == "multilabel" else IMAGES)
    features = draws.normal(size=(IMAGES, VIEWS, WIDTH)) * draws.uniform(0.1, 10.0, size=WIDTH)
    features[..., :3] += 2.0 * (targets[:, None] if task == "multilabel" else np.eye(3)[targets][:, None])
    features[..., 5], features[..., 6] = 1.0, 1.0 + 1e-3 * draws.normal(size=(IMAGES, VIEWS))
    labels = torch.from_numpy(targets.astype(np.float32) if task == "multilabel" else targets)
    return CachedSource.of(CachedFeatures.whole(features.astype(np.float32)), labels, torch.device("cpu"), seed=0)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradient_of_loss_and_penalty_is_zero_at_the_solution(task: Task, smoothing: float) -> None:
    model, data, penalty = classifier(task), source(task), 0.01
    weights = torch.tensor({"binary": [0.5, 2.0]}.get(task, [0.5, 1.0, 2.0]))
    loss = make_loss(task, weights, smoothing)
    solver = HeadSolver(model, data, loss)
    value = solver.solve(penalty)

    views = [data.batch(np.arange(IMAGES), view) for view in range(VIEWS)]
    features = torch.cat([at.values for at, _ in views]).double()
    targets = torch.cat([targets for _, targets in views]).double()
    targets = targets if task == "multilabel" else targets.long()
    deviation = features.std(dim=0, correction=0).clamp_min(float(0.01 * features.std(dim=0, correction=0).mean()))
    layer = model.head.layers[-1]
    weight = (layer.weight.double() * deviation).detach().requires_grad_()
    bias = (layer.bias.double() + layer.weight.double() @ features.mean(dim=0)).detach().requires_grad_()
    exact = make_loss(task, weights.double(), smoothing)(
        (features - features.mean(0)) / deviation @ weight.T + bias, targets
    )
    assert value == pytest.approx(exact.item(), rel=1e-3)
    (exact + penalty / 2 * weight.square().sum()).backward()
    assert weight.grad is not None and bias.grad is not None
    assert weight.grad.abs().max() < 1e-3 and bias.grad.abs().max() < 1e-3


def test_the_probabilities_agree_with_those_of_scikit_learn() -> None:
    model, data, penalty = classifier("multiclass"), source("multiclass"), 0.1
    HeadSolver(model, data, make_loss("multiclass", None, 0.0)).solve(penalty)
    views = [data.batch(np.arange(IMAGES), view) for view in range(VIEWS)]
    features, targets = torch.cat([at.values for at, _ in views]).numpy(), torch.cat([each for _, each in views])
    varying = np.delete(np.arange(WIDTH), [5, 6])
    scaled = StandardScaler().fit_transform(features[:, varying])
    other = LogisticRegression(C=1 / (penalty * len(scaled)), tol=1e-8, max_iter=1000).fit(scaled, targets)
    with torch.no_grad():
        ours = model.head.eval()(torch.from_numpy(features)).softmax(1).numpy()
    assert np.abs(ours - other.predict_proba(scaled)).max() < 5e-3


def test_the_solution_does_not_depend_on_the_start_and_a_weaker_penalty_lowers_the_training_loss() -> None:
    loss = make_loss("multiclass", None, 0.0)
    fresh, warm = classifier("multiclass"), classifier("multiclass")
    cold = HeadSolver(fresh, source("multiclass"), loss).solve(1e-2)
    solver = HeadSolver(warm, source("multiclass"), loss)
    path = [solver.solve(penalty) for penalty in (1.0, 1e-1, 1e-2)]
    assert path == sorted(path, reverse=True)
    assert path[-1] == pytest.approx(cold, rel=1e-2)


def test_a_feature_is_constant_compared_with_those_of_its_own_stage_only() -> None:
    backbone = classifier("binary").backbone
    backbone.use_features("all")
    lower, targets, draws = backbone.feature_width - WIDTH, np.arange(IMAGES) % 2, np.random.default_rng(0)
    stages = 1e-3 * draws.normal(size=(IMAGES, 1, lower))
    stages[..., 0] += 3e-3 * targets[:, None]
    values = 100.0 * draws.normal(size=(IMAGES, 1, WIDTH))
    features = CachedFeatures.whole(values.astype(np.float32), stages.astype(np.float32))
    head = new_head(backbone, 1)
    model = Classifier(backbone, head, "ab", "binary", DecodeSettings())
    data = CachedSource.of(features, torch.from_numpy(targets), torch.device("cpu"), 0)
    fit_standardisation(model, backbone.head_position, data)
    HeadSolver(model, data, make_loss("binary", None, 0.0)).solve(0.1)
    standardised = head.standardised(data.batch(np.arange(IMAGES), 0)[0].for_head())
    assert standardised.mean(0).abs().max() < 1e-3
    weights = head.layers[-1].weight.detach()[0, :lower].abs() * standardised[:, :lower].std(0)
    assert weights.argmax() == 0 and weights[0] > 0.05


def test_solving_again_from_the_same_head_is_bit_identical() -> None:
    def weights() -> torch.Tensor:
        model = classifier("binary")
        HeadSolver(model, source("binary"), make_loss("binary", None, 0.0)).solve(1e-2)
        return model.head.layers[-1].weight.detach()

    assert torch.equal(weights(), weights())


@pytest.mark.parametrize(
    ("width", "outputs", "steps"), [(1280, 10, 100), (3904, 200, 100), (1280, 2_000, 52), (3904, 20_000, 10)]
)
def test_steps_are_kept_as_far_as_they_fit_into_a_gigabyte(width: int, outputs: int, steps: int) -> None:
    assert history_size(width * outputs) == steps
