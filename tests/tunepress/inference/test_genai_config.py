"""genai_config: what would make the built model fail or answer differently is found during the build."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime_genai as og
import pytest

from tests.stages.built import PROMPT, settings
from tunepress.core.errors import InputError
from tunepress.core.files import read_json
from tunepress.inference import genai_config
from tunepress.inference.genai_config import GenaiConfig
from tunepress.models.hf_model import load_encoder
from tunepress.text.prompt import Prompt


def refused(folder: Path, tiny_phi3: Path, change: Callable[[dict[str, Any]], None], prompt: Prompt = PROMPT) -> str:
    with pytest.raises(InputError) as raised:
        genai_config.check(settings(folder, change), "cpu", load_encoder(tiny_phi3), prompt)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_an_eos_token_that_the_model_lacks_is_an_error(folder: Path, tiny_phi3: Path) -> None:
    message = refused(folder, tiny_phi3, lambda model: model.update(eos_token_id=256))
    assert message.startswith("genai_config.json: eos_token_id [256] differs from [256, 259], which end the answers in training")


def test_an_eos_token_that_training_lacks_is_an_error(folder: Path, tiny_phi3: Path) -> None:
    assert "[259, 256] differs from [256, 259]" in refused(folder, tiny_phi3, lambda model: model.update(eos_token_id=[259, 256]))
    assert "[256, 259, 257] differs" in refused(folder, tiny_phi3, lambda model: model.update(eos_token_id=[256, 259, 257]))


@pytest.mark.parametrize("ends", [[256, 259], [259], [257, 256]])
def test_the_ends_of_training_are_written_for_the_runtime(folder: Path, ends: list[int]) -> None:
    before = read_json(folder / "genai_config.json")
    unchanged = (folder / "genai_config.json").read_bytes()
    genai_config.write_eos_token_ids(folder, ends)
    assert list(og.Tokenizer(og.Model(str(folder))).eos_token_ids) == ends
    assert read_json(folder / "genai_config.json") == before | {"model": before["model"] | {"eos_token_id": ends}}
    assert ((folder / "genai_config.json").read_bytes() == unchanged) == (ends == [256, 259])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a configuration of onnxruntime-genai"),
        ("{}", "not a configuration of onnxruntime-genai"),
        ("[" * 100_000, "not a configuration of onnxruntime-genai"),
        ('{"model": {"decoder": {}}}', "has no context_length"),
    ],
)
def test_a_file_that_describes_no_model_is_an_error(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "genai_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        GenaiConfig.read(tmp_path)


@pytest.mark.parametrize("name", ["bos_token_id", "pad_token_id"])
@pytest.mark.parametrize("token", [-1, 260])
def test_a_token_outside_the_vocabulary_is_an_error(name: str, token: int, folder: Path, tiny_phi3: Path) -> None:
    message = refused(folder, tiny_phi3, lambda model: model.update({name: token}))
    assert f"{name} {token} is not in the vocabulary of 260 tokens" in message


def test_rows_that_do_not_fit_the_context_are_an_error(folder: Path, tiny_phi3: Path) -> None:
    message = refused(folder, tiny_phi3, lambda model: model.update(context_length=99))
    assert message.endswith("data.source_max_len: 100 tokens do not fit genai_config.json's context of 99; set 99 or less")


def test_a_model_for_another_provider_is_an_error(folder: Path, tiny_phi3: Path) -> None:
    def other(model: dict[str, Any]) -> None:
        model["decoder"]["session_options"]["provider_options"] = [{"cuda": {}}]

    assert "the builder made this model for cuda" in refused(folder, tiny_phi3, other)


def test_chat_markup_without_a_chat_template_is_an_error(folder: Path, tiny_phi3: Path) -> None:
    chat = Prompt("<|user|>\n{phrase}<|end|>\n<|assistant|>\n", "{tone}<|end|>", None, 100, 8)
    genai_config.check(GenaiConfig.read(folder), "cpu", load_encoder(tiny_phi3), chat)
    (folder / "chat_template.jinja").unlink()
    assert "the prompt has chat markup (<|user|>), but the tokenizer has no chat template" in refused(
        folder, tiny_phi3, lambda model: None, chat
    )
    genai_config.check(GenaiConfig.read(folder), "cpu", load_encoder(tiny_phi3), PROMPT)  # plain text does not need one
