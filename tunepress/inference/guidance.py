"""Guidance: a grammar that a model's answer cannot leave, a label or JSON that matches a schema.

llguidance applies it, within onnxruntime-genai for the ONNX model and as a package for base and merged. In each step the tokens
that the grammar does not allow get no probability, so the same grammar gives every model the same chance.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tunepress.config.evaluate import Guidance
from tunepress.core.errors import InputError
from tunepress.text.chat_prompt import ChatPrompt
from tunepress.text.prompt import Prompt
from tunepress.text.tokenizer import Encoder

if TYPE_CHECKING:  # serving runs without jsonschema
    from tunepress.text.json_answers import Schema

NO_FORCING = '%llguidance {"no_forcing": true}\n'


def answer_grammar(guidance: Guidance, prompt: Prompt, folder: Path, encoder: Encoder) -> str:
    """The grammar of an answer with what the model learned to write around it.

    Args:
        guidance: what an answer may be.
        prompt: with which the model was trained, with labels or a schema.
        folder: of the model, for the chat template.
        encoder: of the model.

    Raises:
        InputError: the model writes other columns after the answer.
    """
    frame = ChatPrompt(folder, prompt).answer_frame()
    if frame is None:
        raise InputError(f"evaluate.guidance: {guidance.value} needs rows whose answer is the last column of data.text_template")
    return framed(answer_rule(guidance, prompt), frame, encoder.tokenizer.convert_ids_to_tokens(encoder.eos_token_ids))


def framed(rule: str, frame: tuple[str, str], ends: Iterable[str]) -> str:
    """The grammar of answers with what the model learned to write before and after them.

    Args:
        rule: of the answer itself.
        frame: the two texts.
        ends: texts of the tokens that end an answer; the grammar leaves these to llguidance.
    """
    before, after = frame
    for end in ends:
        after = after.partition(end)[0]
    return grammar(" ".join([*_text(before), rule, *_text(after)]))


def grammar(rule: str) -> str:
    """The grammar of answers by a rule, in llguidance's variant of Lark.

    onnxruntime-genai 0.18 fails where llguidance forces the rest of a character that has three tokens or more.
    """
    return f"{'' if rule.isascii() else NO_FORCING}start: {rule}\n"


def answer_rule(guidance: Guidance, prompt: Prompt) -> str:
    """An answer in Lark."""
    if guidance is Guidance.labels:
        return f"({' | '.join(map(quoted, prompt.labels or ()))})"
    return json_rule(prompt.json_schema or {})


def json_rule(schema: "Schema") -> str:
    """JSON that matches a schema, in Lark. White space between its parts is free, unless the schema's `x-guidance` forbids it."""
    return f"%json {json.dumps(schema, ensure_ascii=False)}"


def unsupported_problem(schema: "Schema") -> str | None:
    """What of a schema llguidance cannot follow, in one line; None if it can."""
    from llguidance import LLMatcher  # only here: base and merged import it in guided_logits.py, and a served model has its own

    message: str = LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(grammar(json_rule(schema))))
    return message.splitlines()[0] if message else None


def _text(text: str) -> list[str]:
    return [quoted(text)] if text else []


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
