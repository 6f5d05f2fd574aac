"""Every use of a private API of Hydra, transformers, peft, the builder and Optuna is listed here, and exists as it is used.

Private: a name that begins with an underscore, and whatever is imported from a module that is not in PUBLIC. After an upgrade of
one of the packages these tests fail: read what changed at the links of its entries, then correct the entries and VERSIONS.
"""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest

VERSIONS = {
    "hydra-core": "1.3.8",
    "onnxruntime-genai": "0.18.0",
    "optuna": "5.0.0",
    "peft": "0.21.2",
    "transformers": "5.23.0",
}
SOURCES = {
    "hydra-core": "https://github.com/facebookresearch/hydra/blob/v{version}/",
    "onnxruntime-genai": "https://github.com/microsoft/onnxruntime-genai/blob/v{version}/src/python/py/",
    "optuna": "https://github.com/optuna/optuna/blob/v{version}/",
    "peft": "https://github.com/huggingface/peft/blob/v{version}/src/",
    "transformers": "https://github.com/huggingface/transformers/blob/v{version}/src/",
}
PUBLIC = {  # modules that the packages document
    *("accelerate", "accelerate.utils", "omegaconf", "omegaconf.errors", "onnxruntime_genai"),
    *("hydra", "hydra.core.config_store", "hydra.errors", "hydra.utils"),
    *("hydra.core.override_parser.overrides_parser", "hydra.core.override_parser.types"),
    *("optuna", "optuna.exceptions", "optuna.samplers", "optuna.storages", "optuna.storages.journal", "optuna.trial"),
    *("peft", "peft.tuners", "peft.tuners.lora", "peft.utils"),
    *("transformers", "transformers.trainer_utils", "transformers.utils", "transformers.utils.logging"),
}
PACKAGES = {module.partition(".")[0] for module in PUBLIC}


@dataclass(frozen=True)
class Use:
    """A private name and the modules that use it.

    Attributes:
        package: a key of VERSIONS.
        owner: the module or class that has the name.
        name: the name.
        parameters: of a function, all of them; None for an attribute.
        source: the file at its upstream, below SOURCES.
        modules: of this project.
    """

    package: str
    owner: str
    name: str
    parameters: str | None
    source: str
    modules: tuple[str, ...]

    @property
    def link(self) -> str:
        """Where upstream defines it."""
        return SOURCES[self.package].format(version=VERSIONS[self.package]) + self.source


TRAINER = ("transformers", "transformers.Trainer")
MODEL = ("transformers", "transformers.PreTrainedModel")
EPOCH = (
    "self model epoch train_dataloader steps_in_epoch num_update_steps_per_epoch trial ignore_keys_for_eval start_time "
    "resume_from_checkpoint epochs_trained steps_trained_in_current_epoch"
)
USES = [
    Use(
        "hydra-core",
        "hydra._internal.config_loader_impl.ConfigLoaderImpl",
        "_apply_overrides_to_config",
        "overrides cfg",
        "hydra/_internal/config_loader_impl.py",
        ("tunepress/config/plugin/overrides.py",),
    ),
    Use(*TRAINER, "_run_epoch", EPOCH, "transformers/trainer.py", ("stages/train/checkpoints.py",)),
    Use(
        *TRAINER,
        "_init_training_state",
        "self max_steps num_update_steps_per_epoch num_train_epochs resume_from_checkpoint trial",
        "transformers/trainer.py",
        ("stages/train/checkpoints.py",),
    ),
    Use(*TRAINER, "_determine_best_metric", "self metrics trial", "transformers/trainer.py", ("stages/train/checkpoints.py",)),
    Use(*TRAINER, "_save_checkpoint", "self model trial", "transformers/trainer.py", ("stages/train/checkpoints.py",)),
    Use(*TRAINER, "_prepare_inputs", "self inputs", "transformers/trainer.py", ("stages/train/trainer.py",)),
    Use(
        "transformers",
        "transformers.TrainingArguments",
        "_n_gpu",
        None,
        "transformers/training_args.py",
        ("stages/train/arguments.py",),
    ),
    Use(*MODEL, "_supports_sdpa", None, "transformers/modeling_utils.py", ("stages/train/trainer.py",)),
    Use(*MODEL, "_supports_attention_backend", None, "transformers/modeling_utils.py", ("stages/train/trainer.py",)),
    Use(*MODEL, "_is_stateful", None, "transformers/modeling_utils.py", ("stages/train/trainer.py",)),
    Use(
        "transformers",
        "transformers.PreTrainedConfig",
        "_attn_implementation",
        None,
        "transformers/configuration_utils.py",
        ("stages/train/stage.py", "stages/train/trainer.py"),
    ),
    Use(
        "transformers",
        "transformers.masking_utils",
        "sdpa_mask",
        "batch_size q_length kv_length q_offset kv_offset mask_function attention_mask local_size allow_is_causal_skip "
        "allow_is_bidirectional_skip use_vmap device kwargs",
        "transformers/masking_utils.py",
        ("stages/train/trainer.py",),
    ),
    Use(
        "transformers",
        "transformers.integrations.sdpa_attention",
        "sdpa_attention_forward",
        "module query key value attention_mask dropout scaling is_causal position_bias cache kwargs",
        "transformers/integrations/sdpa_attention.py",
        ("stages/train/trainer.py",),
    ),
    Use(
        "transformers",
        "transformers.trainer_pt_utils",
        "get_length_grouped_indices",
        "lengths batch_size mega_batch_mult generator",
        "transformers/trainer_pt_utils.py",
        ("stages/train/sampler.py",),
    ),
    Use(
        "peft",
        "peft.LoraConfig",
        "_register_custom_module",
        "self mapping",
        "peft/tuners/lora/config.py",
        ("stages/train/adapter.py",),
    ),
    Use(
        "peft",
        "peft.utils.other",
        "get_pattern_key",
        "pattern_keys key_to_match",
        "peft/utils/other.py",
        ("stages/build/adapters/lora.py",),
    ),
    Use(
        "onnxruntime-genai",
        "onnxruntime_genai.models.builder",
        "create_model",
        "model_name input_path output_dir precision execution_provider cache_dir extra_options",
        "models/builder.py",
        ("stages/build/builder.py",),
    ),
    Use(
        "onnxruntime-genai",
        "onnxruntime_genai.models.builder",
        "parse_extra_options",
        "model_name input_path output_dir precision execution_provider cache_dir extra_options builder_config_version "
        "target_options drafter_options speculative_options runtime_config search",
        "models/builder.py",
        ("stages/build/builder.py",),
    ),
    Use(
        "onnxruntime-genai",
        "onnxruntime_genai.models.builder.Model",
        "load_weights",
        "self input_path",
        "models/builders/base.py",
        ("stages/build/builder.py",),
    ),
    *(
        Use(
            "onnxruntime-genai",
            f"onnxruntime_genai.models.builder.{owner}",
            "make_attention",
            "self layer_id attention root_input kwargs",
            f"models/builders/{module}.py",
            ("stages/build/repairs.py",),
        )
        for owner, module in (("LlamaModel", "base"), ("SmolLM3Model", "smollm"))
    ),
    Use(
        "onnxruntime-genai",
        "onnxruntime_genai.models.builders.base.Model",
        "make_matmul_mixed_precision",
        "self placement",
        "models/builders/base.py",
        ("stages/build/quantize/recipe.py",),
    ),
    Use(
        "onnxruntime-genai",
        "onnxruntime_genai.models.quantization.QuantConfig",
        "from_extra_options",
        "extra_options precision execution_provider",
        "models/quantization/quant_config.py",
        ("stages/build/quantize/recipe.py",),
    ),
    Use("optuna", "optuna.trial.FrozenTrial", "_trial_id", None, "optuna/trial/_frozen.py", ("tools/search/trials.py",)),
]


def test_the_list_is_of_the_installed_versions() -> None:
    assert {package: metadata.version(package) for package in VERSIONS} == VERSIONS


@pytest.mark.parametrize("use", USES, ids=lambda use: f"{use.owner}.{use.name}")
def test_upstream_has_what_is_used(use: Use) -> None:
    owner = found(use.owner)
    if use.parameters is None:
        assert (
            use.name in dir(owner)
            or f"{use.name}:" in inspect.getsource(owner)
            or f"self.{use.name} =" in inspect.getsource(owner)
        ), f"{use.owner} has no {use.name} any more; see {use.link}"
    else:
        function = getattr(owner, use.name, None)
        assert function, f"{use.owner} has no {use.name} any more; see {use.link}"
        assert " ".join(inspect.signature(function).parameters) == use.parameters, f"{use.name} has changed; see {use.link}"


def test_all_that_is_used_is_in_the_list(root: Path) -> None:
    folders = ("hydra_plugins", "tunepress", "stages", "tools", "benchmarks")
    modules = [module for folder in folders for module in sorted((root / folder).rglob("*.py"))]
    used = {(module.relative_to(root).as_posix(), name) for module in modules for name in private_names(module)}
    listed = {(module, use.name) for use in USES for module in use.modules}
    # of a private class that is imported a method is listed, while the scan sees the import of the class
    classes = {(module, use.owner.rpartition(".")[2]) for use in USES for module in use.modules if is_private_class(use.owner)}
    methods = {(module, use.name) for use in USES for module in use.modules if is_private_class(use.owner)}
    assert used - classes - methods == listed - methods
    assert classes <= used


def found(name: str) -> Any:
    """A module, or a class of one."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(import_module(module), attribute)


def is_private_class(owner: str) -> bool:
    return owner.rpartition(".")[2][0].isupper() and owner.rpartition(".")[0] not in PUBLIC


def private_names(path: Path) -> Iterator[str]:
    """The private names of other packages that a module of this project uses."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in PACKAGES:
            bases |= {alias.asname or alias.name: alias.name for alias in node.names}
            yield from (alias.name for alias in node.names if node.module not in PUBLIC or is_private(alias.name))
    own = set(own_names(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            yield node.attr
        elif isinstance(node, ast.ClassDef) and any(ast.unparse(base).partition(".")[0] in bases for base in node.bases):
            (base,) = node.bases[:1]
            parent = next(found(f"{name}.{bases[ast.unparse(base)]}") for name in PUBLIC if has(name, bases[ast.unparse(base)]))
            methods = (item.name for item in node.body if isinstance(item, ast.FunctionDef))
            yield from (method for method in methods if is_private(method) and hasattr(parent, method))


def has(module: str, name: str) -> bool:
    return hasattr(import_module(module), name)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


def on_self(node: ast.Attribute) -> bool:
    """Whether the attribute is one of self or of cls."""
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def own_names(tree: ast.Module) -> Iterator[str]:
    """Functions and attributes that a module defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and on_self(node):
            yield node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
