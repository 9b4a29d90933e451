import pytest

from thaw.cli.parsing import parsed, parsed_items, parsed_seconds, parsed_settings
from thaw.errors import RecipeError
from thaw.recipe import Recipe


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("phases.1.lr", "1e-5", 1e-5),
        ("head.hidden", "[256, 64]", [256, 64]),
        ("phases.0.patience", "null", None),
        ("backbone", "resnet50", "resnet50"),
        ("split.group_by", "[a-z]+", "[a-z]+"),
        ("split.group_by", "12", "12"),
        ("split.group_by", "none", "none"),
        ("candidates", "starter, resnet50=a.safetensors", {"starter": "published", "resnet50": "a.safetensors"}),
        ("loggers", "none", []),
        ("loggers", "mlflow,wandb", ["mlflow", "wandb"]),
        ("target", "accuracy=0.97", {"accuracy": 0.97}),
        ("decision.recall", "crack=0.99,pits=0.9", {"crack": 0.99, "pits": 0.9}),
        ("decision.recall", "{'a=b, c': 0.99}", {"a=b, c": 0.99}),
        ("decision.recall", "=1+1=0.5", {"=1+1": 0.5}),
        ("decision.recall", "q\"u,o'te=0.5", {"q\"u,o'te": 0.5}),
        ("decision.recall", "a, b = c = .5 , d=1", {"a, b = c": 0.5, "d": 1.0}),
        ("decision.recall", "{x}=1e-1", {"{x}": 0.1}),
        ("decision.costs", "a,b>c=d=50", {"a,b": {"c=d": 50.0}}),
        ("decision.costs", "crack>ok=50", {"crack": {"ok": 50.0}}),
        ("decision.costs", "{'a>b': {ok: 5}}", {"a>b": {"ok": 5}}),
    ],
)
def test_text_becomes_the_value_that_it_means(key: str, text: str, value: object) -> None:
    assert parsed(key, text) == value


@pytest.mark.parametrize("text", ["scratch", "scratch=most", "ok=0.9,pits=", "{ok", "0.9", "ok=99%", "null", "[ok]"])
def test_a_requirement_that_cannot_be_read_is_one_sentence_that_shows_the_form(text: str) -> None:
    with pytest.raises(RecipeError, match=r"decision.recall: .* is not (NAME=NUMBER|a mapping)") as caught:
        parsed_items("decision.recall", [text])
    assert "\n" not in str(caught.value)


def test_a_repeated_option_is_one_mapping() -> None:
    assert parsed_items("decision.costs", ["crack>ok=50", "crack>pits=5", "ok>crack=2"]) == {
        "crack": {"ok": 50.0, "pits": 5.0},
        "ok": {"crack": 2.0},
    }


@pytest.mark.parametrize(
    ("assignment", "says"),
    [
        ("phases.1.lr", "write it as KEY=VALUE"),
        ("seed={", "seed"),
        ("seed=0x_", "seed: .*valid integer"),
        ("seed=", "seed: has no value; null is none"),
        ("weights={a: 1, a: 2}", "weights: .* cannot be read as a value: 'a' is there twice"),
        ("target={accuracy: 2024-02-30}", "target"),
        ("target=accuracy", "target"),
        ("target=accuracy=97", "target.accuracy"),
        ("decision.recall=scratch", "decision.recall"),
        ("decision.costs=ok=3", "decision.costs"),
    ],
)
def test_text_that_means_nothing_is_one_sentence(assignment: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Recipe().with_settings(parsed_settings([assignment]))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("90", 90), ("30m", 1800), ("1h30m", 5400), ("0.5h", 1800), ("1h1m1s", 3661)]
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parsed_seconds("--time", text) == seconds


@pytest.mark.parametrize("text", ["", "m", "1d", "-5m", "5 minutes", "1m1h", "1h30", "1:30", "inf", "٣m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="write it as 90s, 30m or 1h30m"):
        parsed_seconds("--time", text)


@pytest.mark.parametrize(("text", "seconds"), [("10m", 600), ("90", 90), ("null", None)])
def test_the_time_of_a_run_is_a_duration(text: str, seconds: float | None) -> None:
    assert Recipe().with_settings(parsed_settings([f"time_limit={text}"])).time_limit == seconds


@pytest.mark.parametrize("text", ["0", "1:30", "inf", "", "true", "9" * 400])
def test_what_is_no_time_of_a_run_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="time_limit"):
        Recipe().with_settings(parsed_settings([f"time_limit={text}"]))
