"""Greedy answers of an ONNX model folder through onnxruntime-genai: the candidate onnx, and `make predict`."""

from pathlib import Path

import onnxruntime_genai as og
from tqdm import tqdm

from stages.lib.edge.errors import InputError


class OnnxModel:
    """A model that answers one prompt at a time, as it does where it is shipped."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "genai_config.json").exists():
            raise InputError(f"{folder}: no genai_config.json, so there is no ONNX model; run `make repro`")
        self.model = og.Model(str(folder))
        self.tokenizer = og.Tokenizer(self.model)

    def answers(self, prompts: list[str], max_new_tokens: int) -> list[str]:
        """The model's greedy answers, in the order of `prompts`."""
        return [self.answer(prompt, max_new_tokens) for prompt in tqdm(prompts, desc="answers", unit="row")]

    def answer(self, prompt: str, max_new_tokens: int) -> str:
        """The model's greedy answer to one prompt, without the tokens that end it."""
        tokens = self.tokenizer.encode(prompt)
        parameters = og.GeneratorParams(self.model)
        parameters.set_search_options(do_sample=False, max_length=len(tokens) + max_new_tokens)
        generator = og.Generator(self.model, parameters)
        generator.append_tokens(tokens)
        while not generator.is_done():
            generator.generate_next_token()
        return str(self.tokenizer.decode(generator.get_sequence(0)[len(tokens) :]))
