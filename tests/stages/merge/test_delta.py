"""delta and changes: what peft makes of every kind of adapter, to the bit in float32, and rounded once in the other types."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.merge.changes import Changes, plan_changes
from stages.merge.delta import Change, LowRank
from tests.stages.merging import ARCHITECTURES, ONE_FILE, merged_by_peft, new_adapter, new_base
from tunepress.core.errors import InputError
from tunepress.models import shards
from tunepress.models.bnb_4bit import Quantization
from tunepress.models.hf_model import empty_model
from tunepress.models.peft_adapter import PeftAdapter
from tunepress.models.shards import Shards, read_header

LAYERS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
CONV1D = ["c_attn", "c_fc", "c_proj"]


@dataclass(frozen=True)
class Variant:
    base: str = "phi3"
    options: dict[str, Any] = field(default_factory=dict)


VARIANTS = {
    "lora": Variant(),
    "lora of all": Variant(options={"target_modules": "all-linear"}),
    "lora by a pattern": Variant(options={"target_modules": r".*layers\.1\.(self_attn\.o_proj|mlp\.down_proj)"}),
    "lora of one layer": Variant(options={"layers_to_transform": [1]}),
    "lora of separate projections": Variant("llama", {"target_modules": ["q_proj", "v_proj", "up_proj"]}),
    "a rank above the width": Variant(options={"r": 200}),
    "rslora": Variant(options={"use_rslora": True}),
    "dora": Variant(options={"use_dora": True}),
    "rslora with dora": Variant(options={"use_dora": True, "use_rslora": True}),
    "patterns": Variant(
        options={"rank_pattern": {"down_proj": 3, r"layers\.1\.self_attn\.o_proj": 5}, "alpha_pattern": {"o_proj": 7}}
    ),
    "patterns with rslora": Variant(
        options={"rank_pattern": {"down_proj": 3}, "alpha_pattern": {"o_proj": 7}, "use_rslora": True}
    ),
    "lora_bias": Variant("llama", {"target_modules": ["q_proj", "down_proj"], "lora_bias": True}),
    "all biases": Variant("llama", {"target_modules": ["q_proj", "down_proj"], "bias": "all"}),
    "biases of the layers": Variant("llama", {"target_modules": ["q_proj", "down_proj"], "bias": "lora_only"}),
    "both kinds of biases": Variant("llama", {"target_modules": ["q_proj", "down_proj"], "bias": "all", "lora_bias": True}),
    "modules_to_save": Variant(options={"modules_to_save": ["lm_head", "model.norm", "embed_tokens"]}),
    "a layer saved whole": Variant("llama", {"target_modules": ["q_proj"], "modules_to_save": ["o_proj"]}),
    "the head": Variant(options={"target_modules": [*LAYERS, "lm_head"]}),
    "the embedding": Variant(options={"target_modules": [*LAYERS, "embed_tokens"]}),
    "head and embedding": Variant(options={"target_modules": ["lm_head", "embed_tokens"]}),
    "the embedding with dora": Variant(options={"target_modules": ["o_proj", "embed_tokens"], "use_dora": True}),
    "the embedding with rslora": Variant(options={"target_modules": ["embed_tokens"], "use_rslora": True}),
    "Conv1D": Variant("gpt2", {"target_modules": CONV1D, "fan_in_fan_out": True}),
    "Conv1D with dora": Variant("gpt2", {"target_modules": CONV1D, "fan_in_fan_out": True, "use_dora": True}),
    "Conv1D and biases": Variant(
        "gpt2", {"target_modules": CONV1D, "fan_in_fan_out": True, "bias": "lora_only", "lora_bias": True}
    ),
    "mica": Variant(options={"init_lora_weights": "mica"}),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of about seven rows."""
    monkeypatch.setattr(shards, "BLOCK", 500)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: new_base(folder / name, name) for name in ARCHITECTURES}


def planned(base: Path, adapter: Path, quantization: Quantization | None = None) -> Changes:
    return plan_changes(empty_model(base), Shards.of(base), PeftAdapter.load(adapter), quantization)


def merged(base: Path, adapter: Path, folder: Path, quantization: Quantization | None = None) -> dict[str, torch.Tensor]:
    """The tensors that a merge writes."""
    folder.mkdir()
    Shards.of(base).write(folder, planned(base, adapter, quantization).tensors)
    return {name: stored.read() for name, stored in Shards.of(folder).tensors.items()}


def adapter_of(variant: Variant, base: Path, folder: Path) -> Path:
    new_adapter(folder, base, **({"target_modules": LAYERS} | variant.options))
    return folder


def refusal(base: Path, adapter: Path) -> str:
    with pytest.raises(InputError) as refused:
        planned(base, adapter)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def configured(adapter: Path, **fields: Any) -> Path:
    """The adapter with other values in its configuration."""
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return adapter


# equal to peft's


@pytest.mark.parametrize("name", VARIANTS)
def test_float32_weights_become_pefts_own_to_the_bit(name: str, bases: dict[str, Path], tmp_path: Path) -> None:
    base = bases[VARIANTS[name].base]
    adapter = adapter_of(VARIANTS[name], base, tmp_path / "adapter")
    actual, expected = merged(base, adapter, tmp_path / "merged"), merged_by_peft(base, adapter).state_dict()
    before = {stored_name: stored.read() for stored_name, stored in Shards.of(base).tensors.items()}
    assert actual.keys() == expected.keys()
    different = [stored_name for stored_name, tensor in actual.items() if not torch.equal(tensor, expected[stored_name])]
    assert different == []
    changed = {stored_name for stored_name, tensor in actual.items() if not torch.equal(tensor, before[stored_name])}
    assert changed == planned(base, adapter).tensors.keys()  # no change that changes nothing, and none beside them


@pytest.mark.parametrize(
    "name", ["lora", "rslora", "dora", "both kinds of biases", "modules_to_save", "the embedding with dora", "Conv1D"]
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_weights_of_16_bits_are_the_float32_sum_rounded_once(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    base = new_base(tmp_path / "base", VARIANTS[name].base, dtype)
    adapter = adapter_of(VARIANTS[name], base, tmp_path / "adapter")
    actual, exact = merged(base, adapter, tmp_path / "merged"), merged_by_peft(base, adapter).state_dict()
    assert all(rounded_once(tensor, exact[tensor_name]) for tensor_name, tensor in actual.items())
    twice = merged_by_peft(base, adapter, dtype).state_dict()
    if name not in ("modules_to_save", "dora", "the embedding with dora"):  # peft adds nothing, or as is done here
        assert not all(rounded_once(tensor, exact[tensor_name]) for tensor_name, tensor in twice.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_an_adapter_of_16_bits_is_computed_with_in_float32(dtype: torch.dtype, bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_of(VARIANTS["dora"], bases["phi3"], tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: tensor.to(dtype) for name, tensor in weights.items()}, adapter / "adapter_model.safetensors")
    actual, expected = merged(bases["phi3"], adapter, tmp_path / "merged"), merged_by_peft(bases["phi3"], adapter).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in actual.items())


def rounded_once(tensor: torch.Tensor, exact: torch.Tensor) -> bool:
    """Whether it is at most half a step away; a float32 sum may itself be a little beside the exact one."""
    return torch.allclose(tensor.float(), exact, rtol=torch.finfo(tensor.dtype).eps / 2, atol=1e-7)


@pytest.mark.parametrize("rank", [1, 8, 64, 300])
@pytest.mark.parametrize("shape", [(3072, 1000), (517, 4096), (130, 77)])
@pytest.mark.parametrize("transposed", [False, True])
def test_rows_of_a_float32_weight_are_those_of_the_whole_to_the_bit_however_it_is_cut(
    transposed: bool, shape: tuple[int, int], rank: int, tmp_path: Path
) -> None:
    rows, columns = shape
    noise = torch.Generator().manual_seed(0)
    a, b = torch.randn(rank, columns, generator=noise), torch.randn(rows, rank, generator=noise)
    weight = torch.randn(shape[::-1] if transposed else shape, generator=noise)
    save_file({"a": a, "b": b, "weight": weight}, tmp_path / "it.safetensors")
    stored = read_header(tmp_path / "it.safetensors")
    change = Change("weight", stored["weight"], stored["weight"], product=LowRank(stored["a"], stored["b"], 0.37, transposed))
    whole = weight + ((b @ a).T if transposed else b @ a) * 0.37
    made = change.open()
    for step in (1, 13, 100, len(weight)):
        for first in range(0, len(weight), step)[:20]:
            last = min(first + step, len(weight))
            assert torch.equal(made(first, last), whole[first:last])


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("targets", [LAYERS, ["o_proj"], ["o_proj", "lm_head"]], ids=str)
def test_rounded_weights_are_what_the_adapter_is_added_to(
    targets: list[str], double: bool, bases: dict[str, Path], tmp_path: Path
) -> None:
    base, quantization = bases["phi3"], Quantization("nf4", double, compensated=False, dtype="float32")
    adapter = adapter_of(Variant(options={"target_modules": targets}), base, tmp_path / "adapter")
    before, plain = ({name: stored.read() for name, stored in Shards.of(base).tensors.items()} for _ in range(2))
    actual = merged(base, adapter, tmp_path / "merged", quantization)
    (tmp_path / "rounded").mkdir()
    rounded = {name: quantization.round_trip(tensor) if "_proj" in name else tensor for name, tensor in before.items()}
    for file in (*base.glob("*.json"), *base.glob("*.jinja")):
        (tmp_path / "rounded" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "rounded" / shards.INDEX).unlink()
    save_file(rounded, tmp_path / "rounded" / shards.SINGLE_FILE, {"format": "pt"})
    expected = merged_by_peft(tmp_path / "rounded", adapter).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in actual.items())
    assert all(not torch.equal(tensor, plain[name]) for name, tensor in actual.items() if "_proj" in name)
    assert torch.equal(actual["lm_head.weight"], plain["lm_head.weight"]) == ("lm_head" not in targets)


def test_only_what_looks_at_a_whole_weight_is_not_divided(bases: dict[str, Path], tmp_path: Path) -> None:
    def divisible(variant: str, quantization: Quantization | None = None) -> dict[bool, int]:
        base = bases[VARIANTS[variant].base]
        plan = planned(base, adapter_of(VARIANTS[variant], base, tmp_path / variant), quantization)
        kinds = [change.divisible for change in plan.tensors.values()]
        return {kind: kinds.count(kind) for kind in set(kinds)}

    assert divisible("dora") == {True: 8}
    assert divisible("Conv1D") == {True: 8}
    assert divisible("the embedding with dora") == {True: 2, False: 1}
    assert divisible("lora", Quantization("nf4", True, compensated=False, dtype="float32")) == {False: 8}


def test_a_single_file_stays_one(tmp_path: Path) -> None:
    base = new_base(tmp_path / "base", "phi3", max_shard_size=ONE_FILE)
    merged(base, adapter_of(Variant(), base, tmp_path / "adapter"), tmp_path / "merged")
    assert [file.name for file in (tmp_path / "merged").iterdir()] == ["model.safetensors"]


# refused


def refused_variant(bases: dict[str, Path], folder: Path, base: str = "phi3", **fields: Any) -> str:
    return refusal(bases[base], configured(adapter_of(Variant(), bases["phi3"], folder / "adapter"), **fields))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_parameters", ["mlp.down_proj.weight"]),
        ("trainable_token_indices", [1, 2]),
        ("layer_replication", [[0, 2], [1, 2]]),
        ("alora_invocation_tokens", [5]),
        ("use_bdlora", {"nblocks": 2, "target_modules_bd_a": ["o_proj"]}),
        ("arrow_config", {"top_k": 1}),
        ("kasa_config", {}),
        ("velora_config", {}),
        ("monteclora_config", {}),
        ("use_qalora", True),
        ("megatron_config", {"a": 1}),
    ],
)
def test_an_adapter_that_is_more_than_products_is_refused(name: str, value: Any, bases: dict[str, Path], tmp_path: Path) -> None:
    message = refused_variant(bases, tmp_path, **{name: value})
    assert message == f"{tmp_path}/adapter/adapter_config.json: {name} is not supported; merge this adapter with peft"


@pytest.mark.parametrize("kind", ["MISS", "LOHA", "PREFIX_TUNING", "NEWEST"])
def test_other_types_of_adapters_are_refused(kind: str, bases: dict[str, Path], tmp_path: Path) -> None:
    assert f"peft_type must be LORA, got {kind}; merge this adapter with peft" in refused_variant(bases, tmp_path, peft_type=kind)


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "corda", "lora_ga"])
def test_an_adapter_whose_base_has_moved_is_refused(init: str, bases: dict[str, Path], tmp_path: Path) -> None:
    assert "path_initial_model_for_weight_conversion" in refused_variant(bases, tmp_path, init_lora_weights=init)


def test_an_adapter_without_weights_or_configuration_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_of(Variant(), bases["phi3"], tmp_path / "adapter")
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert refusal(bases["phi3"], adapter).startswith(f"{adapter}/adapter_model.safetensors: not found; ")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"')
    assert refusal(bases["phi3"], adapter).startswith(f"{adapter}/adapter_config.json: not an adapter's configuration (")
    (adapter / "adapter_config.json").unlink()
    assert refusal(bases["phi3"], adapter).startswith(f"{adapter}/adapter_config.json: not found")


def test_an_adapter_cut_short_is_named(bases: dict[str, Path], tmp_path: Path) -> None:
    weights = adapter_of(Variant(), bases["phi3"], tmp_path / "adapter") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert refusal(bases["phi3"], weights.parent).startswith(f"{weights}: is truncated or damaged (")


def test_an_adapter_of_a_wider_model_names_its_first_tensor_and_both_shapes(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_of(Variant(), bases["phi3"], tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
    assert min(weights) == name
    weights[name] = torch.zeros(8, 109)
    save_file(weights, adapter / "adapter_model.safetensors")
    expected = f"{name} has the shape [8, 109], the base model needs [8, 108]; the adapter belongs to another one"
    assert refusal(bases["phi3"], adapter) == f"{adapter}/adapter_model.safetensors: {expected}"


def test_an_adapter_of_a_deeper_or_a_shallower_model_names_its_first_tensor(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_of(Variant(), bases["phi3"], tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    deeper = weights | {name.replace("layers.1", "layers.2"): tensor.clone() for name, tensor in weights.items()}
    save_file(deeper, adapter / "adapter_model.safetensors")
    first = "base_model.model.model.layers.2.mlp.down_proj.lora_A.weight"
    assert f"the base model has no place for {first}; " in refusal(bases["phi3"], adapter)
    save_file({name: tensor for name, tensor in weights.items() if "layers.1" not in name}, adapter / "adapter_model.safetensors")
    assert "base_model.model.model.layers.1.self_attn.o_proj.lora_A.weight is missing; the adapter belongs" in refusal(
        bases["phi3"], adapter
    )


def test_an_adapter_of_another_architecture_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_of(Variant(), bases["phi3"], tmp_path / "adapter")
    assert "the base model has no place for " in refusal(bases["llama"], adapter)  # some of its layers are called the same
    assert "does not fit the base model (Target modules " in refusal(bases["gpt2"], adapter)


def test_a_bias_without_a_place_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_of(Variant(options={"lora_bias": True}), bases["phi3"], tmp_path / "adapter")
    assert "lora_bias adds a bias to model.layers.0.self_attn.o_proj, which has none in the base model; " in refusal(
        bases["phi3"], adapter
    )


def test_a_base_whose_weights_are_not_floats_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    adapter = adapter_of(Variant(), bases["phi3"], tmp_path / "adapter")
    base = new_base(tmp_path / "base", "phi3", max_shard_size=ONE_FILE)
    weights = load_file(base / shards.SINGLE_FILE)
    name = "model.layers.1.mlp.down_proj.weight"
    save_file(weights | {name: weights[name].to(torch.float8_e4m3fn)}, base / shards.SINGLE_FILE, {"format": "pt"})
    file = base / shards.SINGLE_FILE
    assert refusal(base, adapter) == f"{file}: {name} is of type F8_E4M3, not F32, F16, BF16; use a float model"


@pytest.mark.parametrize(("left", "actual"), [(None, "is missing"), (50, "has the shape [72, 50]")])
def test_a_base_that_is_not_what_its_configuration_says_is_refused(
    left: int | None, actual: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = adapter_of(Variant(), bases["phi3"], tmp_path / "adapter")
    base = new_base(tmp_path / "base", "phi3", max_shard_size=ONE_FILE)
    weights = load_file(base / shards.SINGLE_FILE)
    name = "model.layers.1.mlp.down_proj.weight"
    changed = weights.pop(name)[:, :left].contiguous()
    save_file(weights | ({name: changed} if left else {}), base / shards.SINGLE_FILE, {"format": "pt"})
    assert refusal(base, adapter) == (f"{base}: {name} {actual}; by config.json its shape is [72, 108]; fetch the model again")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("factor", ["lora_A", "lora_B"])
def test_nan_and_infinity_name_the_tensor_that_would_hold_them(
    value: float, factor: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    adapter = adapter_of(Variant(), bases["phi3"], tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    weights[f"base_model.model.model.layers.1.self_attn.o_proj.{factor}.weight"][3, 2] = value
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"^model\.layers\.1\.self_attn\.o_proj\.weight: would contain NaN or infinity"):
        merged(bases["phi3"], adapter, tmp_path / "merged")


def test_a_sum_beyond_float16_is_infinite_and_said_to_be(tmp_path: Path) -> None:
    base = new_base(tmp_path / "base", "phi3", torch.float16)
    adapter = configured(adapter_of(Variant(), base, tmp_path / "adapter"), lora_alpha=10**8)
    with pytest.raises(InputError, match="would contain NaN or infinity after merging"):
        merged(base, adapter, tmp_path / "merged")


def test_large_values_whose_sum_is_beyond_float32_are_no_fault(tmp_path: Path) -> None:
    save_file({"a": torch.full((1, 4), 3e38), "b": torch.ones(2, 1)}, tmp_path / "a.safetensors")
    stored = read_header(tmp_path / "a.safetensors")
    change = Change("a", stored["a"], stored["a"], product=LowRank(stored["a"], stored["b"], 0.0))
    assert torch.equal(change.open()(0, 1), torch.full((1, 4), 3e38))
