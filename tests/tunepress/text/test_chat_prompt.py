"""Prompts of chats: chat templates as transformers renders them, which model was trained in one, and what each can be asked."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tunepress.core.errors import InputError
from tunepress.models.hf_model import load_encoder
from tunepress.text.chat_prompt import ChatPrompt
from tunepress.text.chat_template import ChatTemplate, for_model_folder, special_tokens
from tunepress.text.conversation import wrap_in_chat_template
from tunepress.text.prompt import CHAT_TEMPLATE_DATE, Prompt
from tunepress.text.segments import Turn
from tunepress.text.template import escape, render

TEMPLATES = {
    "system by default": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|system|>\nYou help.<|end|>\n' }}{% endif %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    "first token and trimmed": "{{ bos_token }}{% for message in messages %}{% set content = message['content'] | trim %}"
    "{{ '[' + message['role'] + ']' + content + eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
    "lines of blocks": "{%- for message in messages %}\n    {%- if message.role == 'system' %}\n<s>{{ message.content }}\n"
    "    {% else %}\n  {{- '<' ~ message.role[0] ~ '>' ~ message.content }}\n    {%- endif %}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<a>' }}\n{%- endif %}\n",
    "what newer ones use": "{% if tools is not none %}{{ raise_exception('tools') }}{% endif %}{% set ns = namespace(last='') %}"
    "{% for message in messages %}{% if message.role == 'system' %}{% continue %}{% endif %}{% set ns.last = message.content %}"
    "{{ message | tojson }}{% generation %}{{ strftime_now('%Y') }}{% endgeneration %}{% endfor %}{{ ns.last }}",
}
CONVERSATIONS = [
    [("user", ' Hi {x} "there" <é🎉>\n ')],
    [("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c")],
]


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("in_its_own_file", [True, False])
def test_a_template_is_rendered_as_transformers_does(
    in_its_own_file: bool, name: str, conversation: list[tuple[str, str]], tiny_phi3: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_phi3)
    tokenizer.add_special_tokens({"bos_token": "<|user|>"})
    tokenizer.chat_template = TEMPLATES[name]
    tokenizer.save_pretrained(tmp_path, save_jinja_files=in_its_own_file)
    assert (tmp_path / "chat_template.jinja").exists() == in_its_own_file
    messages = [{"role": role, "content": content} for role, content in conversation]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    template = ChatTemplate.read(tmp_path, datetime.now().date().isoformat())
    assert template
    assert template.render(messages) == expected


def wrapped(folder: Path, prompt: str = "Review: {text}", date: str = CHAT_TEMPLATE_DATE) -> tuple[str, str]:
    template = ChatTemplate.read(folder, date)
    assert template
    return wrap_in_chat_template(prompt, "{stars}", template, load_encoder(folder).tokenizer.all_special_tokens)


def test_thoughts_that_a_template_writes_before_every_answer_are_part_of_the_prompt(tiny_phi3: Path, tmp_path: Path) -> None:
    template = (
        "{% for message in messages %}<{{ message.role }}>{% if message.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
        "{{ message.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    prompt, completion = wrap_in_chat_template(
        "Review: {text}", "{stars}", ChatTemplate(template, {}), load_encoder(tiny_phi3).tokenizer.all_special_tokens
    )
    assert prompt == "<user>Review: {text}<|end|>\n<assistant><think>\n\n</think>\n\n"
    assert completion == "{stars}<|end|>"
    turn = Turn("row", render(prompt, {"text": "x"}), render(completion, {"stars": "t"}), "t")
    assert turn.with_answer("f") == "f<|end|>"
    (tmp_path / "chat_template.jinja").write_text(template)
    rendered = ChatPrompt(tmp_path, Prompt(prompt, completion, None, 10)).render([{"role": "user", "content": "x"}])
    assert (rendered.prompt, rendered.from_template) == (turn.prompt, False)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_model_trained_in_its_template_is_told_from_one_that_was_not(name: str, tiny_phi3: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_phi3)
    tokenizer.add_special_tokens({"bos_token": "<|user|>"})
    tokenizer.chat_template = TEMPLATES[name]
    for file in tiny_phi3.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer.save_pretrained(tmp_path)
    if name == "what newer ones use":
        return  # shows the user's words twice, so nothing can be trained in it
    prompt, completion = wrapped(tmp_path, "Review {{1}}: {text}")
    for trained in (prompt, prompt.removeprefix(escape(str(tokenizer.bos_token)))):
        assert ChatPrompt(tmp_path, Prompt(trained, completion, None, 10)).trained
    assert not ChatPrompt(tmp_path, Prompt("Review: {text}\n", "{stars}", None, 10)).trained


DATED = (  # as Llama 3.1's and SmolLM3's templates print today's date
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}"
    "{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}"
    "<s>Today Date: {{ date_string }}\n{{ strftime_now('%A, %d %B %Y') }}\n"
    "{% for message in messages %}<{{ message['role'][0] }}>{{ message['content'] }}<e>{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


def test_a_template_that_prints_todays_date_is_the_same_tomorrow(tiny_phi3: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_phi3)
    tokenizer.chat_template = DATED
    for file in tiny_phi3.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer.save_pretrained(tmp_path)
    prompt, completion = wrapped(tmp_path)
    assert prompt == "<s>Today Date: 26 Jul 2024\nFriday, 26 July 2024\n<u>Review: {text}<e><a>"
    trained = Prompt(prompt, completion, None, 10)
    conversation = ChatPrompt(tmp_path, trained)
    assert conversation.trained
    messages = [{"role": "user", "content": text} for text in ("a", "b")]
    assert conversation.render(messages).prompt == "<s>Today Date: 26 Jul 2024\nFriday, 26 July 2024\n<u>a<e><u>b<e><a>"
    other = replace(trained, prompt=prompt.replace("26 Jul", "1 Feb"), chat_template_date="2024-02-01")
    assert not ChatPrompt(tmp_path, other).trained
    dated, _ = wrapped(tmp_path, date="2025-01-31")
    assert dated.startswith("<s>Today Date: 31 Jan 2025\nFriday, 31 January 2025\n")
    assert ChatPrompt(tmp_path, Prompt(dated, completion, None, 10, chat_template_date="2025-01-31")).trained


def test_a_template_may_refuse(tiny_phi3: Path, tmp_path: Path) -> None:
    source = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}<u>{{ messages[0].content }}<a>"
    )
    (tmp_path / "chat_template.jinja").write_text(source)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    conversation = ChatPrompt(tmp_path, Prompt("<u>{text}<a>", "{stars}", None, 10))
    with pytest.raises(InputError, match="the model's chat template rejects the messages \\(no system here\\)"):
        conversation.render([{"role": "system", "content": "x"}, {"role": "user", "content": "x"}])


@pytest.mark.parametrize("source", [None, "{% broken", "{{ messages.nothing.at.all }}"])
def test_a_folder_without_a_template_that_can_be_used_is_of_a_model_of_texts(source: str | None, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": source}))
    assert not ChatPrompt(tmp_path, Prompt("<u>{text}<a>", "{stars}", None, 10)).trained


def test_a_template_reaches_nothing_outside(tmp_path: Path) -> None:
    source = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    (tmp_path / "chat_template.jinja").write_text(source)
    template = ChatTemplate.read(tmp_path)
    assert template
    with pytest.raises(InputError, match="rejects the messages"):
        template.render([{"role": "user", "content": "x"}])


# models of conversations

TOOL = {"type": "function", "function": {"name": "order_status", "description": "Où?", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "order_status", "arguments": '{"order": "A1"}'}}
HELP = Prompt(
    None,
    None,
    ("late", "lost"),
    100,
    chat_template=Path(__file__).parents[3].joinpath("conf/chat_templates/chatml.jinja").read_text(encoding="utf-8"),
    system="Be brief.",
    tools=[TOOL],
)
SYSTEM, USER = ({"role": role, "content": content} for role, content in (("system", "Be brief."), ("user", "Where is it?")))


def test_a_text_is_asked_with_the_system_message_and_the_tools_of_training(tmp_path: Path) -> None:
    chat = ChatPrompt(tmp_path, HELP)
    assert chat.trained
    prompt = chat.render_text("Where is it?")
    assert prompt == chat.render([SYSTEM, USER], [TOOL]).prompt
    assert "order_status" in prompt
    plain = ChatPrompt(tmp_path, replace(HELP, system=None, tools=None)).render_text("Where is it?")
    assert plain == "<|im_start|>user\nWhere is it?<|im_end|>\n<|im_start|>assistant\n"


def test_a_json_list_of_messages_is_a_conversation_of_its_own(tmp_path: Path) -> None:
    chat = ChatPrompt(tmp_path, HELP)
    call = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    messages: list[dict[str, Any]] = [USER, call, {"role": "tool", "content": "late", "tool_call_id": "1"}]
    rendered = chat.render(messages)
    assert rendered.from_template
    assert chat.render_text(json.dumps(messages)) == chat.render(messages, [TOOL]).prompt
    assert rendered.prompt == (
        "<|im_start|>user\nWhere is it?<|im_end|>\n<|im_start|>assistant\n"
        '<tool_call>{"name": "order_status", "arguments": {"order": "A1"}}</tool_call><|im_end|>\n'
        "<|im_start|>tool\nlate<|im_end|>\n<|im_start|>assistant\n"
    )
    for text in ("[1, 2]", "[not JSON", "[]", '[{"content": "x"}]', '{"role": "user", "content": "x"}'):
        assert chat.render_text(text) == chat.render([SYSTEM, {"role": "user", "content": text}], [TOOL]).prompt


def test_a_model_of_texts_takes_a_list_of_messages_as_a_text(tmp_path: Path) -> None:
    text = json.dumps([USER])
    assert ChatPrompt(tmp_path, Prompt("Text: {text}\n", "{stars}", None, 10)).render_text(text) == f"Text: {text}\n"


@pytest.mark.parametrize(
    ("messages", "tools", "problem"),
    [
        ([], None, "must be a list of messages, with at least one"),
        ([USER, {"role": "assistant", "content": "x"}], None, "the last must be the user's, or the result of a tool"),
        ([{"role": "user", "content": " "}], None, "message 1: is empty"),
        ([USER, {"role": "assistant", "tool_calls": [{"function": {"name": "x", "arguments": "{"}}]}, USER], None, "not JSON"),
        ([{"role": "nobody", "content": "x"}, USER], None, "rejects the messages"),
        ([USER], [{"type": "function"}], "a tool must be"),
    ],
)
def test_messages_that_cannot_be_answered_are_refused(
    messages: list[dict[str, object]], tools: list[dict[str, object]] | None, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=problem) as refused:
        ChatPrompt(tmp_path, HELP).render(messages, tools)
    assert "\n" not in str(refused.value)


def test_tools_that_the_template_does_not_show_are_refused(tmp_path: Path) -> None:
    template = "{% for message in messages %}<u>{{ message.content }}{% endfor %}<a>"
    chat = ChatPrompt(tmp_path, replace(HELP, chat_template=template, tools=None))
    with pytest.raises(InputError, match="does not show the tool 'order_status'; send no tools"):
        chat.render([USER], [TOOL])


def test_a_rendered_conversation_does_not_begin_with_the_token_that_the_tokenizer_adds(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": {"content": "<s>"}}')
    chat = ChatPrompt(tmp_path, replace(HELP, chat_template="{{ bos_token }}" + str(HELP.chat_template), bos_token="<s>"))
    assert chat.render([USER]).prompt == ChatPrompt(tmp_path, HELP).render([USER]).prompt


@pytest.mark.parametrize(
    ("end", "completion"), [("<|im_end|>\n", "late<|im_end|>"), ("\n<|im_end|>\n", "late\n<|im_end|>"), ("", "late")]
)
def test_the_completion_of_an_answer_is_what_was_learned(end: str, completion: str, tmp_path: Path) -> None:
    template = (
        "{% for message in messages %}<{{ message.role }}>{{ message.content + '" + end.replace("\n", "\\n") + "' }}"
        "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    prompt = replace(HELP, chat_template=template, tools=None, labels=("late",))
    assert ChatPrompt(tmp_path, prompt).label_completions() == (completion,)


def test_a_template_that_is_not_valid_is_refused_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"prompt\.json: chat_template is not valid"):
        ChatPrompt(tmp_path, replace(HELP, chat_template="{% broken"))


VARIABLES = {"enable_thinking": False, "style": 'it\'s "x"\n{é}', "options": {"a": [None, 1.5]}, "not a name": 1}


def test_the_template_of_a_model_folder_has_the_variables_and_the_date_of_training(tmp_path: Path) -> None:
    source = (
        "{% for message in messages %}<{{ message.content }}>{% endfor %}"
        "{{ strftime_now('%d %b %Y') }} {% if strftime_now is defined %}{{ strftime_now(\"it's %A\") }}{% endif %}"
        "{{ enable_thinking }} {{ style }} {{ options.a[1] }}{% if options.a[0] is none %} none{% endif %}"
    )
    expected = ChatTemplate(source, special_tokens(tmp_path), "2025-01-31", VARIABLES).render([USER])
    assert expected == "<Where is it?>31 Jan 2025 it's FridayFalse it's \"x\"\n{é} 1.5 none"
    shipped = for_model_folder(source, VARIABLES, "2025-01-31")
    assert ChatTemplate(shipped, {}).render([USER]) == expected
    assert ChatTemplate(shipped, {}, variables={"enable_thinking": True}).render([USER]) == expected.replace("False", "True")
    plain = "{% for message in messages %}<{{ message.content }}>{% endfor %}"
    assert for_model_folder(plain, {}, "2025-01-31") == plain
