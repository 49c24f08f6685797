"""The official `openai` SDK against an agent: whole answers and streams."""

import asyncio

import openai
import pytest

from world import WHOLE_ANSWER

HELLO = [{"role": "user", "content": "hello"}]
WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather at a place.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def test_chat_completion_is_whole(client):
    answer = client.chat.completions.create(model="chat", messages=HELLO)
    choice = answer.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content == WHOLE_ANSWER
    assert answer.usage.completion_tokens == 12
    assert choice.finish_reason == "stop"
    # The body is as the provider sent it, its model included.
    assert answer.model == "m"


def test_caller_limit_cuts_the_answer(client):
    answer = client.chat.completions.create(model="chat", messages=HELLO, max_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_stream_gives_the_answer_piece_by_piece(client):
    chunks = list(client.chat.completions.create(model="chat", messages=HELLO, stream=True))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert len(pieces) == 12
    assert "".join(pieces) == WHOLE_ANSWER
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_stream_reports_usage_when_asked(client):
    stream = client.chat.completions.create(
        model="chat", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    last = list(stream)[-1]
    assert last.choices == []
    assert last.usage.completion_tokens == 12


def test_stream_usage_stays_away_when_not_asked(client):
    chunks = list(client.chat.completions.create(model="chat", messages=HELLO, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)


def test_async_callers_run_side_by_side(up):
    async def text(client):
        stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def run():
        async with openai.AsyncOpenAI(base_url=up.openai_url, api_key="none") as client:
            whole = await client.chat.completions.create(model="chat", messages=HELLO)
            return whole, await asyncio.gather(*(text(client) for _ in range(8)))

    whole, texts = asyncio.run(run())
    assert whole.choices[0].message.content == WHOLE_ANSWER
    assert texts == [WHOLE_ANSWER] * 8


def test_tool_call_and_its_result(client):
    first = client.chat.completions.create(
        model="chat", messages=HELLO, tools=[WEATHER_TOOL], tool_choice="required"
    )
    call = first.choices[0].message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"simulated"}')
    assert first.choices[0].finish_reason == "tool_calls"

    history = [*HELLO, first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    second = client.chat.completions.create(model="chat", messages=history, tools=[WEATHER_TOOL])
    assert second.choices[0].message.content


def test_tool_call_streams(client):
    stream = client.chat.completions.create(
        model="chat", messages=HELLO, tools=[WEATHER_TOOL], tool_choice="required", stream=True
    )
    deltas = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
    assert deltas[0].function.name == "weather"
    assert "".join(delta.function.arguments or "" for delta in deltas) == '{"city":"simulated"}'


def test_completions(client):
    answer = client.completions.create(model="chat", prompt="Once", max_tokens=5)
    assert len(answer.choices[0].text.split()) == 5
    pieces = list(client.completions.create(model="chat", prompt="Once", max_tokens=5, stream=True))
    assert len("".join(piece.choices[0].text for piece in pieces).split()) == 5


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(client, encoding):
    answer = client.embeddings.create(model="chat", input=["a", "b"], encoding_format=encoding)
    assert [item.index for item in answer.data] == [0, 1]
    assert answer.data[0].embedding
    assert answer.usage.prompt_tokens > 0


def test_models_are_the_virtual_models(client):
    assert "chat" in [model.id for model in client.models.list()]


def test_provider_and_deployment_pin_the_target(client):
    answer = client.chat.completions.with_raw_response.create(model="two/m", messages=HELLO)
    assert answer.headers["x-trunkline-deployment"] == "two/m"


def test_response_headers_tell_what_was_done(client):
    answer = client.chat.completions.with_raw_response.create(
        model="chat", messages=HELLO, extra_headers={"x-request-id": "from-the-app"}
    )
    headers = answer.headers
    assert headers["x-request-id"] == "from-the-app"
    assert headers["x-trunkline-deployment"] in ("one/m", "two/m")
    assert headers["x-trunkline-attempts"] == headers["x-trunkline-deployment"] + ":ok"
    assert headers["x-trunkline-strategy"] == "round_robin"
    assert int(headers["x-trunkline-revision"]) >= 1
    assert headers["x-trunkline-decision"]
    assert headers["x-upstream-request-id"]
    usage = answer.parse().usage
    # 1 dollar in and 2 out per million tokens.
    cost = usage.prompt_tokens * 1e-6 + usage.completion_tokens * 2e-6
    assert float(headers["x-trunkline-cost-usd"]) == pytest.approx(cost, abs=1e-9)


def test_round_robin_takes_turns(client):
    def deployment(_):
        answer = client.chat.completions.with_raw_response.create(model="chat", messages=HELLO)
        return answer.headers["x-trunkline-deployment"]

    used = [deployment(turn) for turn in range(10)]
    assert (used.count("one/m"), used.count("two/m")) == (5, 5)
