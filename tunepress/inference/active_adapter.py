"""The adapter that lies beside an ONNX model, active in all that the model answers. No torch in this process."""

from pathlib import Path

import onnxruntime_genai as og

from tunepress.core.paths import ADAPTER_FILE

NAME = "adapter"  # by which onnxruntime-genai knows it


class ActiveAdapter:
    """The adapter of a model folder; where the folder has none, nothing is added to the model."""

    def __init__(self, model: og.Model, folder: Path) -> None:
        self._model = model
        self._adapters: og.Adapters | None = None
        if (folder / ADAPTER_FILE).exists():
            self._adapters = og.Adapters(model)
            self._adapters.load(str(folder / ADAPTER_FILE), NAME)

    def generator(self, parameters: og.GeneratorParams) -> og.Generator:
        """A new answer of the model with the adapter."""
        generator = og.Generator(self._model, parameters)
        if self._adapters:
            generator.set_active_adapter(self._adapters, NAME)
        return generator
