"""The prompt: cut out of one template, filled with a row's values, carried as prompt.json."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from tunepress.core.errors import InputError
from tunepress.text.prompt import CHAT_TEMPLATE_DATE, Prompt, fixed_strftime
from tunepress.text.template import column_names, escape, optional_columns, render, split_template, to_text

PHI3 = "<|user|>\n{Question}<|end|>\n<|assistant|>\n{Best Answer}\n<|end|>"


@pytest.mark.parametrize(
    ("template", "completion_column", "prompt", "completion"),
    [
        ("### {phrase}\n{tone}", "tone", "### {phrase}\n", "{tone}"),
        (PHI3, "Best Answer", "<|user|>\n{Question}<|end|>\n<|assistant|>\n", "{Best Answer}\n<|end|>"),
        ("{a}: {b} ({a})", "b", "{a}: ", "{b} ({a})"),
        ("{{{a}}} {b} {{}}", "b", "{{{a}}} ", "{b} {{}}"),
        ("{a.b} {c[0].d}", "c[0].d", "{a.b} ", "{c[0].d}"),
        ("{ a } {b }", "b ", "{ a } ", "{b }"),
        ("{Frage} {Größe 😀}", "Größe 😀", "{Frage} ", "{Größe 😀}"),
        ("{time: utc} {a!b}", "a!b", "{time: utc} ", "{a!b}"),
        ("{a}[[\n{b}]]: {c}[[ ({d})]]", "c", "{a}[[\n{b}]]: ", "{c}[[ ({d})]]"),
    ],
)
def test_a_template_is_cut_where_the_completion_column_begins(
    template: str, completion_column: str, prompt: str, completion: str
) -> None:
    assert split_template(template, completion_column) == (prompt, completion)


def test_a_literal_like_the_completion_column_does_not_split_the_template() -> None:
    assert split_template("Fill in {{tone}} for {phrase}: {tone}", "tone") == ("Fill in {{tone}} for {phrase}: ", "{tone}")


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("no column at all", r"\{tone\}.* exactly once; it contains no column"),
        ("{phrase}", r"\{tone\}.* exactly once; it contains phrase"),
        ("{phrase} {tone} {tone}", r"\{tone\}.* exactly once; it contains phrase, tone, tone"),
        ("{phrase} {{tone}}", r"\{tone\}.* exactly once; it contains phrase"),
        ("Tone: {tone}", r"no column before \{tone\}"),
        ("{tone} of {phrase}", r"no column before \{tone\}"),
        ("{phrase} {tone", "write a literal brace twice"),
        ("{phrase}} {tone}", "write a literal brace twice"),
        ("{phrase} {tone} {", "write a literal brace twice"),
        ("{phrase} {tone!r}", r"\{tone\}.* exactly once; it contains phrase, tone!r"),
        ("{phrase} {tone:>10}", r"\{tone\}.* exactly once; it contains phrase, tone:>10"),
        ("{phrase} {} {tone}", "write a literal brace twice"),
        ("{phrase} [[{tone}]]", r"\{tone\} is the answer, so it cannot be in double brackets"),
        ("[[{phrase} {tone}", r"not closed by \]\]"),
        ("[[{phrase} [[x]] {tone}", r"not closed by \]\]"),
        ("{phrase}]] {tone}", r"\]\] without \[\["),
        ("{phrase} [[x]] {tone}", "needs a column in it"),
    ],
)
def test_a_template_that_cannot_be_cut_is_refused_in_one_line(template: str, complaint: str) -> None:
    with pytest.raises(InputError, match=rf"^data\.text_template: .*{complaint}") as raised:
        split_template(template, "tone")
    assert "\n" not in str(raised.value)


def test_names_in_braces_are_columns_and_never_attributes() -> None:
    row = {"a.b": "dot", "c[0]": "bracket", "two words": "space"}
    assert render("{a.b} {c[0]} {two words}", row) == "dot bracket space"
    assert column_names("{a.b} {c[0]} {two words} {{literal}}") == list(row)


def test_values_with_braces_are_filled_in_as_they_are() -> None:
    prompt = Prompt("{{{text}}} ", "{label}!", None, 10)
    row = {"text": "{label} {{x}} {", "label": 7}
    assert prompt.render_prompt(row) == "{{label} {{x}} {} "
    assert prompt.render_completion(row) == "7!"


@pytest.mark.parametrize("literal", ["{", "}", "{{}}", "a {b} c", "no brace"])
def test_escaped_text_is_shown_as_it_was(literal: str) -> None:
    assert render(escape(literal), {}) == literal
    assert column_names(escape(literal)) == []


def test_a_prompt_needs_only_the_columns_before_the_answer() -> None:
    assert Prompt(*split_template(PHI3, "Best Answer"), None, 10).columns == ["Question"]


@pytest.mark.parametrize("labels", [None, ("joy", "größte Freude 😀")])
def test_what_was_saved_is_loaded(tmp_path: Path, labels: tuple[str, ...] | None) -> None:
    prompt = Prompt("<|user|>\n{Frage }\u2028", "{Antwort}\n{{<|end|>}}", labels, 256, 9)
    prompt.save(tmp_path)
    assert Prompt.load(tmp_path) == prompt


def test_ends_and_date_are_saved_and_an_older_file_has_neither(tmp_path: Path) -> None:
    prompt = Prompt("{a}", "{b}", None, 9, 3, eos_token_ids=(7, 5), chat_template_date="2025-01-31")
    prompt.save(tmp_path)
    assert Prompt.load(tmp_path) == prompt
    fields = json.loads((tmp_path / "prompt.json").read_text(encoding="utf-8"))
    assert (fields.pop("eos_token_ids"), fields.pop("chat_template_date")) == ([7, 5], "2025-01-31")
    (tmp_path / "prompt.json").write_text(json.dumps(fields), encoding="utf-8")
    assert Prompt.load(tmp_path) == Prompt("{a}", "{b}", None, 9, 3)


def test_the_clock_of_chat_templates_has_stopped() -> None:
    assert fixed_strftime(CHAT_TEMPLATE_DATE)("%d %b %Y") == "26 Jul 2024"  # what Llama 3.1's template prints without a clock
    assert fixed_strftime("2025-01-31")("%A, %d %B %Y, %H:%M:%S %Z") == "Friday, 31 January 2025, 00:00:00 "


def test_an_absent_prompt_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"prompt\.json: not found") as raised:
        Prompt.load(tmp_path)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"prompt": "{a}", "completion": "{b}", "labels": null}',
        '{"prompt": "{a}", "completion": "{b}", "labels": null, "source_max_len": 9, "other": 1}',
        '{"prompt": "{a}", "completion": "{b}", "labels": 3, "source_max_len": 9}',
        '{"prompt": "{a}", "completion": "{b}", "labels": null, "source_max_len": 9, "eos_token_ids": 3}',
        '{"prompt": "{a}", "completion": "{b}", "labels": null, "source_max_len": 9, "chat_template_date": "today"}',
        '{"prompt": "{a}", "completion": "{b}", "labels": null, "source_max_len": 9, "chat_template_date": 5}',
        '"text"',
        "\udcff",
    ],
)
def test_a_broken_prompt_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "prompt.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=r"prompt\.json: not a prompt file") as raised:
        Prompt.load(tmp_path)
    assert "\n" not in str(raised.value)


SEVERAL = Prompt("{a}: {b} ", "{c}", None, 256)


def test_a_row_of_json_has_the_text_that_prepare_reads() -> None:
    row = SEVERAL.parse_row('{"a": 1.50, "b": true, "c": [1]}')
    assert row == {"a": "1.50", "b": "true"}
    assert SEVERAL.render_prompt(row) == SEVERAL.render_prompt({"a": "1.50", "b": True}) == "1.50: true "


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": "x", "b": null}', "column 'b' contains null; "),
        ('{"a": "x", "b": [1]}', "column 'b' contains a list; "),
        ('{"a": NaN, "b": ""}', "column 'a' contains NaN; "),
    ],
)
def test_a_value_that_is_not_text_is_rejected(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=f"^{problem}"):
        SEVERAL.parse_row(text)


@pytest.mark.parametrize("text", ['{"a": "x"}', "3", "[]", "x"])
def test_a_row_that_fills_no_template_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r'^this model needs a JSON object \{"a": "...", "b": "..."\}$'):
        SEVERAL.parse_row(text)


def test_a_text_that_utf8_cannot_hold_is_refused() -> None:
    with pytest.raises(InputError, match=r"^the text contains half a surrogate pair \(\\udcff\); "):
        Prompt("{a} ", "{b}", None, 256).parse_row("caf\udcff")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as  it\n is", "as  it\n is"),
        ("\U0001f600", "\U0001f600"),
        (b"gr\xc3\xbc\xc3\x9fe", "grüße"),
        (10**400, f"1{'0' * 400}"),
        (-0.5, "-0.5"),
        (1e300, "1e+300"),
        (True, "true"),
        (False, "false"),
        (Decimal("19.90"), "19.90"),
    ],
)
def test_a_value_is_filled_in_as_its_text(value: object, text: str) -> None:
    assert to_text(value) == render("{a}", {"a": value}) == text


@pytest.mark.parametrize("empty", [None, "", " \n"])
def test_a_part_in_double_brackets_is_left_out_where_its_column_is_empty(empty: str | None) -> None:
    template = "{instruction}[[\n### Input: {input}]]\n"
    assert render(template, {"instruction": "Add", "input": "1 2"}) == "Add\n### Input: 1 2\n"
    assert render(template, {"instruction": "Add", "input": empty}) == render(template, {"instruction": "Add"}) == "Add\n"
    assert optional_columns(template) == {"input"}
    assert optional_columns("{input}" + template) == set()


def test_white_space_around_a_value_is_not_in_the_text() -> None:
    assert render("{a}|{b}", {"a": " x\n", "b": "\ty z "}) == "x|y z"


@pytest.mark.parametrize("value", [None, [], {}, b"\xff", "\ud83d", float("nan"), float("inf"), Decimal("NaN"), object()])
def test_a_value_without_a_text_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"; (write|fill|join|store) "):
        to_text(value)
