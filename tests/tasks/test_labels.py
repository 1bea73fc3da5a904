import pytest

from instaner.errors import InstaNERError
from instaner.tasks.labels import check_labels


@pytest.mark.parametrize(
    "label",
    [
        "DISH",
        "Viewers' Rating",
        "R&D",
        "C++",
        "食べ物",
        "km/h",
        "a_b",
        "B.1",
        "पौधा",
        "செடி",
        "ต้นไม้",
        "می‌خواهم",
        "cafe\u0301",
    ],
)
def test_label_that_a_prompt_can_carry_is_fine(label: str) -> None:
    assert check_labels({label: "A thing."}) == []


@pytest.mark.parametrize(
    "label",
    [
        "",
        " A",
        "A ",
        "A|B",
        "A,B",
        "[A]",
        "(A)",
        "A\nB",
        "A:B",
        "A{B}",
        "A=B",
        "\u0301",
    ],
)
def test_label_that_a_prompt_cannot_carry_is_named(label: str) -> None:
    with pytest.raises(InstaNERError, match="has characters that a prompt cannot"):
        check_labels({label: "A thing."})


def test_long_label_is_named() -> None:
    with pytest.raises(InstaNERError, match="is longer than 60 characters"):
        check_labels({"A" * 61: "A thing."})


@pytest.mark.parametrize("other", ["dish name", "DISH_NAME", "Dish-Name"])
def test_labels_that_answers_do_not_tell_apart_are_named(other: str) -> None:
    with pytest.raises(InstaNERError, match="are one and the same"):
        check_labels({"DISH NAME": "A thing.", other: "Another."})


def test_composed_and_decomposed_label_are_one() -> None:
    with pytest.raises(InstaNERError, match="are one and the same"):
        check_labels({"caf\u00e9": "A thing.", "cafe\u0301": "Another."})


def test_near_duplicate_is_warned_of() -> None:
    (warning,) = check_labels({"PERSON": "One.", "PERSONS": "Many."})
    assert '"person"' not in warning
    assert '"PERSON" and "PERSONS" are nearly the same' in warning


def test_missing_definition_is_warned_of() -> None:
    (warning,) = check_labels({"DISH": " "})
    assert 'Label "DISH" has no definition' in warning


def test_definition_that_is_no_text_is_named() -> None:
    with pytest.raises(InstaNERError, match="both have to be text"):
        check_labels({"DISH": None})  # type: ignore[dict-item]
