"""A model folder is looked at before it is used."""

import json
import shutil
from pathlib import Path

import pytest

from tunepress.core.errors import InputError
from tunepress.models.hf_model import check, check_base_context, load_encoder, load_model, read_eos_token_ids


@pytest.fixture
def folder(tiny_phi3: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to break."""
    return Path(shutil.copytree(tiny_phi3, tmp_path / "model"))


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as raised:
        check(folder)
    message = str(raised.value)
    assert message.startswith(f"{folder}: ")
    assert "\n" not in message
    with pytest.raises(InputError):
        load_model(folder)
    return message


def test_a_model_folder_is_good(folder: Path) -> None:
    check(folder)


def test_an_absent_folder_is_named(tmp_path: Path) -> None:
    assert "no such folder" in refused(tmp_path / "absent")


def test_a_file_is_not_a_folder(folder: Path) -> None:
    assert "no such folder" in refused(folder / "config.json")


def test_a_folder_without_a_config_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "no config.json" in refused(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "last.ckpt"])
def test_pickle_weights_alone_are_refused_by_name(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    message = refused(folder)
    assert f"only pickle weights ({name})" in message
    assert "safe_serialization=True" in message


def test_pickle_weights_beside_safetensors_do_no_harm(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")
    check(folder)
    assert load_model(folder).config.model_type == "phi3"


def test_a_folder_without_weights_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no weights" in refused(folder)


def test_an_encoder_of_an_absent_folder_is_refused_without_asking_a_hub(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_encoder(tmp_path / "absent")


@pytest.mark.parametrize(
    ("generation", "config", "ends"),
    [
        ({"eos_token_id": 7}, {"eos_token_id": 8}, [7]),
        ({"eos_token_id": [9, 7, 9]}, {}, [9, 7]),
        ({"eos_token_id": 0}, {"eos_token_id": 8}, [0]),
        ({}, {"eos_token_id": 8}, [8]),
        ({"eos_token_id": None}, {"eos_token_id": [8, 6]}, [8, 6]),
        ({"eos_token_id": []}, {"eos_token_id": 0}, [0]),
        (None, {"eos_token_id": 8}, [8]),
        (None, {"text_config": {"eos_token_id": [5]}}, [5]),
        (None, {"eos_token_id": None}, [256]),  # the tokenizer's <|endoftext|>
        (None, {}, [256]),  # where transformers' own configuration of Phi-3 has 32000
    ],
)
def test_an_answer_ends_as_generation_config_says_or_config_or_the_tokenizer(
    folder: Path, generation: dict[str, object] | None, config: dict[str, object], ends: list[int]
) -> None:
    (folder / "generation_config.json").unlink()
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    set_config(folder, config)
    assert load_encoder(folder).eos_token_ids == ends
    assert load_encoder(folder, (3, 4)).eos_token_ids == [3, 4]


def set_config(folder: Path, changes: dict[str, object]) -> None:
    """Changes config.json, of which eos_token_id is dropped first."""
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del fields["eos_token_id"]
    (folder / "config.json").write_text(json.dumps(fields | changes), encoding="utf-8")


def test_a_model_whose_answers_never_end_is_refused_with_the_files_and_the_cure(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    set_config(folder, {})
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None}), encoding="utf-8")
    with pytest.raises(InputError) as raised:
        load_encoder(folder)
    assert str(raised.value) == (
        f"{folder}: no token ends an answer: generation_config.json and config.json have no eos_token_id and "
        "tokenizer_config.json has no eos_token; write eos_token_id, the token's number, into generation_config.json"
    )


@pytest.mark.parametrize("end", ["2", -1, [2, "3"], 1.5, True, {"a": 1}])
def test_an_end_that_is_not_a_token_is_refused(tmp_path: Path, end: object) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": end}), encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.json: eos_token_id must be a token's number or a list of them, got "):
        read_eos_token_ids(tmp_path / "config.json")


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"'])
def test_a_broken_configuration_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "generation_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"generation_config\.json: not a model's configuration") as raised:
        read_eos_token_ids(tmp_path / "generation_config.json")
    assert "\n" not in str(raised.value)


def test_rows_longer_than_the_models_context_are_refused(folder: Path) -> None:
    check_base_context(folder, 1024)
    with pytest.raises(InputError, match=r"^data\.source_max_len: 1025 tokens do not fit the base model's context of 1024"):
        check_base_context(folder, 1025)
