"""shards: tensors are found, read and overwritten in their files, and everything else stays unchanged."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.stages.merging import ONE_FILE, new_base
from tunepress.core.errors import InputError
from tunepress.models import shards
from tunepress.models.hf_model import load_model
from tunepress.models.shards import INDEX, SINGLE_FILE, ReadRows, Shards, StoredTensor, read_header


@dataclass(frozen=True)
class Doubled:
    """Twice the values of a tensor."""

    original: StoredTensor
    divisible: bool = True

    def open(self) -> ReadRows:
        return lambda first, last: self.original.read(first, last) * 2


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in several files."""
    return new_base(tmp_path_factory.mktemp("shards") / "llama", "llama")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BLOCK", 500)


def values(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def rewritten(source: Path, folder: Path, *names: str, change: Callable[[StoredTensor], shards.Replacement] = Doubled) -> Path:
    """The model of `source` with some tensors changed."""
    folder.mkdir()
    base = Shards.of(source)
    base.write(folder, {name: change(base.tensors[name]) for name in names})
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as refused:
        Shards.of(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# reading


def test_every_tensor_is_found_with_its_values(llama: Path) -> None:
    tensors, expected = Shards.of(llama).tensors, values(llama)
    assert tensors.keys() == expected.keys()
    assert len({stored.file for stored in tensors.values()}) > 3
    for name, stored in tensors.items():
        assert stored.shape == tuple(expected[name].shape)
        assert torch.equal(stored.read(), expected[name])
        assert torch.equal(torch.cat([stored.read(*block) for block in stored.blocks()]), expected[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_rows_are_read_alone(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.randn(7, 3, 5).to(dtype)
    save_file({"before": torch.zeros(3), "it": tensor, "zafter": torch.ones(2)}, tmp_path / "a.safetensors")
    stored = read_header(tmp_path / "a.safetensors")["it"]
    assert torch.equal(stored.read(2, 6), tensor[2:6])
    assert stored.dtype is dtype


def test_the_order_is_that_in_the_file_whatever_that_of_the_header(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1, dtype=torch.float16), "b": torch.zeros(1), "c": torch.zeros(2)}, tmp_path / "a.safetensors")
    tensors = list(read_header(tmp_path / "a.safetensors").values())
    assert [stored.start for stored in tensors] == sorted(stored.start for stored in tensors)
    assert tensors[-1].start + tensors[-1].size == (tmp_path / "a.safetensors").stat().st_size


def test_one_file_is_preferred_to_an_index(llama: Path, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text((llama / INDEX).read_text())
    save_file({"a": torch.zeros(1)}, tmp_path / SINGLE_FILE)
    assert list(Shards.of(tmp_path).tensors) == ["a"]


# writing


def test_without_changes_the_files_are_the_same_to_the_byte(llama: Path, tmp_path: Path) -> None:
    folder = rewritten(llama, tmp_path / "out")
    names = {file.name for file in folder.iterdir()}
    assert names == {file.name for file in llama.glob("*.safetensors")} | {INDEX}
    assert all((folder / name).read_bytes() == (llama / name).read_bytes() for name in names)


def test_a_change_is_seen_in_its_tensor_and_nowhere_else(llama: Path, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    folder = rewritten(llama, tmp_path / "out", name)
    after, before = values(folder), values(llama)
    assert torch.equal(after.pop(name), before.pop(name) * 2)
    assert all(torch.equal(tensor, before[other]) for other, tensor in after.items())
    for file in llama.glob("*.safetensors"):
        assert (folder / file.name).stat().st_size == file.stat().st_size


def test_what_cannot_be_divided_is_made_at_once(llama: Path, tmp_path: Path) -> None:
    calls = []

    @dataclass(frozen=True)
    class Whole(Doubled):
        divisible: bool = False

        def open(self) -> ReadRows:
            return lambda first, last: calls.append((first, last)) or self.original.read(first, last) * 2  # type: ignore[func-returns-value]

    name = "model.layers.0.mlp.up_proj.weight"
    folder = rewritten(llama, tmp_path / "out", name, change=Whole)
    assert calls == [(0, 108)]
    assert torch.equal(values(folder)[name], values(llama)[name] * 2)


def test_types_that_torch_cannot_compute_with_are_copied(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    tensors = {
        "flags": torch.tensor([True, False]),
        "eighths": torch.randn(8, 3).to(torch.float8_e4m3fn),
        "numbers": torch.arange(5),
        "one": torch.tensor(3.5),
        "none": torch.zeros(0, 4),
        "weight": torch.randn(9, 4),
    }
    save_file(tensors, tmp_path / "base" / SINGLE_FILE, {"format": "pt", "of": "the user's"})
    folder = rewritten(tmp_path / "base", tmp_path / "out", "weight")
    copied = load_file(folder / SINGLE_FILE)
    assert torch.equal(copied.pop("weight"), tensors.pop("weight") * 2)
    for name, tensor in copied.items():
        assert torch.equal(tensor.view(-1).view(torch.uint8), tensors[name].view(-1).view(torch.uint8))
    assert b"the user's" in (folder / SINGLE_FILE).read_bytes()[:600]


@pytest.mark.parametrize("files", ["one", "several"])
def test_a_tensor_more_comes_to_a_file_of_its_own_and_into_the_index(files: str, llama: Path, tmp_path: Path) -> None:
    source = llama if files == "several" else new_base(tmp_path / "one", "llama", max_shard_size=ONE_FILE)
    base = Shards.of(source)
    (tmp_path / "out").mkdir()
    base.write(tmp_path / "out", {"more": Doubled(base.tensors["lm_head.weight"])})
    written = values(tmp_path / "out")
    assert torch.equal(written["more"], written["lm_head.weight"] * 2)
    assert {name: written[name].shape for name in base.tensors} == {
        name: torch.Size(stored.shape) for name, stored in base.tensors.items()
    }
    total = len(base.files) + 1
    names = [f"model-{number:05}-of-{total:05}.safetensors" for number in range(1, total + 1)]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [*names, INDEX]
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in written.values())
    assert index["weight_map"].keys() == written.keys()
    assert index["weight_map"]["more"] == names[-1]
    for name, tensor in load_model(source).state_dict().items():
        assert torch.equal(tensor, load_file(tmp_path / "out" / index["weight_map"][name])[name])


def test_an_error_in_a_part_is_raised(llama: Path, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Broken(Doubled):
        def open(self) -> ReadRows:
            def rows(first: int, last: int) -> torch.Tensor:
                if first:
                    raise InputError("no more rows")
                return self.original.read(first, last)

            return rows

    with pytest.raises(InputError, match="no more rows"):
        rewritten(llama, tmp_path / "out", "lm_head.weight", change=Broken)


# faults


def test_a_file_that_the_index_names_and_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = new_base(tmp_path / "base", "llama")
    gone = sorted(folder.glob("*.safetensors"))[1]
    gone.unlink()
    assert refusal(folder) == f"{folder / INDEX}: names {gone.name}, which is missing; fetch the model again"


@pytest.mark.parametrize("left", [0, 4, 100, -1, -1000])
def test_a_file_cut_short_is_named(left: int, tmp_path: Path) -> None:
    folder = new_base(tmp_path / "base", "llama")
    cut = sorted(folder.glob("*.safetensors"))[1]
    cut.write_bytes(cut.read_bytes()[:left])
    assert refusal(folder).startswith(f"{cut}: is truncated or damaged (")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"weight_map": 3}'])
def test_an_invalid_index_is_rejected(content: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(content)
    assert refusal(tmp_path).startswith(f"{tmp_path / INDEX}: not an index of weights (")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}: has neither {SINGLE_FILE} nor {INDEX}; fetch the model again"


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(100)}, tmp_path / SINGLE_FILE)
    stored = Shards.of(tmp_path).tensors["a"]
    (tmp_path / SINGLE_FILE).write_bytes((tmp_path / SINGLE_FILE).read_bytes()[:-4])
    with pytest.raises(InputError, match="ends within a; the file was changed while it was read"):
        stored.read()
