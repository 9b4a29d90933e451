import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thaw.data.class_names import normalised, unify
from thaw.errors import DataError

COMPOSED = unicodedata.normalize("NFC", "fissuré")
DECOMPOSED = unicodedata.normalize("NFD", "fissuré")


def places(*spellings: str) -> dict[str, str]:
    return {text: f"labels.csv: row {number}" for number, text in enumerate(spellings, start=2)}


def test_two_unicode_forms_of_a_name_are_one_class_and_it_is_said() -> None:
    names = unify(places(COMPOSED, DECOMPOSED))
    assert set(names.class_of.values()) == {COMPOSED}
    assert names.notes == (f"labels.csv: row 3: the label {COMPOSED!r} is read as class {COMPOSED}",)


def test_one_unicode_form_alone_needs_no_remark() -> None:
    assert unify(places(DECOMPOSED, "ok")).notes == ()


def test_blanks_at_the_ends_are_no_part_of_a_name_and_are_shown_in_quotes() -> None:
    names = unify(places("crack", "crack "))
    assert set(names.class_of.values()) == {"crack"}
    assert names.notes == ("labels.csv: row 3: the label 'crack ' is read as class crack",)


@pytest.mark.parametrize(("one", "other"), [("Crack", "crack"), ("STRASSE", "Straße"), ("Über", "u\u0308ber")])
def test_classes_that_differ_only_in_case_are_refused_with_both_places(one: str, other: str) -> None:
    with pytest.raises(DataError, match=r"row 3: the classes .* differ only in case \(see labels.csv: row 2\)"):
        unify(places(one, other))


def test_single_letters_are_classes_of_their_own_in_each_case() -> None:
    assert unify(places("a", "A")).class_of == {"a": "a", "A": "A"}


@pytest.mark.parametrize("other", ["crack\u200b", "\ufeffcrack", "cra\u00adck"])
def test_classes_that_differ_only_in_invisible_characters_are_refused(other: str) -> None:
    with pytest.raises(DataError, match="cannot be seen") as caught:
        unify(places("crack", other))
    assert ascii(other)[1:-1] in str(caught.value)


def test_kinds_of_blank_do_not_make_two_classes() -> None:
    with pytest.raises(DataError, match="cannot be seen"):
        unify(places("deep crack", "deep\u00a0crack"))


@pytest.mark.parametrize("text", ["deep\ncrack", "deep\rcrack", "a\x00b", "a\x85b", "a\u2028b", "a\tb", "a\x1bb"])
def test_control_characters_are_refused_and_shown_as_escapes(text: str) -> None:
    with pytest.raises(DataError, match=r"row 2: the class name .* contains a") as caught:
        unify(places(text))
    assert "\\" in str(caught.value) and text not in str(caught.value)


def test_classes_of_a_classifier_keep_their_spelling() -> None:
    names = unify(places(COMPOSED, "crack"), given=(DECOMPOSED, "crack "))
    assert names.class_of == {COMPOSED: DECOMPOSED, "crack": "crack "}


def test_classes_that_a_classifier_already_tells_apart_stay_apart() -> None:
    assert unify(places("Crack", "crack"), given=("crack", "Crack")).class_of == {"Crack": "Crack", "crack": "crack"}
    with pytest.raises(DataError, match="CRACK and crack differ only in case"):
        unify(places("CRACK"), given=("crack", "ok"))


@given(text=st.text(max_size=8))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@given(text=st.text(alphabet=st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8))
def test_every_unicode_form_of_a_visible_name_is_one_class(text: str) -> None:
    forms = {text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)}
    assert len(set(unify(places(*sorted(forms))).class_of.values())) == 1
