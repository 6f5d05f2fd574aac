"""Chat messages as prompts: chat templates as transformers renders them, and which model was trained in one."""

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tools.serve.requests import Message
from tools.serve.responses import RequestError
from tools.serve.service import ChatPrompt
from tunepress.core.errors import InputError
from tunepress.models.hf_model import load_encoder
from tunepress.text.chat_template import ChatTemplate, wrap_in_chat_template
from tunepress.text.prompt import Prompt

TEMPLATES = {
    "system by default": "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|system|>\nYou help.<|end|>\n' }}{% endif %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
    "first token and trimmed": "{{ bos_token }}{% for message in messages %}{% set content = message['content'] | trim %}"
    "{{ '[' + message['role'] + ']' + content + eos_token }}{% endfor %}[answer]",
    "lines of blocks": "{%- for message in messages %}\n    {%- if message.role == 'system' %}\n<s>{{ message.content }}\n"
    "    {% else %}\n  {{- '<u>' ~ message.content }}\n    {%- endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n"
    "    {{- '<a>' }}\n{%- endif %}\n",
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
    prompt, completion = wrap_in_chat_template("Review {{1}}: {text}", "{stars}", load_encoder(tmp_path))
    assert ChatPrompt(tmp_path, Prompt(prompt, completion, None, 10)).trained
    assert not ChatPrompt(tmp_path, Prompt("Review: {text}\n", "{stars}", None, 10)).trained


DATED = (  # as Llama 3.1's and SmolLM3's templates print today's date
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}"
    "{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}"
    "<s>Today Date: {{ date_string }}\n{{ strftime_now('%A, %d %B %Y') }}\n"
    "{% for message in messages %}<u>{{ message['content'] }}<e>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def test_a_template_that_prints_todays_date_is_the_same_tomorrow(tiny_phi3: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_phi3)
    tokenizer.chat_template = DATED
    for file in tiny_phi3.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer.save_pretrained(tmp_path)
    prompt, completion = wrap_in_chat_template("Review: {text}", "{stars}", load_encoder(tmp_path))
    assert prompt == "<s>Today Date: 26 Jul 2024\nFriday, 26 July 2024\n<u>Review: {text}<e><a>"
    trained = Prompt(prompt, completion, None, 10)
    conversation = ChatPrompt(tmp_path, trained)
    assert conversation.trained
    messages = [Message(role="user", content=text) for text in ("a", "b")]
    assert conversation.render(messages).prompt == "<s>Today Date: 26 Jul 2024\nFriday, 26 July 2024\n<u>a<e><u>b<e><a>"
    other = replace(trained, prompt=prompt.replace("26 Jul", "1 Feb"), chat_template_date="2024-02-01")
    assert not ChatPrompt(tmp_path, other).trained
    dated, _ = wrap_in_chat_template("Review: {text}", "{stars}", load_encoder(tmp_path), "2025-01-31")
    assert dated.startswith("<s>Today Date: 31 Jan 2025\nFriday, 31 January 2025\n")
    assert ChatPrompt(tmp_path, Prompt(dated, completion, None, 10, chat_template_date="2025-01-31")).trained


def test_a_template_may_refuse(tiny_phi3: Path, tmp_path: Path) -> None:
    source = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}<u>{{ messages[0].content }}<a>"
    )
    (tmp_path / "chat_template.jinja").write_text(source)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    conversation = ChatPrompt(tmp_path, Prompt("<u>{text}<a>", "{stars}", None, 10))
    with pytest.raises(RequestError, match="the model's chat template rejects the messages \\(no system here\\)"):
        conversation.render([Message(role="system", content="x"), Message(role="user", content="x")])


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
