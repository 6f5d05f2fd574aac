"""Examples: the rows a reader is shown, and what of them."""

import pytest

from stages.report.examples import COUNT, LONGEST, changed, columns_of, right, shown, text_of, wrong
from tunepress.text.prompt import Prompt

LABELS = ("joy", "fear")
ONE = Prompt("Text: {phrase}\nTone: ", "{tone}", LABELS, 100, 4)
TWO = Prompt("{Question} ({First Name})\n{{x}}", "{a}", None, 100, 4)


def row(number: int, expected: str, predicted: str, confidence: float, top_label: str | None = None) -> dict[str, str]:
    named = {"source": f"row {number}", "prompt": f"Text: number {number}\nTone: ", "expected": expected, "predicted": predicted}
    return named | {"top_label": top_label or predicted, "confidence": f"{confidence:.4f}"}


@pytest.mark.parametrize(
    "values",
    [
        {"Question": "Who?", "First Name": "Zoë"},
        {"Question": "Two\nlines (with brackets) .*", "First Name": ""},
        {"Question": "a (b)\n{x} (c", "First Name": "d)\n{x}"},
    ],
)
def test_the_columns_of_a_prompt_give_that_prompt_again(values: dict[str, str]) -> None:
    rendered = TWO.render_prompt(values)
    columns = columns_of(rendered, TWO)
    assert list(columns) == ["Question", "First Name"]
    assert TWO.render_prompt(columns) == rendered


def test_a_text_stands_without_its_template() -> None:
    assert text_of("Text: What a day!\nTone: ", ONE) == "What a day!"
    assert text_of("Who? (Zoë)\n{x}", TWO) == "Question: Who?\nFirst Name: Zoë"
    assert text_of("of another template", ONE) == "of another template"


def test_right_answers_to_every_label_come_first() -> None:
    rows = [row(number, "joy", "joy", 0.9) for number in range(9)] + [row(9, "fear", "fear", 0.8), row(10, "fear", "joy", 0.7)]
    examples = right(rows, ONE)
    assert [example.source for example in examples] == ["row 0", "row 9", "row 1", "row 2", "row 3", "row 4"]
    assert examples[1].answers == {"onnx": "fear (0.80)"}


def test_the_surest_mistakes_come_first_and_a_confidence_is_that_of_the_label_said() -> None:
    unlikely = row(3, "joy", "(invalid)", 0.99, top_label="joy")
    examples = wrong([row(0, "joy", "fear", 0.5), row(1, "joy", "joy", 0.9), row(2, "fear", "joy", 0.8), unlikely], ONE)
    assert [example.source for example in examples] == ["row 2", "row 0", "row 3"]
    assert examples[2].answers == {"onnx": "(invalid)"}


def test_changed_rows_show_both_answers_and_no_more_than_fit() -> None:
    rows = [{"source": "s", "prompt": "Text: a\nTone: ", "expected": "joy", "merged": "joy", "onnx": "fear"}] * (COUNT + 1)
    examples = changed(rows, ONE)
    assert len(examples) == COUNT
    assert examples[0].answers == {"merged": "joy", "onnx": "fear"}


def test_a_long_text_is_cut() -> None:
    assert len(shown("word " * LONGEST)) <= LONGEST
    assert shown("word " * LONGEST).endswith("word …")
    assert shown(" short ") == "short"
