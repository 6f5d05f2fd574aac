"""The chat template that renders the rows, and the tokens with which it ends a turn."""

from pathlib import Path

from jinja2 import TemplateError

from tunepress.config.data import Data
from tunepress.core.errors import InputError, one_line
from tunepress.text.chat_template import ChatTemplate
from tunepress.text.conversation import segments
from tunepress.text.tokenizer import Encoder


def chat_template(data: Data, encoder: Encoder) -> ChatTemplate:
    """The chat template of data.chat_template or, if it is null, of the base model.

    Raises:
        InputError: there is none, or it is not valid.
    """
    if data.chat_template:
        name = f"data.chat_template: {data.chat_template}"
        try:
            source = Path(data.chat_template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{name} cannot be read ({one_line(error)})") from error
    else:
        name = "data.chat_template: the base model's"
        template = encoder.tokenizer.chat_template
        if template is None:
            cure = "name a file, such as conf/chat_templates/chatml.jinja, or use a template in data.text_template"
            raise InputError(f"data.chat_template: the base model has no chat template; {cure}")
        source = encoder.tokenizer.get_chat_template()
    try:
        return ChatTemplate(source, encoder.tokenizer.special_tokens_map, variables=data.chat_template_kwargs)
    except TemplateError as error:
        raise InputError(f"{name} is not a valid template ({one_line(error)})") from error


def end_of_turn(template: ChatTemplate, encoder: Encoder) -> tuple[int, ...]:
    """The tokens that end an answer: that with which the template ends a turn is one of them."""
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "\ue001"}]
    try:
        *_, turn = segments(messages, [1], template, special_tokens=special_tokens(encoder))
    except InputError:  # of a template that needs more messages than these; a row shows what is wrong, if anything is
        return tuple(encoder.eos_token_ids)
    token = turn["text"].rpartition("\ue001")[2].strip()
    number = encoder.tokenizer.get_vocab()[token] if token in special_tokens(encoder) else encoder.eos_token_ids[0]
    return tuple(encoder.eos_token_ids) if number in encoder.eos_token_ids else (number, *encoder.eos_token_ids)


def special_tokens(encoder: Encoder) -> list[str]:
    """The texts that the tokenizer reads as control tokens, the longest first."""
    tokenizer = encoder.tokenizer
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    tokens = {*added, *tokenizer.all_special_tokens, *tokenizer.convert_ids_to_tokens(encoder.eos_token_ids)}
    return sorted(tokens, key=lambda token: (-len(token), token))
