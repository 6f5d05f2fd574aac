"""Metrics of answers, against cases computed by hand."""

import pytest

from tunepress.inference.metrics import (
    answer_metrics,
    classification_metrics,
    comparable,
    differences,
    generation_metrics,
    holm,
    mcnemar,
    tool_call_metrics,
    wilson_interval,
)
from tunepress.text.labels import INVALID
from tunepress.text.prompt import Prompt

TONES = ["joy", "sadness", "fear"]


def test_figures_of_a_classifier_are_those_worked_out_by_hand() -> None:
    expected = ["joy", "joy", "joy", "joy", "sadness", "sadness", "sadness", "fear", "fear", "fear"]
    answered = ["joy", "joy", "joy", INVALID, "sadness", "sadness", "joy", "fear", "sadness", INVALID]
    # joy: 3 of 4 said, 3 of 4 found; sadness: 2 of 3, 2 of 3; fear: 1 of 1, 1 of 3
    # macro F1 = (3/4 + 2/3 + 1/2) / 3; Wilson, z = 1.959964: (0.6 + z²/20 ± z·sqrt(0.024 + z²/400)) / (1 + z²/10)
    assert classification_metrics(expected, answered, TONES, 0.95) == {
        "rows": 10,
        "accuracy": 0.6,
        "accuracy_low": 0.3127,
        "accuracy_high": 0.8318,
        "confidence_level": 0.95,
        "macro_f1": 0.6389,
        "invalid_rate": 0.2,
        "per_class": {
            "joy": {"precision": 0.75, "recall": 0.75, "f1": 0.75, "rows": 4},
            "sadness": {"precision": 0.6667, "recall": 0.6667, "f1": 0.6667, "rows": 3},
            "fear": {"precision": 1.0, "recall": 0.3333, "f1": 0.5, "rows": 3},
        },
    }


def test_a_label_that_no_row_has_counts_as_zero_in_macro_f1() -> None:
    metrics = classification_metrics(["joy", "sadness"], ["joy", "sadness"], TONES, 0.95)
    assert metrics["accuracy"] == 1.0
    assert metrics["macro_f1"] == 0.6667
    assert metrics["per_class"]["fear"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 0}


def test_answers_without_a_label_are_all_wrong() -> None:
    metrics = classification_metrics(TONES, [INVALID] * 3, TONES, 0.95)
    assert (metrics["accuracy"], metrics["macro_f1"], metrics["invalid_rate"]) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("hits", "rows", "level", "low", "high"),
    [
        (0, 10, 0.95, 0.0, 0.2775),  # z²/(n + z²)
        (10, 10, 0.95, 0.7225, 1.0),  # n/(n + z²)
        (50, 100, 0.95, 0.4038, 0.5962),
        (50, 100, 0.9, 0.4188, 0.5812),
    ],
)
def test_the_interval_is_wilsons(hits: int, rows: int, level: float, low: float, high: float) -> None:
    assert wilson_interval(hits, rows, level, "share") == {"share_low": low, "share_high": high, "confidence_level": level}


def test_figures_of_free_answers_are_those_worked_out_by_hand() -> None:
    expected = ["the cat sat", "one two three four", "yes", "Paris"]
    answered = [" the  cat\nsat ", "one three five", "no", "paris"]
    # ROUGE-L ignores case, exact_match does not: 1, 2·(2/3)·(2/4)/(2/3 + 2/4) = 4/7, 0, 1
    assert generation_metrics(expected, answered, 0.95) == {
        "rows": 4,
        "exact_match": 0.25,
        "exact_match_low": 0.0456,
        "exact_match_high": 0.6994,
        "confidence_level": 0.95,
        "token_f1": 0.6429,
        "rouge_l": 0.6429,
    }


def test_single_words_count_in_any_order_and_as_often_as_they_come() -> None:
    metrics = generation_metrics(["red green blue blue"], ["blue red"], 0.95)
    # words: 2 of 2 and 2 of 4, so 2·1·0.5 / 1.5; in their order only one is common, 2·0.5·0.25 / 0.75
    assert (metrics["token_f1"], metrics["rouge_l"]) == (0.6667, 0.3333)


def test_words_of_any_script_count() -> None:
    metrics = generation_metrics(["Größe und Länge", "雨が 降る"], ["größe und länge", "雨が 止む"], 0.95)
    assert (metrics["token_f1"], metrics["rouge_l"]) == (0.75, 0.75)


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [
        ("1111", "1111", 1.0),
        ("1110", "0001", 0.625),  # 3 to 1: 2 · (1 + 4) / 16
        ("111111", "000000", 0.0312),  # 6 to 0: 2 / 64
        ("1100", "0011", 1.0),
    ],
)
def test_the_paired_test_counts_only_rows_that_one_alone_has_right(first: str, second: str, p_value: float) -> None:
    result = mcnemar([right == "1" for right in first], [right == "1" for right in second])
    pairs = list(zip(first, second, strict=True))
    assert result["only_first_right"] == pairs.count(("1", "0"))
    assert result["only_second_right"] == pairs.count(("0", "1"))
    assert result["p_value"] == pytest.approx(p_value, abs=1e-4)


def test_as_many_answers_as_rows_are_needed() -> None:
    with pytest.raises(ValueError, match="shorter"):
        classification_metrics(["joy", "fear"], ["joy"], TONES, 0.95)
    with pytest.raises(ValueError, match="shorter"):
        generation_metrics(["joy", "fear"], ["joy"], 0.95)


def call(name: str, arguments: str) -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'


def test_metrics_of_calls_are_those_computed_by_hand() -> None:
    slot = call("slot", '{"day": "Monday", "people": 1}')
    pairs = [
        (slot, slot),
        (slot, '{"arguments": {"people": 1.0, "day": "Monday"}, "name": "slot"}'),  # other keys first, and no block
        (slot, f"I look for it.\n{slot}"),
        (slot, call("slot", '{"day": "Monday", "people": "1"}')),  # the name only
        (slot, call("slot", '{"day": "Monday", "people": true}')),  # the name only
        (slot, call("slot", '{"day": "Monday"}')),  # the name only
        (slot, call("status", '{"day": "Monday", "people": 1}')),
        (slot, f"{slot}{slot}"),
        (slot, f"{slot}<tool_call>{{"),
        (slot, slot[:-20]),
        (slot, "Monday is free."),
        (slot + slot, slot),
        ("Monday is free.", slot),  # does not count
    ]
    expected, answers = map(list, zip(*pairs, strict=True))
    metrics = {"tool_calls": 12, "tool_call_accuracy": 0.25, "tool_name_accuracy": 0.5}
    assert tool_call_metrics(expected, answers) == metrics
    assert generation_metrics(expected, answers, 0.95).items() >= metrics.items()


def test_two_calls_are_compared_in_their_order() -> None:
    first, second = call("a", "{}"), call("b", "{}")
    metrics = tool_call_metrics([first + second] * 2, [f"{first}\n{second}", second + first])
    assert metrics == {"tool_calls": 2, "tool_call_accuracy": 0.5, "tool_name_accuracy": 0.5}


@pytest.mark.parametrize("expected", ["Monday is free.", "<tool_call>broken", '{"name": "Anna"}'])
def test_answers_without_an_expected_call_have_no_metrics_of_calls(expected: str) -> None:
    assert tool_call_metrics([expected], [call("a", "{}")]) == {}
    assert not {key for key in generation_metrics([expected], ["a"], 0.95) if key.startswith("tool")}


def test_holm_multiplies_a_p_value_by_the_number_of_those_that_are_not_smaller() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # Holm's own way, never decreasing
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_models_are_compared_on_the_same_rows_only() -> None:
    def predictions(wrong: int, expected: str = "joy") -> list[dict[str, str]]:
        return [
            {"source": f"row {number}", "expected": expected, "predicted": "no" if number < wrong else expected}
            for number in range(20)
        ]

    p_values = differences(predictions(0), [predictions(12), predictions(1), predictions(12, "fear"), []])
    assert p_values == [pytest.approx(0.001), 1.0, None, None]


def test_json_is_compared_by_its_values_and_field_by_field() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n", "who"]}
    prompt = Prompt("{a}", "{b}", None, source_max_len=9, json_schema=schema)
    expected = ['{"n": 1, "who": {"name": "A"}}', '{"n": 2, "who": {"name": "B"}}', '{"n": 3, "who": {"name": "C"}}']
    answers = ['{"who":{"name":"A"},"n":1.0}', '{"n": 2, "who": {"name": "X"}, "more": 1}', "three of C"]
    expected, predicted = ([comparable(text, prompt) for text in texts] for texts in (expected, answers))
    metrics = answer_metrics(expected, predicted, prompt, 0.95)
    assert metrics["exact_match"] == 0.3333
    assert metrics["schema_valid_rate"] == 0.6667
    assert metrics["fields"] == {"/n": 0.6667, "/who/name": 0.3333}
    assert metrics["field_accuracy"] == 0.5


def test_an_answer_is_compared_as_its_label_or_without_white_space_around_it() -> None:
    assert comparable(" Joy!", Prompt("{a}", "{b}", ("joy", "fear"), source_max_len=9)) == "joy"
    assert comparable(" Joy! ", Prompt("{a}", "{b}", None, source_max_len=9)) == "Joy!"
