import pytest

from thaw.reports.model_card import markdown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("scratch", "scratch"),
        ("surface_crack", "surface_crack"),
        ("97.2% (95.1% to 98.5%)", "97.2% (95.1% to 98.5%)"),
        ("x|y", r"x\|y"),
        ("<b>", r"\<b>"),
        ("a&lt;b", r"a\&lt;b"),
        ("*ok*", r"\*ok\*"),
        ("_ok_", r"\_ok\_"),
        ("[ok](url)", r"\[ok\](url)"),
        ("back\\slash", r"back\\slash"),
        ("two\nlines", "two lines"),
    ],
)
def test_markdown_shows_a_class_name_as_it_is(text: str, shown: str) -> None:
    assert markdown(text) == shown
