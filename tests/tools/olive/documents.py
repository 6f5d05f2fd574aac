"""Olive configurations of both generations, in the fields of the documents that people start from."""

import copy
from typing import Any

TEMPLATE = "### Text: {phrase}\n### The tone is:\n{tone}"
CLIENT = {"subscription_id": "0000-1111", "resource_group": "group", "workspace_name": "workspace"}
STORED: dict[str, Any] = {
    "type": "azureml_datastore",
    "config": {"azureml_client": CLIENT, "datastore_name": "workspaceblobstore", "relative_path": "UI/rows.json"},
}
TEXT: dict[str, Any] = {
    "dataset_type": "corpus",
    "text_cols": ["phrase", "tone"],
    "text_template": TEMPLATE,
    "corpus_strategy": "join",
    "source_max_len": 1024,
    "pad_to_max_len": False,
    "use_attention_mask": False,
}
ARGUMENTS: dict[str, Any] = {
    "seed": 0,
    "data_seed": 42,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 4,
    "gradient_checkpointing": False,
    "learning_rate": 0.0001,
    "num_train_epochs": 3,
    "max_steps": 10,
    "logging_steps": 10,
    "evaluation_strategy": "steps",
    "eval_steps": 187,
    "group_by_length": True,
    "adam_beta2": 0.999,
    "max_grad_norm": 0.3,
}
LORA: dict[str, Any] = {
    "target_modules": ["o_proj", "qkv_proj"],
    "double_quant": True,
    "lora_r": 64,
    "lora_alpha": 64,
    "lora_dropout": 0.1,
    "train_data_config": "dataset_default_train",
    "eval_dataset_size": 0.3,
    "training_args": ARGUMENTS,
}
MACHINE: dict[str, Any] = {
    "accelerators": ["gpu"],
    "aml_compute": "Your Azure AI Studio / Azure Machine Learning Service Compute Name",
    "aml_docker_config": {"base_image": "registry.example/image:1", "conda_file_path": "conda.yaml"},
}


def rows_in_params_config(files: Any) -> dict[str, Any]:
    """A data configuration as the earliest Olive has it."""
    params = {"data_name": "json", "data_files": files, "split": "train", "component_kwargs": {"pre_process_data": TEXT}}
    return {"name": "dataset_default_train", "type": "HuggingfaceContainer", "params_config": params}


def rows_in_components(files: Any) -> dict[str, Any]:
    """The same with a section for each step."""
    return {
        "name": "dataset_default_train",
        "type": "HuggingfaceContainer",
        "load_dataset_config": {"params": {"data_name": "json", "data_files": files, "split": "train"}},
        "pre_process_data_config": {"params": TEXT},
    }


FILE = "dataset/dataset-classification.json"
MODEL: dict[str, Any] = {
    "model_name": "model-cache/microsoft/phi-3-mini",
    "task": "text-generation",
    "model_loading_args": {"trust_remote_code": True},
}
# A block of the documents each, by what it is about.
BLOCKS: dict[str, dict[str, Any]] = {
    "local data": {"data_configs": [rows_in_components(FILE)]},
    "local data by name": {"data_configs": {"dataset-default_train": rows_in_params_config(FILE)}},
    "cloud data": {"data_configs": [rows_in_components(STORED)]},
    "cloud data in params_config": {"data_configs": [rows_in_params_config(STORED)]},
    "systems": {
        "systems": {
            "aml": {"type": "AzureML", "config": MACHINE | {"hf_token": True}},
            "azure_arc": {"type": "AzureML", "config": MACHINE},
        }
    },
    "local model": {"input_model": {"type": "PyTorchModel", "config": {"hf_config": MODEL}}},
    "registry model": {
        "input_model": {
            "type": "PyTorchModel",
            "config": {
                "model_path": {
                    "type": "azureml_registry_model",
                    "config": {"name": "microsoft/Phi-3-mini-4k-instruct", "registry_name": "azureml-msr", "version": "11"},
                },
                "model_file_format": "PyTorch.MLflow",
                "hf_config": {
                    "model_name": "microsoft/Phi-3-mini-4k-instruct",
                    "task": "text-generation",
                    "from_pretrained_args": {"trust_remote_code": True},
                },
            },
        }
    },
    "LoRA": {"passes": {"lora": {"type": "LoRA", "config": LORA}}},
    "QLoRA": {
        "passes": {"qlora": {"type": "QLoRA", "config": LORA | {"compute_dtype": "bfloat16", "quant_type": "nf4"}}},
    },
    "merge and builder": {
        "passes": {
            "merge_adapter_weights": {"type": "MergeAdapterWeights"},
            "builder": {"type": "ModelBuilder", "config": {"precision": "int4"}},
        }
    },
    "engine": {
        "systems": {"aml": {"type": "AzureML", "config": MACHINE}},
        "engine": {
            "log_severity_level": 0,
            "host": "aml",
            "target": "aml",
            "search_strategy": False,
            "execution_providers": ["CUDAExecutionProvider"],
            "cache_dir": "../model-cache/models/phi3-finetuned/cache",
            "output_dir": "../model-cache/models/phi3-finetuned",
        },
    },
}


def whole() -> dict[str, Any]:
    """All parts together: rows and model of this machine, LoRA, merge, int4 for the CPU."""
    parts = copy.deepcopy({"input_model": BLOCKS["local model"]["input_model"], **BLOCKS["local data"]})
    parts["systems"] = {
        "local": {"type": "LocalSystem", "config": {"accelerators": [{"execution_providers": ["CPUExecutionProvider"]}]}}
    }
    parts["passes"] = copy.deepcopy(BLOCKS["LoRA"]["passes"] | BLOCKS["merge and builder"]["passes"])
    parts["engine"] = {"host": "local", "target": "local", "cache_dir": "cache", "output_dir": "models"}
    return parts


def today() -> dict[str, Any]:
    """The same work in the names of today's Olive."""
    return {
        "input_model": {"type": "HfModel", "model_path": "model-cache/microsoft/phi-3-mini"},
        "systems": {
            "local": {"type": "LocalSystem", "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]}
        },
        "data_configs": [
            {
                "name": "rows",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {"data_name": "json", "data_files": FILE, "split": "train"},
                "pre_process_data_config": {"text_template": TEMPLATE, "strategy": "line-by-line", "max_seq_len": 256},
            }
        ],
        "evaluators": {
            "scores": {
                "metrics": [
                    {
                        "name": "accuracy",
                        "type": "accuracy",
                        "data_config": "rows",
                        "sub_types": [
                            {"name": "accuracy_score", "priority": 1, "goal": {"type": "max-degradation", "value": 0.02}}
                        ],
                    },
                    {"name": "latency", "type": "latency", "sub_types": [{"name": "avg", "priority": 2}]},
                ]
            }
        },
        "passes": {
            "tune": {
                "type": "lora",
                "r": 16,
                "alpha": 32,
                "target_modules": ["qkv_proj", "o_proj"],
                "train_data_config": "rows",
                "training_args": {"max_steps": 4, "per_device_train_batch_size": 2, "warmup_ratio": 0.1},
            },
            "merge": {"type": "MergeAdapterWeights"},
            "build": {"type": "ModelBuilder", "precision": "int4", "int4_block_size": 32, "int4_accuracy_level": 4},
        },
        "host": "local",
        "target": "local",
        "evaluator": "scores",
        "search_strategy": False,
        "cache_dir": "cache",
        "output_dir": "models",
        "log_severity_level": 1,
    }


def finetuned() -> dict[str, Any]:
    """What `olive finetune --method lora --data_files ... --save_config_file` writes, with what it leaves empty."""
    return {
        "input_model": {
            "type": "HfModel",
            "model_path": "model-cache/microsoft/phi-3-mini",
            "generative": True,
            "load_kwargs": {"attn_implementation": "eager", "trust_remote_code": False},
        },
        "systems": {
            "local_system": {
                "type": "LocalSystem",
                "accelerators": [{"device": "gpu", "execution_providers": ["CUDAExecutionProvider"]}],
            }
        },
        "data_configs": [
            {
                "name": "train_data",
                "type": "HuggingfaceContainer",
                "load_dataset_config": {"data_name": "json", "split": "train", "data_files": [FILE]},
                "pre_process_data_config": {
                    "text_template": TEMPLATE,
                    "chat_template": False,
                    "max_seq_len": 512,
                    "add_special_tokens": False,
                    "max_samples": 256,
                },
                "dataloader_config": {"batch_size": 1},
                "post_process_data_config": {},
            }
        ],
        "passes": {
            "f": {
                "train_data_config": "train_data",
                "type": "lora",
                "torch_dtype": "bfloat16",
                "training_args": {},
                "r": 64,
                "alpha": 16,
                "target_modules": ["qkv_proj", "o_proj"],
            }
        },
        "host": "local_system",
        "target": "local_system",
        "no_artifacts": True,
        "output_dir": "finetuned-adapter",
        "log_severity_level": 3,
        "cache_config": {"account_name": None, "container_name": None},
    }


BUILDER = {"type": "ModelBuilder", "precision": "int4"}
DUMMY: dict[str, Any] = {
    "name": "dummy",
    "type": "TransformersTokenDummyDataContainer",
    "load_dataset_config": {"seq_len": 1, "past_seq_len": 8, "model_framework": "onnx"},
}


def rows(document: dict[str, Any]) -> dict[str, Any]:
    """The data configuration of `today`."""
    (config,) = document["data_configs"]
    return dict[str, Any](config)
