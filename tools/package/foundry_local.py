"""A folder for Foundry Local: the model, inference_model.json, and a chat template that asks as in training.

The sources of what Foundry Local reads are in https://github.com/microsoft/Foundry-Local, in sdk_v2/cpp/src:

- catalog/local_model_scanner.cc: a model of the cache is a folder below it, at any depth, with genai_config.json, without
  download.tmp, and with an inference_model.json whose `Name` is a string. Folders in a model are not searched.
- inferencing/generative/chat/chat_template.cc: the SDK (2.2.1) asks with the chat template of the folder, not with
  `PromptTemplate`, which the service of the command line uses.
- inferencing/generative/preprocessor.cc: the tokenizer adds no special tokens, so that the first one (BOS) must be in the text.
"""

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tools.package.files import copy_model
from tunepress.core.errors import InputError
from tunepress.core.files import atomic_output, read_jsonl, sha256, write_json, write_jsonl
from tunepress.core.paths import ADAPTER_FILE, CONFORMANCE
from tunepress.inference.conformance import recorded_path
from tunepress.inference.genai_config import GenaiConfig
from tunepress.text.chat_prompt import MARKER, ChatPrompt
from tunepress.text.chat_template import ChatTemplate, for_model_folder, special_tokens, tokenizer_config
from tunepress.text.prompt import FILE_NAME, Prompt
from tunepress.text.template import literals

INFERENCE_MODEL = "inference_model.json"
CHAT_TEMPLATE = "chat_template.jinja"
TOKENIZER_CONFIG = "tokenizer_config.json"
CONTENT = "{Content}"  # which Foundry Local replaces by the text
QUESTION = [{"role": "user", "content": MARKER}]


def write_package(model: Path, output: Path, name: str) -> None:
    """Writes a model as a package, complete or not at all.

    Args:
        model: its folder.
        output: the package's folder, which may be an earlier package.
        name: of the model in Foundry Local, with or without a version.

    Raises:
        InputError: the folder has no model, Foundry Local cannot ask it, or `output` is not a package.
    """
    check_name(name)
    GenaiConfig.read(model)
    prompt = Prompt.load(model)
    check_model(model, prompt)
    check_output(model, output)
    question = question_text(model, prompt)
    with atomic_output(output) as partial:
        copy_model(model, partial)
        templates = {"assistant": CONTENT, "prompt": question.replace(MARKER, CONTENT)}
        write_chat_template(partial, chat_template(model, prompt, question))
        # Late: after a kill the folder of this block stays, and with this file Foundry Local would find it.
        write_json(partial / INFERENCE_MODEL, {"Name": name, "PromptTemplate": templates})
        write_conformance(recorded_path(model), partial)


def check_name(name: str) -> None:
    """Raises InputError if Foundry Local could not use the name."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(:\d+)?", name, re.ASCII):
        raise InputError(f"--name {name}: must be letters, digits, '-', '_' and '.', and may end with a version such as :1")


def check_model(model: Path, prompt: Prompt) -> None:
    """Raises InputError if Foundry Local would ask the model otherwise than it was trained."""
    if prompt.prompt is not None and len(prompt.columns) != 1:
        columns = ", ".join(prompt.columns)
        raise InputError(
            f"{model / FILE_NAME}: the prompt has the columns {columns}, and Foundry Local has one text; use `make serve`"
        )
    if (model / ADAPTER_FILE).exists():
        raise InputError(f"{model / ADAPTER_FILE}: Foundry Local loads no adapters; build the model with build.adapters=merged")


def check_output(model: Path, output: Path) -> None:
    """Raises InputError if `output` is in the model's folder, or would replace what is not a package."""
    if output.resolve().is_relative_to(model.resolve()):
        raise InputError(f"--output {output}: must not be in the model's folder")
    is_package = (output / INFERENCE_MODEL).is_file()
    is_empty = output.is_dir() and not any(output.iterdir())
    if output.exists() and not is_package and not is_empty:
        raise InputError(f"--output {output}: exists and is not a package for Foundry Local; remove it or choose another folder")


def question_text(model: Path, prompt: Prompt) -> str:
    """All that the model reads, with MARKER in place of the text."""
    bos = prompt.bos_token if prompt.prompt is None else added_bos(model)
    return bos + ChatPrompt(model, prompt).render_text(MARKER)


def added_bos(model: Path) -> str:
    """The text of the BOS token if the tokenizer added it in training."""
    bos = special_tokens(model).get("bos_token")
    if not bos:
        return ""
    path = model / "tokenizer.json"
    if not path.exists():
        raise InputError(f"{path}: not found, so it is not known whether prompts begin with {bos}; run `make repro`")
    return bos if Tokenizer.from_file(str(path)).encode("").tokens[:1] == [bos] else ""


def chat_template(model: Path, prompt: Prompt, question: str) -> str:
    """A chat template that renders a message as the model's prompt.

    A model of texts answers the last message alone, unless it was trained in the chat template of its folder.
    """
    if prompt.prompt is None:
        return conversation_template(prompt, special_tokens(model))
    own = ChatTemplate.read(model, prompt.chat_template_date)
    return own.source if own and renders(own, question) else text_template(prompt.prompt, added_bos(model))


def renders(template: ChatTemplate, question: str) -> bool:
    try:
        return template.render(QUESTION) == question
    except InputError:
        return False


def conversation_template(prompt: Prompt, tokens: dict[str, str]) -> str:
    """The trained chat template, with the system message, the tools and the first token that all conversations had."""
    source = for_model_folder(prompt.chat_template or "", prompt.chat_template_kwargs, prompt.chat_template_date)
    if prompt.tools:
        source = f"{{%- if not tools %}}{{%- set tools = {prompt.tools!r} %}}{{%- endif %}}" + source
    if prompt.system:
        message = f"{{'role': 'system', 'content': {quoted(prompt.system)}}}"
        is_missing = "messages[0]['role'] != 'system'"
        source = f"{{%- if {is_missing} %}}{{%- set messages = [{message}] + messages %}}{{%- endif %}}" + source
    begins = ChatTemplate(source, tokens, prompt.chat_template_date).render(QUESTION).startswith(prompt.bos_token)
    return source if begins else f"{{{{- {quoted(prompt.bos_token)} }}}}" + source


def text_template(template: str, bos: str) -> str:
    """A chat template that puts the last message into a template of one column."""
    parts = [quoted(bos)] if bos else []
    for literal, column in literals(template):
        parts += [quoted(literal)] if literal else []
        parts += ["messages[-1]['content'] | trim"] if column is not None else []
    return "".join(f"{{{{- {part} }}}}" for part in parts)


def quoted(text: str) -> str:
    """A text in quotes, as both Jinja and onnxruntime-genai's reading of it understand."""
    for character, escaped in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(character, escaped)
    return f"'{text}'"


def write_chat_template(folder: Path, template: str) -> None:
    """Writes the chat template, the only one in a folder."""
    (folder / CHAT_TEMPLATE).write_text(template, encoding="utf-8")
    settings = tokenizer_config(folder)
    if settings.pop("chat_template", None) is not None:
        (folder / TOKENIZER_CONFIG).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_conformance(path: Path, folder: Path) -> None:
    """Copies conformance.jsonl, if there is one, with the sha256 of the files that the package has instead of the model's."""
    if not path.exists():
        return
    rows: list[dict[str, Any]] = read_jsonl(path)
    written = [folder / name for name in (INFERENCE_MODEL, CHAT_TEMPLATE, TOKENIZER_CONFIG)]
    rows[0]["model"] |= {file.name: sha256(file) for file in written if file.exists()}
    write_jsonl(folder / CONFORMANCE.name, rows)
