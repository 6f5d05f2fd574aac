"""The rows that come with the project: distinct phrases in balance."""

import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tunepress.text.json_answers import read_schema, schema_problem, validator


def test_the_phrases_are_many_distinct_and_in_balance(root: Path) -> None:
    rows = [json.loads(line) for line in (root / "data/raw/tone.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(row.keys() == {"phrase", "tone"} for row in rows)
    tones = Counter(row["tone"] for row in rows)
    assert sorted(tones) == ["fear", "joy", "sadness", "surprise"]
    assert len(rows) >= 800
    assert max(tones.values()) == min(tones.values())


def test_no_two_phrases_share_more_than_half_of_their_words(root: Path) -> None:
    rows = [json.loads(line) for line in (root / "data/raw/tone.jsonl").read_text(encoding="utf-8").splitlines()]
    words = [(row["phrase"], frozenset(re.findall(r"[a-z']+", row["phrase"].lower()))) for row in rows]
    alike = [
        (phrase, other)
        for (phrase, first), (other, second) in itertools.combinations(words, 2)
        if len(first & second) > 0.5 * len(first | second)
    ]
    assert not alike


@pytest.fixture(scope="module")
def dialogues(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / "data/raw/helpdesk.jsonl").read_text(encoding="utf-8").splitlines()]


def test_each_dialogue_of_the_help_desk_is_a_short_conversation_that_ends_with_an_answer(dialogues: list[dict[str, Any]]) -> None:
    assert len(dialogues) >= 300
    assert len({row["messages"][0]["content"] for row in dialogues}) == 1
    assert len({row["messages"][1]["content"].casefold() for row in dialogues}) == len(dialogues)
    for row in dialogues:
        roles = [message["role"] for message in row["messages"]]
        assert roles[:2] == ["system", "user"]
        assert roles[-1] == "assistant"
        assert 2 <= roles.count("user") <= 4
        assert all(reply == "assistant" for role, reply in itertools.pairwise(roles) if role in ("user", "tool"))


def test_a_third_of_the_dialogues_call_functions_that_they_define(dialogues: list[dict[str, Any]]) -> None:
    with_calls = [row for row in dialogues if any("tool_calls" in message for message in row["messages"])]
    assert 0.25 < len(with_calls) / len(dialogues) < 0.4
    identifiers = [call["id"] for row in with_calls for message in row["messages"] for call in message.get("tool_calls", [])]
    assert len(set(identifiers)) == len(identifiers)
    for row in with_calls:
        properties = {tool["function"]["name"]: tool["function"]["parameters"]["properties"] for tool in row["tools"]}
        for message, following in itertools.pairwise([*row["messages"], {}]):
            for call in message.get("tool_calls", []):
                arguments = json.loads(call["function"]["arguments"])
                assert arguments.keys() == properties[call["function"]["name"]].keys()
                words = " ".join(earlier["content"] for earlier in row["messages"] if earlier["role"] == "user")
                assert arguments["order"] in words
                assert arguments.get("item", "") in words
                assert following.get("tool_call_id", call["id"]) == call["id"]


def test_dialogues_are_not_near_duplicates(dialogues: list[dict[str, Any]]) -> None:
    texts = [" ".join(message["content"] or "" for message in row["messages"][1:]) for row in dialogues]
    words = [frozenset(re.findall(r"\w+", text.lower())) for text in texts]
    assert not [pair for pair in itertools.combinations(words, 2) if len(pair[0] & pair[1]) > 0.8 * len(pair[0] | pair[1])]


def test_the_orders_are_distinct_and_match_their_schema(root: Path) -> None:
    rows = [json.loads(line) for line in (root / "data/raw/orders.jsonl").read_text(encoding="utf-8").splitlines()]
    schema = validator(read_schema(root / "data/raw/orders.schema.json"))
    assert len({row["email"] for row in rows}) == len(rows) >= 400
    for row in rows:
        assert schema_problem(row["order"], schema) is None
        order = json.loads(row["order"])
        assert len(order) == 5
        assert all(order[key] in row["email"] for key in ("customer", "city"))
