"""The settings of a recipe: their types, ranges, defaults and descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator

from thaw.recipe.ranges import Values
from thaw.recipe.sections import (
    AugmentSettings,
    DecisionSettings,
    DecodeSettings,
    FolderSettings,
    HeadSettings,
    MeasureSettings,
    Phase,
    Positive,
    PreprocessingSettings,
    Required,
    Seconds,
    Seed,
    SplitSettings,
)
from thaw.settings import Section

Task = Literal["multiclass", "binary", "multilabel"]
Engine = Literal[
    "pytorch-fp32",
    "pytorch-bf16",
    "cuda-graph-fp32",
    "cuda-graph-bf16",
    "compiled-fp32",
    "compiled-bf16",
    "openvino-fp32",
    "openvino-bf16",
]
Monitor = str
"""The name of a metric that is computed after each epoch; `thaw.metrics` has the table of them."""

LoggerName = Literal["tensorboard", "mlflow", "wandb", "trackio"]
ClassWeights = Literal["none", "sqrt", "balanced"]
Steps = Literal["eager", "cuda_graph", "compiled"]
MemoryFormat = Literal["contiguous", "channels_last"]
KeepPhase = Literal["any_gain", "standard_error"]
Strategy = Literal["head", "top", "whole", "scratch", "manual"]

DEFAULT_BACKBONE = "default"
"""The backbone of a recipe that names none; `thaw.backbones.default` resolves it."""

HEAD_PHASE = Phase(name="head", cut="head", epochs=20, lr=3e-3)
FINE_TUNE_PHASE = Phase(name="fine-tune", cut="stages:3", epochs=20, lr=3e-4, warmup_epochs=1, layer_decay=0.8)


def _monitors() -> tuple[str, ...]:
    """Metrics that can be monitored; imported when first needed, because NumPy would slow down every command."""
    from thaw.metrics import MONITORS

    return tuple(MONITORS)


class RecipeSettings(Section):
    """Every setting of a run, each checked alone."""

    task: Literal["auto"] | Task = Field(
        "auto", description="multiclass: one label per image; binary: two classes; multilabel: any number of labels."
    )
    backbone: str = Field(
        DEFAULT_BACKBONE,
        description="Pre-trained network; `thaw models` lists them. default: mobilenetv2_100, downloaded if it is not "
        "on this machine, or the bundled starter where that fails within seconds. auto: the candidate with the best "
        "cross-validated accuracy of a linear head on its features. keras:NAME: a network of keras.applications. A "
        ".keras or .h5 file: your own Keras model, whose dense head is taken over where the classes agree.",
    )
    candidates: Mapping[str, str] = Field(
        {},
        description="Networks to choose from with backbone auto, as {name: weights}; empty for the starter and every "
        "network whose weights are on this machine.",
    )
    max_latency_ms: Positive | None = Field(
        None, description="Backbone auto: maximum latency of one image on this machine, in milliseconds."
    )
    max_size_mb: Positive | None = Field(
        None, description="Backbone auto: maximum size of the weights in single precision, in megabytes."
    )
    weights: str = Field(
        "published",
        description="published: the pre-trained weights, cached or downloaded; random; or a .safetensors or .pth file, "
        "for a network of Keras an .h5 or .keras file.",
    )
    seed: Seed = Field(
        0,
        description="Random seed; on one machine, equal seed, data, engine, precision and threads give equal weights.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|[a-z]+(:\d+)?)$",
        description="auto, cpu, or an accelerator that PyTorch supports, such as cuda, cuda:1, xpu or mps.",
    )
    engine: Literal["auto"] | Engine = Field(
        "auto",
        description="Inference engine of the frozen part; auto: the fastest whose features agree with pytorch-fp32.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Numeric precision of training; auto: bf16 where it is faster and agrees with fp32."
    )
    steps: Literal["auto"] | Steps = Field(
        "auto",
        description="How PyTorch runs training steps. eager: operation by operation; cuda_graph: captured once and "
        "replayed, on CUDA only; compiled: by torch.compile, which takes a minute; auto: the fastest that agrees with "
        "eager and pays.",
    )
    memory_format: Literal["auto"] | MemoryFormat = Field(
        "auto",
        description="Layout of maps in the memory of a CUDA device; elsewhere it is channels_last. auto: "
        "channels_last, but contiguous for networks with depthwise convolutions, unless training is long enough to "
        "measure both.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="CPU threads that training and the frozen part compute with, which change the last digits of the "
        "weights; null for as many as PyTorch takes here.",
    )
    views: Annotated[Annotated[int, Field(ge=1, le=64)] | Literal["auto"], Values((1, 2, 4))] = Field(
        "auto", description="Augmented views of each training image in the feature cache."
    )
    cache_dtype: Literal["auto", "float16", "uint8"] = Field(
        "auto",
        description="Data type of cached features: half precision, or eight bits with a scale per channel and view; "
        "auto: eight bits where half precision does not fit.",
    )
    cache_gb: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Disk space for cached features in GiB; null for half of what is free or holds features; 0 for "
        "none.",
    )
    class_weights: Annotated[Literal["auto"] | ClassWeights, Values(("none", "sqrt", "balanced"))] = Field(
        "auto",
        description="Weights of the classes in training. balanced: inverse to their frequency; sqrt: the square roots "
        "of those; auto: what gives the best monitored metric, measured if the classes are imbalanced.",
    )
    monitor: Monitor = Field(
        "auto",
        description="Validation metric that selects the best epoch; ties are broken by the loss. `thaw settings "
        "monitor` lists the metrics.",
        json_schema_extra=lambda schema: schema.update(enum=["auto", *_monitors()]),
    )
    keep_phase: Literal["auto"] | KeepPhase = Field(
        "auto",
        description="Gain on validation for which a later phase is kept. any_gain: any; standard_error: more than one "
        "standard error of the difference on the same images; auto: standard_error where validation is too optimistic "
        "about unseen groups or scenes, else any_gain.",
    )
    strategy: Literal["auto"] | Strategy = Field(
        "auto",
        description="How much of the network trains. head: only the head; top: then the top stages, and deeper as long "
        "as it pays; whole: then the whole network; scratch: everything from the start; manual: the phases of the "
        "recipe, which is the default when it names any; auto: by the number of images and their similarity to the "
        "pre-training data.",
    )
    time_limit: Seconds | None = Field(
        None,
        description="How long a run may take, in seconds or such as 90s, 10m or 1h30m; where the forecast is longer, "
        "the plan shortens the phases that the recipe does not name; null for no limit.",
    )
    target: Mapping[Monitor, Required] | None = Field(
        None,
        description="Stop once validation reaches this value with 95% confidence, such as {accuracy: 0.97}; null to "
        "disable.",
    )
    loggers: tuple[LoggerName, ...] = Field(
        ("tensorboard",),
        description="Experiment trackers, besides metrics.csv: any of tensorboard, mlflow, wandb, trackio.",
    )
    phase_settings: Mapping[str, bool | int | float | str | tuple[int, ...] | None] = Field(
        {},
        description="Settings that replace those of the phases that the strategy plans, as {phases.1.lr: 1e-5}; "
        "`--strategy` together with `--set phases.…` writes them.",
    )
    measure: MeasureSettings = Field(
        MeasureSettings(), description="What the plan measures by cross-validation on cached features."
    )
    folders: FolderSettings = Field(FolderSettings(), description="Reading of a folder of images.")
    decode: DecodeSettings = Field(DecodeSettings(), description="Image decoding.")
    split: SplitSettings = Field(SplitSettings(), description="Train, validation and test split.")
    preprocessing: PreprocessingSettings = Field(PreprocessingSettings(), description="Input preprocessing.")
    augment: AugmentSettings = Field(AugmentSettings(), description="Data augmentation.")
    head: HeadSettings = Field(HeadSettings(), description="The classification head.")
    decision: DecisionSettings = Field(DecisionSettings(), description="From probabilities to labels.")
    phases: tuple[Phase, ...] = Field(
        (HEAD_PHASE, FINE_TUNE_PHASE), min_length=1, description="The phases of training, in order."
    )

    @field_validator("monitor")
    @classmethod
    def _monitor_exists(cls, name: str) -> str:
        if name != "auto" and name not in _monitors():
            raise ValueError(f"unknown metric; known are {', '.join(_monitors())}")
        return name

    @field_validator("target")
    @classmethod
    def _target_is_a_fraction(cls, target: Mapping[str, float] | None) -> Mapping[str, float] | None:
        known = [name for name in _monitors() if name != "loss"] if target else []
        for name in target or ():
            if name not in known:
                raise ValueError(f"unknown metric {name!r}; known are {', '.join(known)}")
        return target
