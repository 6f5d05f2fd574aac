"""An adapter that was trained elsewhere: it is checked against the base model and copied, and nothing is trained."""

import shutil
from pathlib import Path

from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

from tunepress.config.adapter import Adapter, Method
from tunepress.core.errors import InputError
from tunepress.core.paths import BASE
from tunepress.models.bnb_4bit import FILE_NAME as QUANTIZATION
from tunepress.models.bnb_4bit import Quantization
from tunepress.models.hf_model import empty_model
from tunepress.models.hub import download_snapshot
from tunepress.models.peft_adapter import PeftAdapter, add_adapter

FILES = (CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME, QUANTIZATION)


def write_brought(adapter: Adapter, folder: Path) -> int:
    """Copies the adapter to an existing folder, and returns how many parameters it has.

    Raises:
        InputError: there is no such adapter, or it cannot be merged into the base model.
    """
    on_disk = adapter.method is Method.file
    source = Path(adapter.path or "") if on_disk else download_snapshot(adapter.repo_id or "", adapter.revision, FILES)
    try:
        brought = PeftAdapter.load(source)
    except InputError as error:  # which names the hub's cache
        raise InputError(str(error).replace(str(source), adapter.path or adapter.repo_id or "")) from error
    add_adapter(brought, empty_model(BASE))
    for name in (CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME):
        shutil.copyfile(source / name, folder / name)
    if quantization := Quantization.of(adapter, bf16=True) or Quantization.load(source):  # it has one if this project trained it
        quantization.save(folder)
    return sum(tensor.size // tensor.dtype.itemsize for tensor in brought.tensors.values())
