"""The model card: what a user of the model must know, with a snippet that runs."""

import json
import re
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from stages.report import tables
from stages.report.page import Findings, environment
from tunepress.core.environment import installed_versions
from tunepress.core.paths import ADAPTER_FILE
from tunepress.text.prompt import Prompt
from tunepress.text.template import literals

GUIDANCE = ['parameters.set_guidance("lark_grammar", json.load(open("onnx/prompt.json"))["guidance"])']
ACTIVATION = [
    "adapters = og.Adapters(model)",
    f'adapters.load("onnx/{ADAPTER_FILE}", "task")',
    'generator.set_active_adapter(adapters, "task")',
]


def card(findings: Findings) -> str:
    """The Markdown of models/MODEL_CARD.md."""
    run, prompt, parameters = findings.run, findings.prompt, findings.parameters
    return environment().get_template("model_card.md.jinja").render(
        title=findings.title,
        verdict=findings.verdict,
        metadata=metadata(findings),
        parameters=parameters,
        requirement=requirement(parameters["build.execution_provider"]),
        every_parameter=fenced(json.dumps(parameters, indent=2, ensure_ascii=False), "json"),
        source=source(parameters),
        run=run,
        brought=brought(parameters),
        scores=tables.scores(run),
        baselines=tables.baselines(run, findings.p_values) if run.baselines else None,
        probabilities=tables.probabilities(run) if "nll" in run.evaluate["onnx"] else None,
        retained=tables.retained(run) if run.retained else None,
        temperature=run.evaluate["onnx"].get("temperature"),
        gate=tables.gate(findings.verdicts),
        tokens_per_second=run.tokens_per_second("onnx"),
        labels=prompt.labels,
        max_new_tokens=prompt.max_new_tokens,
        conversations=prompt.prompt is None,
        prompt=fenced(prompt.prompt or prompt.chat_template or ""),
        snippet=fenced(
            snippet(prompt, parameters["build.adapters"] == "separate", bool(parameters["evaluate.guidance"])), "python"
        ),
    )  # fmt: skip


def metadata(findings: Findings) -> str:
    """The YAML at the top of the card, with the results of the shipped model as Hugging Face's hub reads them."""
    run, parameters = findings.run, findings.parameters
    results = [
        EvalResult(
            task_type="text-classification" if findings.prompt.labels else "text-generation",
            dataset_type="custom",
            dataset_name=source(parameters),
            dataset_split=run.evaluate["onnx"].get("split", "test"),
            metric_type=name,
            metric_value=run.evaluate["onnx"][name],
            metric_name=f"{tables.words(name)} on {run.rows}",
        )
        for name in run.names
    ]
    data = ModelCardData(
        license=parameters["base_model.license"],
        library_name="onnxruntime-genai",
        base_model=parameters["base_model.repo_id"] or parameters["base_model.name"],
        pipeline_tag="text-generation",
        model_name=findings.title,
        eval_results=results,
    )
    return data.to_yaml()


def source(parameters: dict[str, Any]) -> str:
    """Where the rows came from."""
    hub = [parameters[f"data.{name}"] for name in ("path", "name", "split", "revision")]
    files = parameters["data.files"] or [dataset["name"] for dataset in parameters["data.datasets"]]
    return ", ".join(files) or " ".join(filter(None, hub)) or ", ".join(parameters["data.test_files"])


def brought(parameters: dict[str, Any]) -> str:
    """The adapter that was trained elsewhere; empty if it was trained here."""
    repo_id, revision = parameters.get("adapter.repo_id"), parameters.get("adapter.revision")
    return str(parameters.get("adapter.path") or (f"{repo_id} at {revision}" if repo_id else ""))


def requirement(execution_provider: str) -> str:
    """The package that runs the model, in the version that it was measured with."""
    name = {"cuda": "onnxruntime-genai-cuda", "dml": "onnxruntime-genai-directml"}.get(execution_provider, "onnxruntime-genai")
    installed = installed_versions()
    return f"{name}=={installed.get('onnxruntime-genai') or installed['onnxruntime-genai-cuda']}"


def snippet(prompt: Prompt, adapter: bool, guidance: bool = False) -> str:
    """Python that runs the model on one row, a placeholder: the card may be public and the rows private.

    Args:
        prompt: the template.
        adapter: whether the fine-tuning is in a file of its own.
        guidance: whether the model is shipped with a grammar.
    """
    return "\n".join(
        [
            "import json",
            "",
            "import onnxruntime_genai as og",
            "",
            'model = og.Model("onnx")  # the folder beside this card',
            "tokenizer = og.Tokenizer(model)",
            'tokenizer.update_options(add_special_tokens="true")  # the first token (BOS), if the model was trained with one',
            "",
            *question(prompt),
            "",
            "parameters = og.GeneratorParams(model)",
            'context = json.load(open("onnx/genai_config.json"))["model"]["context_length"]',
            f"length = min(len(tokens) + {prompt.max_new_tokens}, context)",
            "parameters.set_search_options(do_sample=False, max_length=length)",
            *(GUIDANCE if guidance else []),
            "generator = og.Generator(model, parameters)",
            *(ACTIVATION if adapter else []),
            "generator.append_tokens(tokens)",
            "while not generator.is_done():",
            "    generator.generate_next_token()",
            "print(tokenizer.decode(generator.get_sequence(0)[len(tokens):]))",
        ]
    )


def question(prompt: Prompt) -> list[str]:
    """Python that makes the tokens of a row or of a conversation."""
    if prompt.prompt is None:
        system = [{"role": "system", "content": prompt.system}] if prompt.system else []
        messages = [*system, {"role": "user", "content": "your question"}]
        tools = [f"tools = {prompt.tools!r}"] if prompt.tools else []
        argument = ", tools=json.dumps(tools)" if prompt.tools else ""
        bos = f".removeprefix({prompt.bos_token!r})" if prompt.bos_token else ""  # the tokenizer adds it
        return [
            f"messages = {messages!r}",
            *tools,
            f"text = tokenizer.apply_chat_template(json.dumps(messages){argument}, add_generation_prompt=True)",
            f"tokens = tokenizer.encode(text{bos})",
        ]
    columns = {name: f"your {name}" for name in prompt.columns}
    terms = []
    for literal, name in literals(prompt.prompt):
        terms += [repr(literal)] if literal else []
        terms += [f"row[{name!r}]"] if name is not None else []
    return [f"row = {columns!r}  # put your own text here", f"tokens = tokenizer.encode({' + '.join(terms)})"]


def fenced(text: str, language: str = "") -> str:
    """A code block, whatever it contains."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
