"""The recipe: every choice of one run.

A `Recipe` is frozen. `"auto"` (or null, where the help says so) leaves the choice to the plan, which gives its reason;
a `ResolvedRecipe` has no such value.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ModelWrapValidatorHandler, ValidationError, ValidationInfo, field_validator, model_validator

from thaw.errors import RecipeError
from thaw.recipe.planned_phases import refuse_planned, with_planned
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
from thaw.recipe.upgrade import upgraded
from thaw.settings import Section, assign, explain, flatten, only_set, value_at
from thaw.yaml_text import read_yaml, write_yaml

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


_LISTS = {"phases": Phase}

_OF_CHOICE: Mapping[str, Any] = {"candidates": {}, "max_latency_ms": None, "max_size_mb": None}
"""Settings of the choice of a backbone by `auto`, and the values without effect."""


def _monitors() -> tuple[str, ...]:
    """Metrics that can be monitored; imported when first needed, because NumPy would slow down every command."""
    from thaw.metrics import MONITORS

    return tuple(MONITORS)


class Recipe(Section):
    """Every choice of one run.

    Takes its settings as a recipe file has them, also those of earlier releases and in the short forms of the command
    line. Raises `RecipeError`, with one line per wrong key.
    """

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

    @model_validator(mode="before")
    @classmethod
    def _named_phases_are_kept(cls, values: Any) -> Any:
        """Phases that a recipe names are not replaced by the plan, unless it names a strategy as well."""
        if isinstance(values, dict) and "phases" in values and "strategy" not in values:
            return {**values, "strategy": "manual"}
        return values

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

    @field_validator("phase_settings")
    @classmethod
    def _settings_are_those_of_phases(cls, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Checked on the phases that a recipe plans from, and with the values that these get."""
        planned = _planned_phases(settings, HeadSettings())
        return {key: value_at(planned, key) for key in settings}

    @model_validator(mode="after")
    def _settings_are_of_planned_phases(self) -> Recipe:
        if self.phase_settings and self.strategy == "manual":
            keys = ", ".join(self.phase_settings)
            raise ValueError(
                f"phase_settings: strategy manual plans no phases that {keys} could change; change the phases of the "
                "recipe instead, or choose another strategy"
            )
        if self.phase_settings and self.head != HeadSettings():
            # With this head, for which a phase may be solved or not.
            _planned_phases(self.phase_settings, self.head)
        return self

    @model_validator(mode="after")
    def _phases_have_distinct_names(self) -> Recipe:
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"two phases share a name: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _only_a_linear_head_can_be_solved(self) -> Recipe:
        for phase in self.phases:
            if phase.solver == "lbfgs" and not self.can_solve(phase):
                raise ValueError(
                    f"phase {phase.name}: solver lbfgs needs cut head, no hidden layers in the head, and mixup 0"
                )
        return self

    # The last one, so that it is around the others.
    @model_validator(mode="wrap")
    @classmethod
    def _upgraded_and_explained(
        cls, values: Any, validate: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        where = (info.context or {}).get("where", "recipe: ")
        try:
            return validate(upgraded(values) if isinstance(values, Mapping) else values)
        except ValidationError as error:
            raise RecipeError("\n".join(f"{where}{line}" for line in explain(error, cls, _LISTS))) from error

    @property
    def cache_bytes(self) -> int | None:
        """Disk space for cached features in bytes; `None` as long as it is not decided."""
        return None if self.cache_gb is None else int(self.cache_gb * (1 << 30))

    def can_solve(self, phase: Phase) -> bool:
        """Whether a phase trains only a linear head on unmixed features, so that L-BFGS can fit it at once."""
        return phase.cut == "head" and not self.head.hidden and phase.mixup == 0

    @classmethod
    def load(cls, file: str | Path) -> Self:
        """Read a recipe from YAML; raises `RecipeError` that names the file and the key."""
        try:
            values = read_yaml(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise RecipeError(f"{file}: cannot be read as a YAML recipe: {error}") from error
        if values is not None and not isinstance(values, dict):
            raise RecipeError(f"{file}: a recipe is a table of `key: value` lines, this is a {type(values).__name__}")
        return cls.from_values(values or {}, where=str(file))

    @classmethod
    def from_values(cls, values: Mapping[str, Any], where: str = "recipe") -> Self:
        """Check plain values, also those of earlier releases; raises `RecipeError` with one line per wrong key."""
        return cls.model_validate(values, context={"where": f"{where}: "})

    def with_settings(self, settings: Mapping[str, Any]) -> Recipe:
        """A copy with dotted keys changed, for example `{"phases.1.lr": 1e-5}`; raises `RecipeError`.

        Settings of phases that a strategy will plan are kept in `phase_settings`. What was not set stays so, which
        counts where a section is used alone, as `thaw.decide` uses `decision`.
        """
        values = self.model_dump(mode="json")
        strategy = settings.get("strategy", self.strategy)
        of_phases = {key: value for key, value in settings.items() if key.partition(".")[0] == "phases"}
        if of_phases and strategy == "auto" and "strategy" not in settings and not self.phase_settings:
            strategy = "manual"
            refuse_planned(of_phases, len(self.phases))
        if of_phases and strategy != "manual":
            if "phases" in of_phases:
                raise self.model_copy(update={"strategy": strategy}).phases_are_replaced("phases")
            others = {key: value for key, value in settings.items() if key not in of_phases}
            settings = {"phase_settings": {**self.phase_settings, **of_phases}, **others}
        changed = {**settings, "strategy": strategy}
        for key, value in changed.items():
            assign(values, key, value)
        return Recipe.from_values(only_set(values, self, changed))

    def check_strategy(self) -> None:
        """Raise `RecipeError` where the recipe names phases, and a strategy that would plan others instead."""
        if self.strategy == "manual":
            return
        planned = self.model_copy(update={"phases": (HEAD_PHASE, FINE_TUNE_PHASE)})
        if differences := planned.differences(self):
            raise self.phases_are_replaced(differences[0].partition(":")[0])

    def check_choice(self, given: Collection[str] = ()) -> None:
        """Raise `RecipeError` where settings are for a choice of backbone that this recipe leaves out.

        The recipe of a run has them next to the backbone that its plan has chosen, so with a backbone that is named
        only those count that were `given` with it, by dotted key.
        """
        sections = {key.partition(".")[0] for key in given}
        if self.backbone == "auto":
            return
        for key, default in _OF_CHOICE.items():
            is_ignored = getattr(self, key) != default and (self.backbone == DEFAULT_BACKBONE or key in sections)
            if is_ignored:
                raise RecipeError(f"{key}: is for backbone auto; add --backbone auto, or omit it")

    def phases_are_replaced(self, key: str) -> RecipeError:
        """The error for phases that the strategy of this recipe would replace."""
        plan = "thaw plan DATA" if self.strategy == "auto" else f"thaw plan DATA --strategy {self.strategy}"
        return RecipeError(
            f"{key}: strategy {self.strategy} plans the phases itself and would not keep this; omit the strategy, or "
            f"write its phases with `{plan} --out recipe.yaml` and change them there"
        )

    def to_yaml(self) -> str:
        """The whole recipe as YAML that `load` reads back to an equal recipe."""
        return write_yaml(self.model_dump(mode="json"))

    def differences(self, other: Recipe) -> list[str]:
        """One line `key: this -> that` for each setting in which two recipes differ."""
        mine, theirs = dict(flatten(self.model_dump(mode="json"))), dict(flatten(other.model_dump(mode="json")))
        keys = [*mine, *(key for key in theirs if key not in mine)]
        absent = "(absent)"
        return [
            f"{key}: {mine.get(key, absent)} -> {theirs.get(key, absent)}"
            for key in keys
            if mine.get(key, absent) != theirs.get(key, absent)
        ]


def _planned_phases(settings: Mapping[str, Any], head: HeadSettings) -> Recipe:
    """A recipe with a head and phases that have the settings of planned ones; raises `ValueError`."""
    try:
        values = {"phases": with_planned((HEAD_PHASE, FINE_TUNE_PHASE), settings), "head": head}
        return Recipe.model_validate(values, context={"where": ""})
    except RecipeError as error:
        raise ValueError("; ".join(str(error).splitlines())) from error
