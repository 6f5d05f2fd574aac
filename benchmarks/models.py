"""Models that benchmarks make: random weights in a real shape, with an adapter, and a configuration to build them."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.doctor.known_models import KNOWN
from tunepress.config.build import Adapters, Build
from tunepress.core.files import write_json
from tunepress.core.paths import ADAPTER, BASE

SHARD = 5_000_000_000  # bytes, as transformers wrote Phi-3-mini's files
SEED, DEVIATION = 0, 0.02  # of the random weights

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Shape:
    """A model and the rows that it is trained on."""

    config: dict[str, Any]  # fields of transformers' config, with model_type
    model_bytes: int  # in bfloat16
    tokens: int  # of a packed sequence
    shortest: int  # tokens of the shortest row
    median: int  # half of the rows have fewer tokens
    longest: int  # tokens of the longest row
    rank: int  # of the adapter, and its alpha
    matrix: int  # rows and columns of the product that the GPU's rate is measured with


LARGE: dict[str, Any] = {"tokens": 2048, "shortest": 40, "median": 180, "longest": 600, "rank": 64, "matrix": 8192}
SHAPES = {
    "phi3-mini": Shape(
        KNOWN["Phi-3-mini-4k-instruct"],
        model_bytes=7_642_000_000,
        **LARGE,
    ),
    "qwen3-4b": Shape(
        KNOWN["Qwen3-4B"],
        model_bytes=8_045_000_000,
        **LARGE,
    ),
    "llama3.2-3b": Shape(
        KNOWN["Llama-3.2-3B-Instruct"],
        model_bytes=6_426_000_000,
        **LARGE,
    ),
    "tiny": Shape(
        {
            "model_type": "phi3",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "vocab_size": 320,
            "max_position_embeddings": 512,
            "original_max_position_embeddings": 512,
            "rope_theta": 10000.0,
            "sliding_window": 255,
        },
        model_bytes=300_000,
        tokens=256,
        shortest=10,
        median=40,
        longest=120,
        rank=8,
        matrix=512,
    ),
}


def add_shape(parser: Any) -> None:
    """Adds the option --shape."""
    parser.add_argument("--shape", choices=list(SHAPES), default="phi3-mini", help="of the model (default: %(default)s)")


def base_and_adapter(shape: str) -> dict[str, Any]:
    """Makes models/base in bfloat16 and models/adapter in float32, as training leaves them."""
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    from tunepress.text.prompt import Prompt

    torch.manual_seed(SEED)
    rank = SHAPES[shape].rank
    model, files = random_model(SHAPES[shape].config, BASE)
    parameters = model.num_parameters()
    config = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=rank, target_modules="all-linear")
    adapted = get_peft_model(model, config, low_cpu_mem_usage=True)
    config.save_pretrained(ADAPTER)
    factors = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    write_random(shapes_of(factors), torch.float32, ADAPTER / "adapter_model.safetensors")
    Prompt("{text}", "{answer}", None, source_max_len=1).save(ADAPTER)
    return {"parameters": parameters, "files": files, "r": rank}


def random_model(config: dict[str, Any], folder: Path, tokenizer: Path | None = None) -> tuple[Any, int]:
    """Writes a model with random bfloat16 weights, file by file.

    Args:
        config: fields of its configuration, with model_type.
        folder: where it is written.
        tokenizer: a model folder whose tokenizer it has, without the tokens for which its vocabulary is too small; by default
            its tokens are bytes.

    Returns:
        The model without its weights, and the number of files.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    from tunepress.models.hf_model import load_tokenizer
    from tunepress.models.random_model import byte_tokenizer

    chosen = limit_vocabulary(load_tokenizer(tokenizer), config["vocab_size"]) if tokenizer else byte_tokenizer()
    end = chosen.eos_token_id
    special = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**config, **special, "dtype": "bfloat16"}))
    model.tie_weights()
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    GenerationConfig(**special).save_pretrained(folder)
    chosen.save_pretrained(folder)
    return model, write_weights(shapes_of(dict(model.named_parameters())), folder)


def limit_vocabulary(tokenizer: Any, size: int) -> Any:
    """The tokenizer without the tokens from `size` on, which are the last merges of byte pair encoding."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = {token: number for token, number in state["model"]["vocab"].items() if number < size}
    merges = [pair for pair in state["model"]["merges"] if "".join(pair) in vocabulary]
    state["model"] |= {"vocab": vocabulary, "merges": merges}
    limited, template = Tokenizer.from_str(json.dumps(state)), tokenizer.chat_template
    return PreTrainedTokenizerFast(tokenizer_object=limited, eos_token=tokenizer.eos_token, chat_template=template)


def shapes_of(tensors: dict[str, Any]) -> Shapes:
    """The shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def write_weights(shapes: Shapes, folder: Path) -> int:
    """Writes random bfloat16 weights in files of up to SHARD bytes with an index; returns the number of files."""
    import torch

    groups: list[Shapes] = [{}]
    size = 0
    for name, shape in shapes.items():
        if size and size + 2 * math.prod(shape) > SHARD:
            groups.append({})
            size = 0
        groups[-1][name] = shape
        size += 2 * math.prod(shape)
    names = [f"model-{number:05}-of-{len(groups):05}.safetensors" for number in range(1, len(groups) + 1)]
    for name, group in zip(names, groups, strict=True):
        write_random(group, torch.bfloat16, folder / name)
    weight_map = {tensor: name for name, group in zip(names, groups, strict=True) for tensor in group}
    total = sum(2 * math.prod(shape) for shape in shapes.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})
    return len(groups)


def write_random(shapes: Shapes, dtype: Any, file: Path) -> None:
    """Writes tensors with normally distributed values."""
    import torch
    from safetensors.torch import save_file

    save_file({name: (torch.randn(shape) * DEVIATION).to(dtype) for name, shape in shapes.items()}, file, {"format": "pt"})


def import_torch() -> dict[str, Any]:
    """Does nothing else: the memory of a process that has imported torch."""
    import torch

    return {"torch": torch.__version__}


def recipe(precision: str = "int4", execution_provider: str = "cpu", **options: Any) -> Build:
    """The stage build's configuration with the builder's own choices except for `options`, whatever the defaults of conf/ are."""
    unset = ("algo_config", "block_size", "accuracy_level", "is_symmetric", "matmul_mixed_precision", "n_samples")
    fixed = {"nodes_to_exclude": [], "adapters": Adapters.merged, "extra_options": {}}
    choices: dict[str, Any] = dict.fromkeys(unset) | fixed | options
    return Build(precision, execution_provider, **choices)
