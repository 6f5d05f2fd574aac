"""The contenders `olive`, `olive-checkpointing` and `olive-lines`: Olive's LoRA pass, in Olive's own environment.

    python -m benchmarks.train.olive_pass JOB

Only what makes the contenders comparable differs from the pass's defaults: r, alpha, dropout, target modules, float32 as in
the base model's files, and the training arguments of the recipe. The texts end in the model's own end of sequence and so
have the same tokens as the stage's rows; Olive puts its `joiner` between them and learns all tokens, not only the answers.
Gradient checkpointing is on by default in Olive; here only in `olive-checkpointing`, because the stage and the Trainer work
without it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from olive.data.template import huggingface_data_config_template  # type: ignore[import-not-found]
from olive.model import HfModelHandler  # type: ignore[import-not-found]
from olive.passes.olive_pass import create_pass_from_dict  # type: ignore[import-not-found]
from olive.passes.pytorch.lora import LoRA  # type: ignore[import-not-found]


def main(job: dict[str, Any]) -> None:
    """Trains an adapter; Olive saves it in the folder `adapter` of the output."""
    adapter = job["adapter"]
    data = huggingface_data_config_template(
        model_name=job["model"],
        task="text-generation",
        load_dataset_config={"params": {"data_name": "json", "data_files": job["texts"], "split": "train"}},
        pre_process_data_config={
            "params": {
                "text_cols": ["text"],
                "strategy": job["strategy"],
                "max_seq_len": job["max_seq_len"],
                "pad_to_max_len": False,  # the pass's collator pads to the longest of the batch
                "add_special_tokens": False,
            }
        },
    )
    config = {
        "r": adapter["r"],
        "alpha": adapter["lora_alpha"],
        "lora_dropout": adapter["lora_dropout"],
        "target_modules": adapter["target_modules"],
        "torch_dtype": "float32",
        "train_data_config": data,
        "training_args": {
            "gradient_checkpointing": job["gradient_checkpointing"],
            "seed": job["seed"],
            "save_strategy": "no",
            **job["training_arguments"],
        },
    }
    create_pass_from_dict(LoRA, config, disable_search=True).run(
        HfModelHandler(model_path=job["model"], task="text-generation"), str(Path(job["output"]).parent)
    )


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
