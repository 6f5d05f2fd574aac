"""A model folder is looked at before it is used."""

import json
import shutil
from pathlib import Path

import pytest

from stages.lib.checkpoint import check, load_encoder, load_model
from stages.lib.edge.errors import InputError


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


def test_a_file_is_no_folder(folder: Path) -> None:
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
    ("generation", "ends"),
    [({"eos_token_id": 7}, [7]), ({"eos_token_id": [9, 7]}, [9, 7]), ({}, ["<|endoftext|>"])],
)
def test_an_answer_ends_where_the_generation_config_says_or_else_the_tokenizer(
    folder: Path, generation: dict[str, int | list[int]], ends: list[int | str]
) -> None:
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    encoder = load_encoder(folder)
    assert encoder.eos_token_ids == [
        encoder.tokenizer.convert_tokens_to_ids(end) if isinstance(end, str) else end for end in ends
    ]
