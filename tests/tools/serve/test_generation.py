"""Completions and chat through OpenAI's client: the model's own answers, whole and in pieces, whoever asks at once."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError
from openai.types.chat import ChatCompletionMessageParam
from transformers import AutoTokenizer

from benchmarks.serve.letters_model import PROMPT as TEXT
from tests.tools.serve.prompts import CHAT, COLUMNS
from tests.tools.serve.served import Server, serving
from tunepress.inference.onnx_model import OnnxModel
from tunepress.text.chat_prompt import ChatPrompt

PROMPTS = ["What a day!", 'It\'s "fine", $HOME and `pwd` \\n {phrase}', "Ça va? 🎉", "two\nlines\t", " ", "雨"]
MODEL = "tunepress"


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_completion_is_what_the_model_answers(prompt: str, server: Server, model: OnnxModel) -> None:
    tokens = model.encode_prompt(prompt)
    written = list(model.generate(tokens, 40))
    completion = server.openai().completions.create(model=MODEL, prompt=prompt, max_tokens=40)
    (choice,) = completion.choices
    assert choice.text == model.answer(prompt, 40) != ""
    assert choice.finish_reason == ("length" if len(written) == 40 else "stop")
    assert completion.usage
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (len(tokens), len(written))
    assert completion.usage.total_tokens == len(tokens) + len(written)


def test_some_answers_end_by_themselves_and_others_at_their_length(server: Server) -> None:
    texts = [f"phrase {number}" for number in range(16)]
    choices = server.openai().completions.create(model=MODEL, prompt=texts, max_tokens=10).choices
    assert {choice.finish_reason for choice in choices} == {"stop", "length"}


def test_several_prompts_are_answered_in_their_order(server: Server, model: OnnxModel) -> None:
    choices = server.openai().completions.create(model=MODEL, prompt=PROMPTS, max_tokens=20).choices
    assert [(choice.index, choice.text) for choice in choices] == [
        (index, model.answer(prompt, 20)) for index, prompt in enumerate(PROMPTS)
    ]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_pieces_of_a_stream_are_the_whole_answer(prompt: str, server: Server, model: OnnxModel) -> None:
    chunks = list(server.openai().completions.create(model=MODEL, prompt=prompt, max_tokens=40, stream=True))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.text for choice in choices) == model.answer(prompt, 40)
    assert [choice.finish_reason for choice in choices[:-1]] == [None] * (len(choices) - 1)
    assert choices[-1].finish_reason in ("stop", "length")
    assert len(choices) > 5
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_of_several_prompts_names_whose_piece_each_is(server: Server, model: OnnxModel) -> None:
    answers = ["", ""]
    for chunk in server.openai().completions.create(model=MODEL, prompt=PROMPTS[:2], max_tokens=20, stream=True):
        answers[chunk.choices[0].index] += chunk.choices[0].text
    assert answers == [model.answer(prompt, 20) for prompt in PROMPTS[:2]]


def test_a_stream_tells_its_usage_where_it_is_wanted(server: Server) -> None:
    client = server.openai()
    *others, last = client.completions.create(
        model=MODEL, prompt="What a day!", max_tokens=20, stream=True, stream_options={"include_usage": True}
    )
    assert (last.choices, last.usage) == ([], client.completions.create(model=MODEL, prompt="What a day!", max_tokens=20).usage)
    assert all(chunk.usage is None for chunk in others)


def test_without_a_limit_an_answer_is_as_long_as_those_of_training(server: Server, model: OnnxModel) -> None:
    completion = server.openai().completions.create(model=MODEL, prompt="What a day!")
    assert completion.choices[0].text == model.answer("What a day!", TEXT.max_new_tokens)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_before_a_stop_text(stream: bool, server: Server, model: OnnxModel) -> None:
    whole = model.answer("What a day!", 30)
    stop = whole[7:10]
    body = {"model": MODEL, "prompt": "What a day!", "max_tokens": 30, "stop": ["?!?", stop], "stream": stream}
    text = server.post("/v1/completions", body).text
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")] if stream else [json.loads(text)]
    assert "".join(event["choices"][0]["text"] for event in events) == whole[: whole.index(stop)]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_seed_gives_the_same_answer_again_and_another_seed_another(server: Server) -> None:
    def complete(**sampling: float) -> str:
        body = {"prompt": "What a day!", "max_tokens": 30, **sampling}
        text: str = server.post("/v1/completions", body).json()["choices"][0]["text"]
        return text

    assert complete(temperature=1, seed=1) == complete(temperature=1, seed=1)
    assert complete(temperature=1, seed=1) != complete(temperature=1, seed=2)
    assert len({complete(temperature=1) for _ in range(20)}) > 1  # five were equal once
    assert complete(temperature=0, seed=1) == complete(temperature=0, seed=2) == complete()
    assert complete(temperature=1, top_p=0, seed=3) == complete()


def test_a_message_to_a_model_of_texts_is_what_predict_asks(server: Server, model: OnnxModel) -> None:
    for content in ("What a day!", "  What a day!\n"):
        answer = server.openai().chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
        expected = model.answer(TEXT.render_prompt({"phrase": "What a day!"}), TEXT.max_new_tokens)
        assert answer.choices[0].message.content == expected
        assert answer.choices[0].message.role == "assistant"


def test_a_message_to_a_model_of_columns_is_a_json_object_as_for_predict(columns_folder: Path, model: OnnxModel) -> None:
    row = {"Question": "Who's {there}?", "First Name": "Zoë"}
    with serving(columns_folder) as server:
        create = server.openai().chat.completions.create
        answer = create(model=MODEL, messages=[{"role": "user", "content": json.dumps(row)}])
        assert answer.choices[0].message.content == model.answer(COLUMNS.render_prompt(row), 12)
        with pytest.raises(BadRequestError, match="this model needs a JSON object"):
            create(model=MODEL, messages=[{"role": "user", "content": "Who's there?"}])


CONVERSATION: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What a day!"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": [{"type": "text", "text": "Why, "}, {"type": "text", "text": "<|tell|> me?"}]},
]


@pytest.mark.parametrize("messages", [CONVERSATION, CONVERSATION[1:2]])
@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_goes_through_the_chat_template(
    stream: bool, messages: list[ChatCompletionMessageParam], chat_server: Server, chat_folder: Path, model: OnnxModel
) -> None:
    joined = [
        {**message, "content": "Why, <|tell|> me?"} if len(messages) > 1 and message is messages[-1] else message
        for message in messages
    ]
    tokenizer = AutoTokenizer.from_pretrained(chat_folder.joinpath("tokenizer.json").resolve().parent)
    expected = model.answer(tokenizer.apply_chat_template(joined, tokenize=False, add_generation_prompt=True), 20)
    create = chat_server.openai().chat.completions.create
    if stream:
        chunks = list(create(model=MODEL, messages=messages, max_completion_tokens=20, stream=True))
        assert chunks[0].choices[0].delta.role == "assistant"
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected
    else:
        assert create(model=MODEL, messages=messages, max_tokens=20).choices[0].message.content == expected


def test_a_conversation_with_a_model_of_texts_is_refused_with_the_way_out(server: Server) -> None:
    with pytest.raises(BadRequestError) as refused:
        server.openai().chat.completions.create(model=MODEL, messages=CONVERSATION)
    assert "trained on single texts, not on conversations" in str(refused.value)
    assert "/v1/completions" in str(refused.value)


def test_many_clients_at_once_get_their_own_answers(server: Server, model: OnnxModel) -> None:
    texts = [f"client {number} says {'x' * (number % 7)}" for number in range(40)]
    expected = [model.answer(text, 30) for text in texts]
    assert len(set(expected)) > 30
    client = server.async_openai()

    async def ask(text: str, stream: bool) -> str:
        if not stream:
            return (await client.completions.create(model=MODEL, prompt=text, max_tokens=30)).choices[0].text
        chunks = await client.completions.create(model=MODEL, prompt=text, max_tokens=30, stream=True)
        return "".join([chunk.choices[0].text async for chunk in chunks])

    async def ask_all() -> list[str]:
        return await asyncio.gather(*(ask(text, number % 2 == 0) for number, text in enumerate(texts)))

    answers = asyncio.run(ask_all())
    assert answers == expected


def test_chats_of_many_clients_that_grow_stay_apart(chat_server: Server, chat_folder: Path, model: OnnxModel) -> None:
    chat = ChatPrompt(chat_folder, CHAT)
    client = chat_server.async_openai()

    def expected(number: int) -> list[str]:
        messages: list[Any] = []
        for turn in range(5):
            messages.append({"role": "user", "content": f"{number} asks {turn}"})
            messages.append({"role": "assistant", "content": model.answer(chat.render(messages).prompt, 12) or "?"})
        return [message["content"] for message in messages[1::2]]

    async def talk(number: int) -> list[str]:
        messages: list[Any] = []
        for turn in range(5):
            messages.append({"role": "user", "content": f"{number} asks {turn}"})
            answer = (await client.chat.completions.create(model=MODEL, messages=messages)).choices[0].message.content
            messages.append({"role": "assistant", "content": answer or "?"})
        return [message["content"] for message in messages[1::2]]

    async def talk_all() -> list[list[str]]:
        return await asyncio.gather(*map(talk, range(16)))

    assert asyncio.run(talk_all()) == list(map(expected, range(16)))


def test_the_one_model_is_listed(server: Server, folder: Path) -> None:
    (listed,) = server.openai().models.list()
    assert (listed.id, listed.owned_by) == (MODEL, "tunepress")
    assert listed.created == int((folder / "genai_config.json").stat().st_mtime)
    assert server.openai().models.retrieve(MODEL) == listed
