"""Guidance: whatever a model would answer, it answers with a label, or with JSON that matches the schema."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.stages.built import PROMPT, SCHEMA
from tunepress.config.evaluate import Guidance
from tunepress.core.errors import InputError
from tunepress.inference.guidance import answer_grammar
from tunepress.inference.onnx_model import OnnxModel
from tunepress.inference.torch_model import TorchModel
from tunepress.models.hf_model import load_encoder
from tunepress.text.json_answers import schema_problem, validator
from tunepress.text.prompt import Prompt

LABELS = ("joy", "joyful", 'a "quoted" \\ label', "fröhlich 🎉")
PROMPTS = ["Text: hello\nTone: ", "Text: good-bye\nTone: ", "Text: a much longer text than the others\nTone: "]
LENGTH = 200


@pytest.fixture(scope="module", params=["torch", "onnx"])
def model(request: pytest.FixtureRequest, tiny_phi3: Path, good_model: Path) -> TorchModel | OnnxModel:
    return TorchModel(tiny_phi3, batch_size=2) if request.param == "torch" else OnnxModel(good_model)


def grammar(guidance: Guidance, prompt: Prompt, folder: Path) -> str:
    return answer_grammar(guidance, prompt, folder, load_encoder(folder))


def test_every_answer_is_a_label(model: TorchModel | OnnxModel, tiny_phi3: Path) -> None:
    free = model.answers(PROMPTS, LENGTH)
    assert not set(free) & set(LABELS)
    guided = model.answers(PROMPTS, LENGTH, grammar(Guidance.labels, replace(PROMPT, labels=LABELS), tiny_phi3))
    assert set(guided) <= set(LABELS)
    assert model.answers(PROMPTS, LENGTH) == free


def test_a_label_may_have_characters_of_several_tokens(model: TorchModel | OnnxModel, tiny_phi3: Path) -> None:
    labels = ("鬱", "日本 😀")
    guided = model.answers(PROMPTS, LENGTH, grammar(Guidance.labels, replace(PROMPT, labels=labels), tiny_phi3))
    assert set(guided) <= set(labels)


def test_every_answer_is_json_that_matches_the_schema(model: TorchModel | OnnxModel, tiny_phi3: Path) -> None:
    guided = model.answers(PROMPTS, LENGTH, grammar(Guidance.schema, replace(PROMPT, json_schema=SCHEMA), tiny_phi3))
    assert [schema_problem(answer, validator(SCHEMA)) for answer in guided] == [None] * len(PROMPTS)


def test_the_text_that_was_learned_around_an_answer_is_part_of_the_grammar(
    model: TorchModel | OnnxModel, tiny_phi3: Path
) -> None:
    prompt = replace(PROMPT, completion="{tone}\n.", labels=LABELS)
    for answer in model.answers(PROMPTS, LENGTH, grammar(Guidance.labels, prompt, tiny_phi3)):
        assert answer.removesuffix("\n.") in LABELS
        assert answer.endswith("\n.")


def test_the_token_that_ends_an_answer_is_not_part_of_the_grammar(tiny_phi3: Path) -> None:
    encoder = load_encoder(tiny_phi3)
    end = encoder.tokenizer.convert_ids_to_tokens(encoder.eos_token_ids[0])
    prompt = replace(PROMPT, completion=f"{{tone}}\n{end}\n", labels=("joy",))
    assert answer_grammar(Guidance.labels, prompt, tiny_phi3, encoder) == 'start: ("joy") "\\n"\n'


def test_a_schema_that_guidance_cannot_follow_is_an_error_of_one_line(model: TorchModel | OnnxModel, tiny_phi3: Path) -> None:
    impossible = {"type": "object", "properties": {"a": False}, "required": ["a"]}
    prompt = replace(PROMPT, json_schema=impossible)
    with pytest.raises(InputError, match=r"evaluate\.guidance: ") as error:
        model.answers(PROMPTS, LENGTH, grammar(Guidance.schema, prompt, tiny_phi3))
    assert "\n" not in str(error.value)


def test_rows_with_columns_after_the_answer_are_refused(tiny_phi3: Path) -> None:
    with pytest.raises(InputError, match="labels needs rows whose answer is the last column"):
        grammar(Guidance.labels, replace(PROMPT, completion="{tone} ({why})", labels=LABELS), tiny_phi3)


def test_a_model_folder_with_a_grammar_is_as_it_was_saved(good_model: Path, tiny_phi3: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(good_model, tmp_path / "onnx")
    text = grammar(Guidance.schema, replace(PROMPT, json_schema=SCHEMA), tiny_phi3)
    replace(PROMPT, guidance=text, json_schema=SCHEMA).save(folder)
    assert Prompt.load(folder).guidance == text
    assert json.loads((folder / "prompt.json").read_text(encoding="utf-8"))["json_schema"] == SCHEMA
