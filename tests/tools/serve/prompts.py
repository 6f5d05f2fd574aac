"""Models for the service's tests."""

from dataclasses import asdict
from pathlib import Path

from tunepress.text.prompt import FILE_NAME, Prompt

SLOW = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8}  # some milliseconds for a token

COLUMNS = Prompt("{Question} ({First Name})\n", "{Best Answer}", None, source_max_len=100, max_new_tokens=12)
CHAT = Prompt("<|user|>\n{question}<|end|>\n<|assistant|>\n", "{answer}<|end|>", None, source_max_len=100, max_new_tokens=12)


def with_prompt(model: Path, prompt: Prompt, folder: Path) -> Path:
    """The same model as if it had been trained with a prompt."""
    folder.mkdir(parents=True)
    for file in model.iterdir():
        if file.name != FILE_NAME:
            (folder / file.name).symlink_to(file)
    prompt.save(folder)
    return folder


def relabelled(prompt: Prompt, labels: tuple[str, ...]) -> Prompt:
    """A prompt with labels."""
    return Prompt(**{**asdict(prompt), "labels": labels})
