"""evaluate.retained: texts and questions of other subjects, against a model whose probabilities are known."""

import json
from pathlib import Path

import pytest

from stages.evaluate import retained as evaluate
from tests.tunepress.inference.test_scoring import Dice
from tunepress.core.errors import InputError


@pytest.fixture
def model() -> Dice:
    return Dice({"a": 0.5, "b": 0.25, " ": 0.125, "\0": 0.125})


def test_the_perplexity_of_a_text_is_that_of_all_tokens_after_the_first_of_each_paragraph(model: Dice, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("b" * 8 + "aaaa\n\n" + "a" * 8 + "bbbb\n\nshort\n", encoding="utf-8")
    # four tokens of 0.5 and four of 0.25: the geometric mean is 2 ** -1.5
    assert evaluate.retained(model, tmp_path) == {"text": {"perplexity": pytest.approx(2**1.5, abs=1e-4), "tokens": 8}}


def test_a_long_paragraph_is_cut(model: Dice, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a" * 2000, encoding="utf-8")
    assert evaluate.retained(model, tmp_path)["text"]["tokens"] == evaluate.WINDOW - evaluate.FIRST_TOKENS


def choices(folder: Path, *rows: object) -> Path:
    file = folder / "choices.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_a_question_is_right_if_the_right_choice_is_likeliest_per_character(model: Dice, tmp_path: Path) -> None:
    # " aaa": 0.125 · 0.5³ over three characters; " b": 0.125 · 0.25 over one, which is less likely for each of them
    choices(
        tmp_path,
        {"prompt": "?", "choices": ["b", "aaa"], "answer": 1},
        {"prompt": "?", "choices": ["aaa", "b"], "answer": 0},
        {"prompt": "?", "choices": ["aaa", "b"], "answer": 1},
    )
    assert evaluate.retained(model, tmp_path) == {"choices": {"accuracy": 0.6667, "rows": 3}}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "?", "choices": ["a", "b"], "answer": 2}, "needs prompt, choices, and answer"),
        ({"prompt": "?", "choices": "ab", "answer": 0}, "needs prompt, choices, and answer"),
        ({"choices": ["a", "b"], "answer": 0}, "needs prompt, choices, and answer"),
        ({"prompt": "?", "choices": ["a"], "answer": 0}, "has 1 choices, and row 1 has 2"),
    ],
)
def test_a_wrong_question_is_refused_with_its_row(row: object, message: str, model: Dice, tmp_path: Path) -> None:
    choices(tmp_path, {"prompt": "?", "choices": ["a", "b"], "answer": 0}, row)
    with pytest.raises(InputError, match=rf"choices\.jsonl row 2: {message}"):
        evaluate.retained(model, tmp_path)


def test_a_folder_without_texts_and_a_text_without_paragraphs_are_refused(model: Dice, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"evaluate\.retained: .* has no \.txt or \.jsonl file"):
        evaluate.retained(model, tmp_path)
    (tmp_path / "text.txt").write_text("a\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"text\.txt: has no paragraph of more than 8 tokens"):
        evaluate.retained(model, tmp_path)


def test_the_questions_of_the_project_have_one_right_choice_at_changing_places(root: Path) -> None:
    rows = [json.loads(line) for line in (root / "data/retained/choices.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len({row["prompt"] for row in rows}) == 100
    assert all(len(set(row["choices"])) == 4 for row in rows)
    assert {row["answer"] for row in rows} == {0, 1, 2, 3}
