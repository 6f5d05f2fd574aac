"""Conversations: what is learned is what the assistant said and the end of its turn, in the templates of each family."""

from dataclasses import dataclass
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from stages.prepare.chat_templates import end_of_turn
from stages.prepare.formats import ConversationRows
from stages.prepare.rows import Row
from tests.stages.params import data_of
from tunepress.core.errors import InputError
from tunepress.text.chat_template import ChatTemplate
from tunepress.text.conversation import normalize, segments
from tunepress.text.segments import turns
from tunepress.text.tokenizer import Encoder

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }}[/INST]"
    "{% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"
)
QWEN3 = (  # shows the thoughts of the answers after the last question, and drops those before
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 > ns.last %}<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}"
    "{{ m.content.split('</think>')[-1].lstrip('\n') }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    template: str
    tokens: tuple[str, ...]  # the last one ends a turn
    bos: str | None = None
    eos: str | None = None
    metaspace: bool = False
    system: bool = True


FAMILIES = {
    "chatml": Family(CHATML, ("<|im_start|>", "<|im_end|>")),
    "llama3": Family(LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"), bos="<|begin_of_text|>"),
    "phi3": Family(PHI3, ("<|user|>", "<|system|>", "<|assistant|>", "<|end|>"), "<s>", "<|endoftext|>", metaspace=True),
    "gemma": Family(GEMMA, ("<start_of_turn>", "<end_of_turn>"), "<bos>", "<eos>", metaspace=True, system=False),
    "mistral": Family(MISTRAL, ("[INST]", "[/INST]", "</s>"), "<s>", "</s>", metaspace=True),
    "qwen3": Family(QWEN3, ("<|im_start|>", "<|im_end|>"), eos="<|im_end|>"),
}
TEXT = ["Where is my order? It is in the van, and comes at 10:30 today.", "Thanks a lot! You are welcome. How can I help?"] * 4


def encoder_of(family: Family) -> Encoder:
    """A small tokenizer of the family's kind."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=family.metaspace, unk_token="<unk>" if family.metaspace else None))
    if family.metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", *alphabet], show_progress=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        letters = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    special = [token for token in (family.bos, family.eos, *family.tokens) if token]
    strips = family is FAMILIES["phi3"]  # its tokens take the white space after them
    tokenizer.add_special_tokens([AddedToken(token, special=True, rstrip=strips) for token in dict.fromkeys(special)])
    if family.bos:
        number = tokenizer.token_to_id(family.bos)
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{family.bos} $A", special_tokens=[(family.bos, number)])
    ends = family.eos or family.tokens[-1]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=family.bos, eos_token=ends, chat_template=family.template, padding_side="left"
    )
    return Encoder(fast, [fast.get_vocab()[ends]])


def flat(parts: list[list[int]]) -> list[int]:
    return [token for part in parts for token in part]


def dialogue(system: bool) -> list[dict[str, Any]]:
    opening = [{"role": "system", "content": "You are brief."}] if system else []
    return [
        *opening,
        {"role": "user", "content": "Where is my order?"},
        {"role": "assistant", "content": "It is in the van."},
        {"role": "user", "content": "Thanks a lot!"},
        {"role": "assistant", "content": "You are welcome. How can I help?"},
    ]


def rows_of(encoder: Encoder, **settings: Any) -> ConversationRows:
    return ConversationRows(data_of(labels=None, **settings), encoder)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_learned_is_what_the_assistant_said_and_its_end(name: str) -> None:
    family = FAMILIES[name]
    encoder = encoder_of(family)
    rows = rows_of(encoder, train_on="last" if name == "qwen3" else "all")
    messages = dialogue(family.system)
    row: dict[str, Any] = {"source": "here", "segments": rows.segments(Row("here", {"messages": messages}))}
    prompt = rows.prompt()
    encoder = Encoder(encoder.tokenizer, list(prompt.eos_token_ids))
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    thoughts = "<think>\n\n</think>\n\n" if name == "qwen3" else ""
    end = encoder.tokenizer.convert_tokens_to_ids(family.tokens[-1])
    if name == "qwen3":
        answers = answers[-1:]
    (encoded,) = encoder.encode_segments([row])
    learned = [tokens for tokens, segment in zip(encoded, row["segments"], strict=True) if segment["train"]]
    assert [encoder.tokenizer.decode(tokens[:-1]).strip() for tokens in learned] == [thoughts + text for text in answers]
    assert [tokens[-1] for tokens in learned] == [end] * len(answers)
    assert [turn.expected for turn in turns(row)] == [(thoughts + text).strip() for text in answers]

    whole = encoder.tokenizer.apply_chat_template(messages, tokenize=False)
    text = "".join(segment["text"] for segment in row["segments"])
    assert whole.removeprefix(prompt.bos_token).startswith(text)
    assert flat(encoded) == encoder.encode_prompt(text)

    example = encoder.encode_example(row, 1000, completion_only_loss=True)
    assert example["input_ids"] == flat(encoded)
    assert [token for token in example["labels"] if token >= 0] == flat(learned)


@pytest.mark.parametrize("name", FAMILIES)
def test_training_and_asking_render_the_same_bytes(name: str, tmp_path: Any) -> None:
    from tunepress.text.chat_prompt import ChatPrompt

    family = FAMILIES[name]
    encoder = encoder_of(family)
    encoder.tokenizer.save_pretrained(tmp_path)
    rows = rows_of(encoder, train_on="last" if name == "qwen3" else "all")
    messages = dialogue(family.system)
    last = turns({"source": "here", "segments": rows.segments(Row("here", {"messages": messages}))})[-1]
    chat = ChatPrompt(tmp_path, rows.prompt())
    assert chat.render(messages[:-1]).prompt == last.prompt
    single = messages[:-3]
    first = turns({"source": "here", "segments": rows.segments(Row("here", {"messages": messages[:-2]}))})[-1]
    assert chat.render(single).prompt == first.prompt == chat.render_text("Where is my order?")


def test_a_template_that_changes_earlier_turns_is_refused_with_the_cure() -> None:
    encoder = encoder_of(FAMILIES["qwen3"])
    with pytest.raises(InputError, match=r"^here: the chat template changes earlier turns .* set data\.train_on=last"):
        rows_of(encoder).segments(Row("here", {"messages": dialogue(True)}))


def test_thoughts_are_learned_where_the_template_shows_them() -> None:
    rows = rows_of(encoder_of(FAMILIES["qwen3"]), train_on="last")
    messages = dialogue(False)
    messages[-1]["reasoning_content"] = "Be kind."
    assert rows.segments(Row("here", {"messages": messages}))[-1]["text"].startswith(
        "<think>\nBe kind.\n</think>\n\nYou are welcome."
    )
    quiet = rows_of(encoder_of(FAMILIES["qwen3"]), train_on="last", chat_template_kwargs={"enable_thinking": False})
    question, answer = quiet.segments(Row("here", {"messages": dialogue(False)}))
    assert question["text"].endswith("<think>\n\n</think>\n\n")
    assert answer["text"] == "You are welcome. How can I help?<|im_end|>"


def test_a_system_message_that_the_template_refuses_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"^here: the model's chat template rejects the messages \(System role not supported\)"):
        rows_of(encoder_of(FAMILIES["gemma"])).segments(Row("here", {"messages": dialogue(True)}))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (CHATML.partition("{% if add")[0], "does not begin an answer"),
        (CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"), "begins the answer of message 3 differently"),
        (
            CHATML.replace("{{ m.content }}", "{{ m.content if m.role != 'system' }}"),
            r"does not show the content of message 1 \(system\)",
        ),
        ("{{ messages[9].content }}", "rejects the messages"),
        ("{% for m in messages %}{{ m.content }} {% endfor %}", "without a special token; set data.train_on=last"),
    ],
)
def test_a_template_that_cannot_be_learned_from_is_refused(template: str, reason: str) -> None:
    encoder = encoder_of(FAMILIES["chatml"])
    encoder.tokenizer.chat_template = template
    with pytest.raises(InputError, match=rf"^here: .*{reason}"):
        rows_of(encoder).segments(Row("here", {"messages": dialogue(True)}))


def test_a_token_that_ends_a_turn_ends_an_answer_too() -> None:
    encoder = encoder_of(FAMILIES["phi3"])
    template = ChatTemplate(PHI3, encoder.tokenizer.special_tokens_map)
    end = encoder.tokenizer.convert_tokens_to_ids("<|end|>")
    assert end_of_turn(template, encoder) == (end, *encoder.eos_token_ids)


TOOLS = [{"type": "function", "function": {"name": "order_status", "parameters": {"type": "object", "properties": {}}}}]
WITH_CALL = [
    {"role": "user", "content": "Where is my order?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "order_status", "arguments": '{"number": 7}'}}],
    },
    {"role": "tool", "tool_call_id": "1", "content": '{"place": "van"}'},
    {"role": "assistant", "content": "It is in the van."},
]


def test_calls_are_learned_and_their_arguments_are_objects(root: Any) -> None:
    encoder = encoder_of(FAMILIES["chatml"])
    rows = rows_of(encoder, chat_template=str(root / "conf/chat_templates/chatml.jinja"))
    parts = rows.segments(Row("here", {"messages": WITH_CALL, "tools": TOOLS}))
    learned = [part["text"] for part in parts if part["train"]]
    assert learned == [
        '<tool_call>{"name": "order_status", "arguments": {"number": 7}}</tool_call><|im_end|>',
        "It is in the van.<|im_end|>",
    ]
    assert '"name": "order_status"' in parts[0]["text"]
    assert '{"place": "van"}' in parts[2]["text"]
    assert rows.prompt().tools == TOOLS


def test_a_template_that_leaves_calls_out_is_refused() -> None:
    with pytest.raises(InputError, match=r"message 2 has no text to learn|does not show the tool_calls of message 2"):
        rows_of(encoder_of(FAMILIES["chatml"])).segments(Row("here", {"messages": WITH_CALL, "tools": TOOLS}))


def calling(arguments: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "must be a list of messages"),
        ("hello", "must be a list of messages"),
        (["hello"], "message 1: must be an object with role and content"),
        ([{"role": "user", "content": 5}], "message 1: content must be text, got int"),
        ([{"role": "user", "content": ""}], "message 1: is empty"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "message 1: content must be text, or parts"),
        ([{"role": "user", "content": "a\0b"}], "message 1: contains a NUL character"),
        ([{"role": "user", "content": "\ud83d"}], "message 1: contains half a surrogate pair"),
        ([{"role": "user", "content": "a", "audio": {"id": 1}}], "message 1: has 'audio', which is not used"),
        ([{"role": "assistant", "content": "a", "weight": 2}], "message 1: weight must be 0 or 1, got 2"),
        (calling("{"), "the arguments of f are not JSON"),
        (calling("[1]"), "the arguments of f must be an object"),
        ([{"role": "assistant", "tool_calls": ["f"]}], "a tool call must be an object"),
    ],
)
def test_messages_that_are_not_text_are_refused(messages: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        normalize(messages)


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "Hello, "}, {"type": "text", "text": "you"}]
    assert normalize([{"role": "user", "content": parts, "name": None}]) == [{"role": "user", "content": "Hello, you"}]


def test_only_the_turns_that_are_named_are_learned() -> None:
    template = ChatTemplate(CHATML, {})
    parts = segments(normalize(dialogue(True)), [2], template, special_tokens=["<|im_end|>", "<|im_start|>"])
    assert [part["train"] for part in parts] == [False, True]
    assert parts[1] == {"text": "It is in the van.<|im_end|>", "train": True, "expected": "It is in the van."}
