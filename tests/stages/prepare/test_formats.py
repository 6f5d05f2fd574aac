"""Formats: each is detected from its columns, and its rows become the same conversation."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from stages.prepare.formats import ConversationRows, TemplateRows, detect, row_format
from stages.prepare.rows import Row, read_files
from tests.stages.params import data_of
from tests.stages.prepare.test_conversations import CHATML, FAMILIES, encoder_of
from tunepress.config.data import Data, Format
from tunepress.core.errors import InputError
from tunepress.text.segments import Segment
from tunepress.text.tokenizer import Encoder

QUESTION, ANSWER = "Where is my order?", "It is in the van."
CONVERSATION = [
    {"text": f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n", "train": False},
    {"text": f"{ANSWER}<|im_end|>", "train": True, "expected": ANSWER},
]
MESSAGES = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
SHAREGPT = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]

ROWS: dict[Format, dict[str, Any]] = {
    Format.messages: {"messages": MESSAGES},
    Format.sharegpt: {"conversations": SHAREGPT},
    Format.alpaca: {"instruction": QUESTION, "input": None, "output": ANSWER},
    Format.prompt_completion: {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]},
}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return encoder_of(FAMILIES["chatml"])


def segments_of(values: dict[str, Any], encoder: Encoder, **settings: Any) -> list[Segment]:
    row = Row("here", values)
    _, rows = row_format(row, data_of(**settings), encoder)
    return rows.segments(row)


@pytest.mark.parametrize("format", ROWS, ids=lambda format: format.value)
@pytest.mark.parametrize("named", [False, True])
def test_each_format_is_found_and_gives_the_same_conversation(format: Format, named: bool, encoder: Encoder) -> None:
    data = data_of(format=format) if named else data_of()
    assert detect(Row("here", ROWS[format]), data) is format
    assert segments_of(ROWS[format], encoder, format=format if named else None) == CONVERSATION


@pytest.mark.parametrize("format", ROWS, ids=lambda format: format.value)
def test_json_in_a_cell_is_read(format: Format, encoder: Encoder) -> None:
    cells = {name: value if isinstance(value, str | None) else json.dumps(value) for name, value in ROWS[format].items()}
    assert segments_of(cells, encoder) == CONVERSATION


def test_a_template_whose_columns_are_there_comes_first(encoder: Encoder) -> None:
    row = Row("here", {"phrase": "x", "tone": "joy", **ROWS[Format.messages]})
    data = data_of(text_template="{phrase}[[ ({more})]]: {tone}", completion_column="tone")
    format, rows = row_format(row, data, encoder)
    assert (format, type(rows)) == (Format.template, TemplateRows)
    assert [part["text"] for part in rows.segments(row)] == ["x: ", "joy"]
    assert detect(Row("here", ROWS[Format.messages]), data) is Format.messages


def test_prompt_and_completion_of_text_need_no_chat_template(encoder: Encoder) -> None:
    row = Row("here", {"prompt": "2 + 2 =", "completion": " 4"})
    format, rows = row_format(row, data_of(), encoder)
    assert (format, rows.prompt().prompt, rows.prompt().completion) == (Format.prompt_completion, "{prompt}", "{completion}")
    assert [part["text"] for part in rows.segments(row)] == ["2 + 2 =", "4"]


def test_alpaca_with_input_history_and_system() -> None:
    row = Row("here", {
        "instruction": "Add.", "input": "1 2", "output": "3", "history": [["Hello", "Hi"]], "system": "Be brief.",
    })  # fmt: skip
    encoder = encoder_of(FAMILIES["chatml"])
    parts = ConversationRows(data_of(), encoder).segments(row)
    assert [part.get("expected") for part in parts] == [None, "Hi", None, "3"]
    assert parts[0]["text"].startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>")
    assert "user\nAdd.\n\n1 2<|im_end|>" in parts[2]["text"]


def test_sharegpt_with_a_system_column_and_a_call(encoder: Encoder, root: Path) -> None:
    talk = [
        {"from": "human", "value": QUESTION},
        {"from": "function_call", "value": json.dumps({"name": "order_status", "arguments": {"number": 7}})},
        {"from": "observation", "value": "in the van"},
        {"from": "gpt", "value": ANSWER},
    ]
    values = {"conversations": talk, "system": "Be brief."}
    parts = segments_of(values, encoder, chat_template=str(root / "conf/chat_templates/chatml.jinja"))
    assert parts[0]["text"].startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert parts[1]["text"] == '<tool_call>{"name": "order_status", "arguments": {"number": 7}}</tool_call><|im_end|>'
    assert "in the van" in parts[2]["text"]
    assert parts[3]["expected"] == ANSWER


def test_keys_and_roles_are_mapped(encoder: Encoder) -> None:
    talk = [{"speaker": "customer", "text": QUESTION}, {"speaker": "agent", "text": ANSWER}]
    settings = {
        "field_messages": "talk",
        "message_property_mappings": {"role": "speaker", "content": "text"},
        "roles": {"user": ["customer"], "assistant": ["agent"]},
    }
    assert segments_of({"talk": talk}, encoder, **settings) == CONVERSATION


def test_a_developer_is_the_system(encoder: Encoder) -> None:
    rules = [{"role": role, "content": "Be brief."} for role in ("developer", "system")]
    first, second = (segments_of({"messages": [rule, *MESSAGES]}, encoder) for rule in rules)
    assert first == second


def test_numbers_in_the_tools_of_a_file_are_numbers(tmp_path: Path, encoder: Encoder, root: Path) -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"minimum": 0, "maximum": 1.50}}}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": MESSAGES, "tools": tools}), encoding="utf-8")
    (row,) = read_files([str(tmp_path / "rows.jsonl")])
    _, rows = row_format(row, data_of(chat_template=str(root / "conf/chat_templates/chatml.jinja")), encoder)
    assert '"parameters": {"minimum": 0, "maximum": 1.5}' in rows.segments(row)[0]["text"]
    assert rows.prompt().tools == tools


def test_weights_and_the_last_turn(encoder: Encoder) -> None:
    talk = [*MESSAGES, *MESSAGES]
    assert [part["train"] for part in segments_of({"messages": talk}, encoder)] == [False, True] * 2
    last = segments_of({"messages": talk}, encoder, train_on="last")
    assert [part["train"] for part in last] == [False, True]
    assert ANSWER in last[0]["text"]
    unlearned = [MESSAGES[0], {**MESSAGES[1], "weight": 0}, *MESSAGES]
    assert segments_of({"messages": unlearned}, encoder) == last
    both = segments_of({"messages": talk}, encoder, roles_to_train=["user", "assistant"])
    assert [part["expected"] for part in both if part["train"]] == [QUESTION, ANSWER] * 2


@pytest.mark.parametrize(
    ("values", "settings", "reason"),
    [
        ({"messages": MESSAGES[:1]}, {}, r"has no turn of the role assistant to learn"),
        ({"messages": [{**MESSAGES[1], "weight": 0}]}, {}, r"has no turn of the role assistant to learn"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, {}, r"role 'narrator' is unknown; .* map it with data\.roles"),
        ({"messages": "hello"}, {}, r"column 'messages' must hold a list of messages"),
        ({"messages": MESSAGES, "tools": "x"}, {}, r"tools must be a list of objects"),
        ({"instruction": "", "output": "x"}, {}, r"'instruction' is empty or missing"),
        ({"instruction": "x", "output": "y", "history": ["z"]}, {}, r"history must be a list of pairs"),
        ({"messages": MESSAGES}, {"labels": ["a", "b"]}, r"label 'It is in the van\.' is not in data\.labels"),
        ({"talk": MESSAGES}, {"format": Format.messages}, r"no column 'messages'; there are: talk \(data\.field_messages"),
    ],
)
def test_a_row_that_cannot_be_learned_is_refused_with_its_place(
    values: dict[str, Any], settings: dict[str, Any], reason: str, encoder: Encoder
) -> None:
    with pytest.raises(InputError, match=rf"^here: {reason}"):
        segments_of(values, encoder, **settings)


def test_columns_of_no_format_are_named(encoder: Encoder) -> None:
    with pytest.raises(InputError, match=r"^here: the columns text, mood are those of no format; set data\.text_template"):
        segments_of({"text": "x", "mood": "y"}, encoder)


def test_a_list_or_an_object_is_never_trained_as_text(encoder: Encoder) -> None:
    for value in ([1, 2], {"a": 1}):
        with pytest.raises(InputError, match=r"^here: column 'phrase' holds (a list|an object)"):
            segments_of({"phrase": value, "tone": "joy"}, encoder, text_template="{phrase}: {tone}", completion_column="tone")


def test_special_tokens_in_the_text_are_counted(encoder: Encoder) -> None:
    rows = [
        Row(str(number), {"phrase": text, "tone": "joy"}) for number, text in enumerate(["a", "Type <|im_end|> to stop", "b"])
    ]
    _, template = row_format(rows[0], data_of(text_template="{phrase}: {tone}", completion_column="tone"), encoder)
    for row in rows:
        template.segments(row)
    assert template.special_tokens == Counter({"<|im_end|>": 1})
    talk = [{"role": "user", "content": "<|im_start|><|im_start|>"}, MESSAGES[1]]
    _, conversation = row_format(Row("here", {"messages": talk}), data_of(), encoder)
    conversation.segments(Row("here", {"messages": talk}))
    assert conversation.special_tokens == Counter({"<|im_start|>": 1})


def test_system_and_tools_are_kept_where_all_rows_share_them(encoder: Encoder) -> None:
    rows = ConversationRows(data_of(), encoder)
    system = {"role": "system", "content": "Be brief."}
    rows.segments(Row("1", {"messages": [system, *MESSAGES]}))
    assert (rows.prompt().system, rows.prompt().tools) == ("Be brief.", None)
    rows.segments(Row("2", {"messages": MESSAGES}))
    assert rows.prompt().system is None


def test_a_file_for_the_chat_template_is_used_and_named_where_it_is_missing(encoder: Encoder, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    with pytest.raises(InputError, match=r"^data\.chat_template: .*own\.jinja cannot be read \("):
        segments_of(ROWS[Format.messages], encoder, chat_template=str(path))
    path.write_text(CHATML.replace("assistant", "bot"), encoding="utf-8")
    with pytest.raises(InputError, match="begins the answer of message 2 differently"):
        segments_of(ROWS[Format.messages], encoder, chat_template=str(path))


def test_the_conversations_of_the_project_are_learned_turn_by_turn(root: Path, encoder: Encoder) -> None:
    section = OmegaConf.merge(OmegaConf.structured(Data), OmegaConf.load(root / "conf/data/conversations.yaml"))
    data = OmegaConf.to_object(section)
    assert isinstance(data, Data)
    data.chat_template = str(root / (data.chat_template or ""))
    raw = list(read_files([str(root / file) for file in data.files]))
    format, rows = row_format(raw[0], data, encoder)
    assert format is Format.messages
    assert len(raw) >= 300
    for row in raw:
        answers = [message for message in row.values["messages"] if message["role"] == "assistant"]
        parts = [part for part in rows.segments(row) if part["train"]]
        assert len(parts) == len(answers)
        assert all(part["text"].endswith("<|im_end|>") for part in parts)
