"""The trainer on tiny random models of many architectures: the gradient of a batch is the sum of those of its examples."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from stages.train import stage as train
from stages.train.adapter import with_adapter
from stages.train.last_layer import skip_unread_positions
from stages.train.trainer import BY_EXAMPLE, FlatteningCollator, attention_of, joinable, must_split, split, summed_loss
from tests.conftest import ROOT
from tests.stages.training import WEIGHTS, curve, refusal, sections
from tunepress.config.train import Train
from tunepress.core.paths import BASE
from tunepress.models.hf_model import load_tokenizer
from tunepress.models.threads import DeterministicThreads
from tunepress.text.tokenizer import IGNORE_INDEX

SIZE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MAMBA: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
WINDOW: dict[str, Any] = {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 0}
JOINED: dict[str, dict[str, Any]] = {
    "llama": {},
    "phi3": WINDOW,
    "mistral": WINDOW,
    "qwen2": WINDOW,
    "qwen3": WINDOW | {"layer_types": ["sliding_attention", "full_attention"]},
    "gemma2": WINDOW | {"query_pre_attn_scalar": 8},
    "gemma3_text": WINDOW | {"query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "qwen2_moe": WINDOW | EXPERTS | {"shared_expert_intermediate_size": 16, "layer_types": ["sliding_attention"] * 2},
    "phimoe": WINDOW | EXPERTS,
    "mixtral": WINDOW | EXPERTS,
    "llama4_text": EXPERTS | {"attention_chunk_size": 4, "interleave_moe_layer_step": 2, "intermediate_size_mlp": 48},
    "granite": {},
    "gpt_neox": {},
    "phi": {},
    "olmo2": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": 0.0},
}
APART: dict[str, dict[str, Any]] = {
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "granitemoehybrid": MAMBA | EXPERTS | {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 32},
    "bamba": MAMBA | {"attn_layer_indices": [1]},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 64},
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "num_heads": 8, "n_groups": 1, "chunk_size": 8},
    "qwen3_next": EXPERTS
    | {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "shared_expert_intermediate_size": 16,
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "attention_window_size": 4, "lru_width": 32},
    "rwkv": {"attention_hidden_size": 32},
    "bloom": {"n_head": 4, "n_layer": 2},
    "gptj": {"n_embd": 32, "n_head": 4, "n_layer": 2, "rotary_dim": 8, "n_positions": 64},
    "falcon": {"head_dim": None},
    "gpt_oss": WINDOW | EXPERTS,
}
GENERATOR = torch.Generator().manual_seed(0)
EXAMPLES = [torch.randint(3, 64, (length,), generator=GENERATOR).tolist() for length in (9, 14, 3, 11)]
BATCH = [[{"input_ids": tokens, "labels": [IGNORE_INDEX] * 2 + tokens[2:]}] for tokens in EXAMPLES]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def settings(root: Path) -> Train:
    chosen: Train = sections(root).train
    return chosen


def made(model_type: str, attention: str, **options: Any) -> PreTrainedModel:
    """A random model, whose weights depend on its architecture alone."""
    torch.manual_seed(0)
    inputs = {name: value for name, value in (SIZE | options).items() if value is not None}
    config = AutoConfig.for_model(model_type, **inputs)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)
    for name, weight in model.named_parameters():  # some start as zeros or ones, by which nothing would be carried on
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3 if "conv" in name else 0.1)
    return model.train()


def trained(model_type: str, settings: Train, **options: Any) -> PreTrainedModel:
    """The model as `stages.train` sets it up."""
    outline = made(model_type, "eager", **options)
    return made(model_type, attention_of(outline, settings), **options)


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    actual = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return actual


def of_each_alone(model: PreTrainedModel) -> tuple[float, dict[str, torch.Tensor]]:
    """The summed loss and its gradients, of each example as transformers runs a single text."""
    total = 0.0
    for sequence in BATCH:
        tokens, labels = (torch.tensor([sequence[0][name]]) for name in ("input_ids", "labels"))
        logits = model(input_ids=tokens, use_cache=False).logits[0, :-1]
        loss = cross_entropy(logits, labels[0, 1:], reduction="sum", ignore_index=IGNORE_INDEX)
        loss.backward()
        total += loss.item()
    return total, gradients(model)


def of_batch(model: PreTrainedModel, split_examples: bool) -> tuple[float, dict[str, torch.Tensor]]:
    """The same of the batch, as PaddingFreeTrainer runs it."""
    by_example = model.config._attn_implementation == BY_EXAMPLE
    loss, count, _ = summed_loss(
        model, FlatteningCollator(by_example, on_host=by_example or split_examples)(BATCH), split_examples
    )
    assert count == sum(len(tokens) - 2 for tokens in EXAMPLES)
    loss.backward()
    return loss.item(), gradients(model)


def assert_batch_is_its_examples(model: PreTrainedModel, reference: PreTrainedModel, split_examples: bool) -> None:
    reference.load_state_dict(model.state_dict())
    (expected, alone), (loss, together) = of_each_alone(reference), of_batch(model, split_examples)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert together.keys() == alone.keys()
    largest = max(gradient.abs().max().item() for gradient in alone.values())
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, alone[name], atol=1e-5 * largest, rtol=1e-3, msg=name)


@pytest.mark.parametrize("model_type", JOINED)
def test_a_joined_batch_has_the_gradient_of_its_examples(model_type: str, settings: Train) -> None:
    model = trained(model_type, settings, **JOINED[model_type])
    assert joinable(model) and not must_split(model)
    expected = "eager" if model_type == "gemma2" else BY_EXAMPLE
    assert model.config._attn_implementation == expected
    assert_batch_is_its_examples(model, made(model_type, "eager", **JOINED[model_type]), split_examples=False)


@pytest.mark.parametrize("model_type", APART)
def test_a_model_that_carries_a_state_is_trained_example_by_example(model_type: str, settings: Train) -> None:
    model = trained(model_type, settings, **APART[model_type])
    assert must_split(model)
    assert joinable(model) == (model_type == "gpt_oss")  # which only masks by the places in a row
    assert_batch_is_its_examples(model, made(model_type, "eager", **APART[model_type]), split_examples=True)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model_type", JOINED)
def test_another_attention_joins_examples_only_where_it_keeps_them_apart(
    model_type: str, attention: str, settings: Train
) -> None:
    if model_type == "gemma2" and attention == "sdpa":
        pytest.skip("transformers has no sdpa for it")
    settings.attn_implementation = attention
    model = trained(model_type, settings, **JOINED[model_type])
    assert model.config._attn_implementation == attention
    assert must_split(model) == (model_type == "opt")
    assert_batch_is_its_examples(model, made(model_type, "eager", **JOINED[model_type]), split_examples=must_split(model))
    assert model.training


@pytest.mark.parametrize("model_type", ["lfm2", "granitemoehybrid", "mamba"])
def test_joined_they_would_not_be_what_they_are_alone(model_type: str, settings: Train) -> None:
    model = trained(model_type, settings, **APART[model_type])
    expected, _ = of_each_alone(model)
    loss, _ = of_batch(model, split_examples=False)
    assert abs(loss - expected) > 1e-4 * expected


@pytest.mark.parametrize("model_type", ["mistral", "qwen2_moe", "phimoe", "llama4_text"])
def test_a_window_shorter_than_the_rows_matters(model_type: str, settings: Train) -> None:
    options = JOINED[model_type]
    wide = options | {"sliding_window": 64, "attention_chunk_size": 64}
    losses = [of_batch(trained(model_type, settings, **chosen), split_examples=False)[0] for chosen in (options, wide)]
    assert abs(losses[0] - losses[1]) > 1e-4 * losses[0]


def test_the_examples_of_a_batch_are_split_where_they_begin() -> None:
    parts = list(split(FlatteningCollator(False, on_host=True)(BATCH)))
    assert [part["input_ids"][0].tolist() for part in parts] == EXAMPLES
    assert [part["position_ids"][0].tolist() for part in parts] == [list(range(len(tokens))) for tokens in EXAMPLES]
    assert [part["labels"][0].tolist() for part in parts] == [sequence[0]["labels"] for sequence in BATCH]


@pytest.mark.slow
def test_a_compiled_model_is_one_graph_for_batches_of_any_examples(settings: Train) -> None:
    settings.torch_compile = True
    chosen = sections(ROOT, adapter={"lora_dropout": 0.1}).adapter
    model = with_adapter(trained("phi3", settings), chosen, 0, Path())
    assert model.config._attn_implementation == "sdpa"
    skip_unread_positions(model.get_base_model())
    DeterministicThreads(model)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled: Any = torch.compile(model, backend="aot_eager")
    for batch in (BATCH, BATCH[::-1], [BATCH[0]] * 5, BATCH[:3], BATCH[1:]):
        summed_loss(compiled, FlatteningCollator(False)(batch))[0].backward()
    counters = torch._dynamo.utils.counters
    assert dict(counters["graph_break"]) == {}
    assert counters["stats"]["unique_graphs"] <= 2  # for one number of tokens, then for any
    torch._dynamo.reset()


@pytest.fixture
def hybrid(inside: Path, tiny_phi3: Path, tmp_path: Path) -> Iterator[None]:
    """A project whose base model is a random LFM2."""
    folder, base = tmp_path / "base", inside / BASE
    shutil.copytree(tiny_phi3, folder)
    vocabulary = {"vocab_size": len(load_tokenizer(folder)), "eos_token_id": 1}
    made("lfm2", "eager", **APART["lfm2"] | vocabulary).save_pretrained(folder)
    before = base.resolve()
    base.unlink()
    base.symlink_to(folder)
    yield
    base.unlink()
    base.symlink_to(before)


def test_the_stage_trains_a_batch_of_a_hybrid_model_as_its_examples(
    hybrid: None, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain: dict[str, Any] = {"adapter": {"target_modules": "all-linear"}, "optim": "sgd", "learning_rate": 0.1}
    train.main(sections(root, **plain))
    assert ", one example at a time (" in capsys.readouterr().out
    batches, losses = load_file(WEIGHTS), curve("train/loss") | curve("eval/loss")
    alone = {"per_device_train_batch_size": 1, "per_device_eval_batch_size": 1, "gradient_accumulation_steps": 4}
    for same in (alone, {"gradient_checkpointing": True}):
        train.main(sections(root, **plain, **same))
        assert curve("train/loss") | curve("eval/loss") == pytest.approx(losses, abs=1e-4)
        for name, tensor in load_file(WEIGHTS).items():
            torch.testing.assert_close(tensor, batches[name], atol=1e-6, rtol=1e-3)


def test_several_examples_of_a_sequence_do_not_go_with_fsdp(hybrid: None, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = train.read_examples

    def packed_rows(cfg: Train) -> Any:
        examples = read(cfg)
        return examples | {"train": [sequence * 2 for sequence in examples["train"]]}

    monkeypatch.setattr(train, "read_examples", packed_rows)
    refused = refusal(sections(root, fsdp=True, num_processes=2, adapter={"target_modules": "all-linear"}))
    assert refused == "train.fsdp: this architecture is trained one example at a time; set data.corpus_strategy=line-by-line"
