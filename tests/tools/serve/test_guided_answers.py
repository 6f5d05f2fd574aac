"""`response_format`, `tools` and `tool_choice`: answers of a given form, and what the model cannot write is refused by name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError

from benchmarks.serve.letters_model import PROMPT as TEXT
from benchmarks.serve.letters_model import TINY, letters_model
from tests.stages.built import SCHEMA
from tests.tools.serve.prompts import relabelled, with_prompt
from tests.tools.serve.served import ROOT, Server, serving
from tools.serve.generation.formats import ChatFormat, CompletionFormat
from tools.serve.workers.jobs import Answer
from tools.serve.workers.messages import TokenLogprob, TokenLogprobs
from tunepress.inference.onnx_model import OnnxModel
from tunepress.text.json_answers import schema_problem, validator
from tunepress.text.prompt import Prompt

CHATML = (ROOT / "conf/chat_templates/chatml.jinja").read_text(encoding="utf-8")
LLAMA = (
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% for message in messages %}{{ '<|start|>' + message.role + '\\n' }}{% if message.tool_calls %}"
    "{% set function = message.tool_calls[0].function %}"
    "{{ '{\"name\": \"' + function.name + '\", \"parameters\": ' + function.arguments | tojson + '}' }}"
    "{% else %}{{ message.content }}{% endif %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}"
)
LABELS = ("joy", "joyful", "not sure")
LARGE = {"type": "object", "properties": {f"p{number}": {} for number in range(3000)}, "additionalProperties": False}
ASKED: Any = [{"role": "user", "content": "What a day!"}]
MODEL = "tunepress"


def tool(name: str, *orders: str) -> Any:
    """A function with one argument, one of several texts."""
    order = {"type": "object", "properties": {"order": {"enum": orders}}, "required": ["order"], "additionalProperties": False}
    parameters = order | {"x-guidance": {"whitespace_flexible": False}}
    return {"type": "function", "function": {"name": name, "description": "Where?", "parameters": parameters}}


TOOLS = [tool("status", "A1", "B2"), tool("cancel", "C3")]


def prompt_of(template: str) -> Prompt:
    """Of conversations in a chat template."""
    return Prompt(None, None, None, 300, 80, chat_template=template)


@pytest.fixture(scope="module")
def labels_server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of a model of texts with labels."""
    with serving(with_prompt(folder, relabelled(TEXT, LABELS), tmp_path_factory.mktemp("labels") / "onnx")) as running:
        yield running


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with room for functions, of which each byte is a token."""
    return letters_model(tmp_path_factory.mktemp("long"), TINY, context=4096, endless=False)


@pytest.fixture(scope="module", params=[CHATML, LLAMA], ids=["ChatML", "Llama 3"])
def tools_server(request: pytest.FixtureRequest, long_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Of a model of conversations whose template writes calls."""
    with serving(with_prompt(long_folder, prompt_of(request.param), tmp_path_factory.mktemp("tools") / "onnx")) as running:
        yield running


def answer(server: Server, **options: Any) -> Any:
    """The first choice of OpenAI's client."""
    messages = options.pop("messages", ASKED)
    return server.openai().chat.completions.create(model=MODEL, messages=messages, **options).choices[0]


def json_schema(schema: dict[str, Any]) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "tone", "schema": schema, "strict": True}}


def test_json_matches_the_schema_of_the_request(server: Server) -> None:
    guided = answer(server, response_format=json_schema(SCHEMA), max_tokens=100)
    assert schema_problem(guided.message.content, validator(SCHEMA)) is None
    assert guided.finish_reason == "stop"
    assert guided.message.tool_calls is None


def test_json_of_any_form_is_an_object(server: Server) -> None:
    guided = answer(server, response_format={"type": "json_object"}, max_tokens=3)
    assert guided.message.content.lstrip()[:1] in ("{", "")


def test_a_label_is_one_of_the_models(labels_server: Server) -> None:
    assert answer(labels_server).message.content not in LABELS
    for label in (answer(labels_server, extra_body={"response_format": {"type": "labels"}}) for _ in range(2)):
        assert (label.message.content, label.finish_reason) == (label.message.content, "stop")
        assert label.message.content in LABELS


def test_text_is_what_the_model_answers_without_a_format(server: Server) -> None:
    assert answer(server, response_format={"type": "text"}).message.content == answer(server).message.content


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "cancel"}}])
def test_a_function_is_called_if_the_request_demands_it(choice: Any, stream: bool, tools_server: Server) -> None:
    options = {"tools": TOOLS, "tool_choice": choice, "max_tokens": 100}
    if stream:
        create = tools_server.openai().chat.completions.create
        chunks = [chunk.choices[0] for chunk in create(model=MODEL, messages=ASKED, stream=True, **options)]
        calls, finish = [call for chunk in chunks for call in chunk.delta.tool_calls or []], chunks[-1].finish_reason
        assert not any(chunk.delta.content for chunk in chunks)
    else:
        choice_of_client = answer(tools_server, **options)
        calls, finish = choice_of_client.message.tool_calls, choice_of_client.finish_reason
        assert choice_of_client.message.content is None
    (call,) = calls
    assert finish == "tool_calls"
    assert call.id.startswith("call_")
    orders = {"status": ("A1", "B2"), "cancel": ("C3",)}[call.function.name]
    assert json.loads(call.function.arguments)["order"] in orders
    assert call.function.name == "cancel" or choice == "required"


def test_a_function_without_its_wrapper_is_one_too(tools_server: Server) -> None:
    flat = [{"name": "status", "parameters": TOOLS[0]["function"]["parameters"]}]
    called = answer(tools_server, extra_body={"tools": flat, "tool_choice": "required", "max_tokens": 100})
    assert called.message.tool_calls[0].function.name == "status"


def test_the_parameters_of_a_function_refer_to_their_own_definitions(tools_server: Server) -> None:
    parameters = {"properties": {"order": {"$ref": "#/$defs/Order"}}, "required": ["order"], "$defs": {"Order": {"enum": ["鬱"]}}}
    strict = {"additionalProperties": False, "x-guidance": {"whitespace_flexible": False}}
    functions: Any = [{"type": "function", "function": {"name": "😀 {}", "parameters": parameters | strict}}, TOOLS[1]]
    named = {"type": "function", "function": {"name": "😀 {}"}}
    (call,) = answer(tools_server, tools=functions, tool_choice=named, max_tokens=100).message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("😀 {}", {"order": "鬱"})


def test_a_call_and_its_result_can_follow_in_the_next_request(tools_server: Server) -> None:
    message = answer(tools_server, tools=TOOLS, tool_choice="required", max_tokens=100).message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "in the van"}
    calling = message.model_dump(exclude_none=True, exclude={"refusal"})
    assert answer(tools_server, messages=[*ASKED, calling, result], max_tokens=5).message.content


def test_without_a_choice_functions_are_not_shown(tools_server: Server) -> None:
    functions: list[Any] = [{}, {"tools": TOOLS, "tool_choice": "none"}, {"tools": TOOLS, "tool_choice": "auto"}]
    counts = [
        tools_server.openai().chat.completions.create(model=MODEL, messages=ASKED, **options).usage for options in functions
    ]
    plain, none, auto = [usage.prompt_tokens for usage in counts if usage]
    assert plain == none < auto


CALL = '<tool_call>{"name": "status", "arguments": {"order": "A1 é"}}</tool_call>'


@pytest.mark.parametrize(
    ("text", "content", "names"),
    [
        (CALL, None, ["status"]),
        (f"One moment.\n{CALL}{CALL}", "One moment.", ["status", "status"]),
        ('{"name": "status", "parameters": {}}', None, ["status"]),
        ("Hello", "Hello", None),
        ("<tool_call>{", "<tool_call>{", None),
        (f"{CALL}<tool_call>{{", f"{CALL}<tool_call>{{", None),
        (r'{"name": "a", "arguments": {"b": "\ud800"}}', r'{"name": "a", "arguments": {"b": "\ud800"}}', None),
        ('{"name": "a", "arguments": {"b": NaN}}', '{"name": "a", "arguments": {"b": NaN}}', None),
    ],
)
def test_calls_in_an_answer_are_not_text(text: str, content: str | None, names: list[str] | None) -> None:
    answered = Answer(text, finish_reason="stop")
    chunk: Any = ChatFormat(MODEL, with_tools=True).chunk(0, answered)
    delta = chunk.choices[0].delta
    assert delta.get("content") == content
    assert ([call["function"]["name"] for call in delta["tool_calls"]] if "tool_calls" in delta else None) == names
    assert chunk.choices[0].finish_reason == ("tool_calls" if names else "stop")
    free: Any = ChatFormat(MODEL, with_tools=False).chunk(0, answered)
    assert free.choices[0].delta == {"content": text}


@pytest.mark.parametrize(
    ("options", "param", "message"),
    [
        ({"response_format": {"type": "labels"}}, "response_format", "this model answers in free text and has no labels"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "response_format.type: "),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "the type json_schema, which needs it"),
        ({"response_format": {"type": "text", "json_schema": {"name": "a"}}}, "response_format.json_schema", "belongs to"),
        ({"response_format": json_schema({"type": "nosuch"})}, "response_format", "cannot be followed (Error creating grammar"),
        ({"response_format": json_schema({"not": {}})}, "response_format", 'Unimplemented keys: ["not"]'),
        (
            {"response_format": json_schema({"items": {"maxItems": 10**9}})},
            "response_format",
            "minItems and maxItems",
        ),
        (
            {"response_format": json_schema({"multipleOf": 10**4000 + 1})},
            "response_format",
            "multipleOf of a schema must be",
        ),
        (
            {"response_format": json_schema({"multipleOf": 1.0000001})},
            "response_format",
            "multipleOf of a schema must be",
        ),
        ({"response_format": json_schema(LARGE)}, "response_format", "Current row has 11999 items; max is 2000"),
        (
            {"tools": [{"name": "status", "parameters": {"type": "string"}}], "tool_choice": "required"},
            "tools",
            "the parameters of 'status' must be a JSON schema of an object",
        ),
        ({"response_format": json_schema({}) | {"x": 1}}, "response_format.x", "unknown parameter response_format.x"),
        ({"tool_choice": "required"}, "tool_choice", "tool_choice: needs tools"),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice", "must be none, auto, required or"),
        ({"tools": TOOLS, "tool_choice": {"function": {"name": "status"}}}, "tool_choice", "must be none, auto, required or"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "refund"}}},
            "tool_choice",
            "tools has no function 'refund'",
        ),
        ({"tools": TOOLS, "response_format": {"type": "json_object"}}, "response_format", "calls no function"),
        ({"tools": TOOLS, "parallel_tool_calls": False}, "parallel_tool_calls", "cannot be turned off"),
        ({"top_logprobs": 2}, "top_logprobs", "needs logprobs=true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "top_logprobs: "),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(
    options: dict[str, Any], param: str, message: str, tools_server: Server
) -> None:
    with pytest.raises(BadRequestError) as refused:
        answer(tools_server, extra_body=options)
    assert message in refused.value.message
    assert refused.value.param == param
    assert answer(tools_server, max_tokens=1)


def test_a_template_that_writes_calls_otherwise_is_told(folder: Path, tmp_path: Path) -> None:
    template = "{{ tools | tojson }}{% for message in messages %}{{ message.content or 'call' }}<|end|>{% endfor %}"
    with serving(with_prompt(folder, prompt_of(template), tmp_path / "onnx")) as server:
        with pytest.raises(BadRequestError, match="does not write calls as JSON; send auto or none"):
            answer(server, tools=TOOLS, tool_choice="required")
        with pytest.raises(BadRequestError, match="has no labels"):
            answer(server, extra_body={"response_format": {"type": "labels"}})


@pytest.mark.parametrize("top", [0, 3])
def test_log_probabilities_are_the_models(top: int, server: Server, model: OnnxModel) -> None:
    prompt = TEXT.render_prompt({"phrase": "What a day!"})
    tokens = model.encode_prompt(prompt)
    expected = list(model.generate_with_logits(tokens, 12))
    choice = answer(server, logprobs=True, top_logprobs=top)
    content = choice.logprobs.content
    assert "".join(token.token for token in content) == choice.message.content
    assert [bytes(token.bytes).decode() for token in content] == [token.token for token in content]
    for token, (_, logits) in zip(content, expected, strict=False):
        probabilities = 2.718281828459045 ** (logits.astype(float) - logits.max())
        assert 2.718281828459045**token.logprob == pytest.approx(probabilities.max() / probabilities.sum(), rel=1e-4)
        assert len(token.top_logprobs) == top
        assert [other.token for other in token.top_logprobs[:1]] == [token.token][:top]
        logprobs = [other.logprob for other in token.top_logprobs]
        assert logprobs == sorted(logprobs, reverse=True)


def test_log_probabilities_of_a_completion(server: Server, model: OnnxModel) -> None:
    completion = server.openai().completions.create(model=MODEL, prompt="What a day!", logprobs=2, max_tokens=20)
    (choice,) = completion.choices
    logprobs = choice.logprobs
    assert logprobs and logprobs.tokens and logprobs.text_offset and logprobs.top_logprobs and logprobs.token_logprobs
    assert "".join(logprobs.tokens) == choice.text
    assert [choice.text[offset:][:1] for offset in logprobs.text_offset] == [token[:1] for token in logprobs.tokens]
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        assert len(top) == 2
        assert max(top.values()) == top[token] == logprob


def test_log_probabilities_of_parts_of_characters_have_the_places_of_the_characters() -> None:
    part, other = TokenLogprob("\ufffd", -0.5), TokenLogprob("\ufffd", -2.0)
    tokens = [TokenLogprobs(part, (part, other), offset) for offset in (0, 0, 1)]
    completion: Any = CompletionFormat(MODEL, 2).chunk(0, Answer("é!", tokens))
    logprobs = completion.choices[0].logprobs
    assert logprobs.text_offset == [0, 0, 1]
    assert logprobs.top_logprobs == [{"\ufffd": -0.5}] * 3


def test_log_probabilities_of_a_stream_are_those_of_the_whole(server: Server) -> None:
    whole = answer(server, logprobs=True, top_logprobs=1).logprobs.content
    options: Any = {"model": MODEL, "messages": ASKED, "logprobs": True, "top_logprobs": 1, "stream": True}
    chunks = [chunk.choices[0] for chunk in server.openai().chat.completions.create(**options)]
    assert [token for chunk in chunks if chunk.logprobs for token in chunk.logprobs.content or []] == whole


def test_guidance_changes_no_log_probability(labels_server: Server) -> None:
    options = {"logprobs": True, "top_logprobs": 1, "max_tokens": 1}
    free, guided = (answer(labels_server, **options, extra_body=body) for body in ({}, {"response_format": {"type": "labels"}}))
    assert free.logprobs.content[0].top_logprobs == guided.logprobs.content[0].top_logprobs
    assert guided.logprobs.content[0].logprob < free.logprobs.content[0].logprob


def test_several_answers_to_a_prompt_have_seeds_of_their_own(server: Server) -> None:
    client = server.openai().completions
    several = client.create(model=MODEL, prompt=["a", "b"], n=3, temperature=1, seed=7, max_tokens=12)
    single = [
        client.create(model=MODEL, prompt=prompt, temperature=1, seed=seed, max_tokens=12)
        for prompt in ("a", "b")
        for seed in (7, 8, 9)
    ]
    assert [choice.text for choice in several.choices] == [completion.choices[0].text for completion in single]
    assert [choice.index for choice in several.choices] == list(range(6))
    assert len({choice.text for choice in several.choices}) > 1
    assert several.usage and single[0].usage and single[3].usage
    assert several.usage.prompt_tokens == single[0].usage.prompt_tokens + single[3].usage.prompt_tokens
    chat = server.openai().chat.completions.create(model=MODEL, messages=ASKED, n=2, temperature=1, seed=7)
    assert [choice.index for choice in chat.choices] == [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 2}, "n: without a temperature above 0 all answers are the same"),
        ({"n": 17, "temperature": 1}, "n: has 17 answers, at most 16 are allowed"),
        ({"n": 0}, "n: "),
    ],
)
def test_answers_that_cannot_differ_or_are_too_many_are_refused(options: Any, message: str, server: Server) -> None:
    with pytest.raises(BadRequestError) as refused:
        server.openai().completions.create(model=MODEL, prompt="a", **options)
    assert message in refused.value.message
    assert refused.value.param == "n"
