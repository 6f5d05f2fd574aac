"""A model's chat template as plain text around a prompt and a completion."""

from stages.lib.prompt import escape
from stages.lib.tokens import Encoder


def in_chat_template(prompt: str, completion: str, encoder: Encoder) -> tuple[str, str]:
    """Puts the two templates where the model's chat template puts the user's and the assistant's words."""
    asked, answered = "\ue000", "\ue001"  # private-use characters, which no chat template holds
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    opening = encoder.tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    whole = encoder.tokenizer.apply_chat_template(messages, tokenize=False)
    before, after = str(opening).split(asked)
    ending = str(whole).split(answered)[1].rstrip()
    chat_prompt = escape(before) + prompt.strip() + escape(after)
    bos = encoder.tokenizer.bos_token
    if bos and encoder.prompt("")[:1] == [encoder.tokenizer.bos_token_id]:
        chat_prompt = chat_prompt.removeprefix(escape(bos))  # the tokenizer adds it again
    return chat_prompt, completion.strip() + escape(ending)
