"""The official `openai` SDK against an agent: what goes wrong, and what the SDK makes
of it. The agent has tried for the caller, so the SDK must not try again.
"""

import time

import openai
import pytest

from world import APP_KEY, WHOLE_ANSWER

HELLO = [{"role": "user", "content": "hello"}]


def test_unknown_model(client, calls):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nope", messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert len(calls) == 1


def test_missing_messages(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/chat/completions", body={"model": "chat"}, cast_to=object)
    assert caught.value.param == "messages"


def test_bad_knob(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="chat", messages=HELLO, extra_headers={"x-trunkline-timeout-ms": "soon"}
        )
    assert "x-trunkline-timeout-ms" in caught.value.message


def test_provider_refusal_comes_through(client, calls):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="refusing", messages=HELLO)
    assert caught.value.type == "invalid_request_error"
    assert len(calls) == 1


@pytest.mark.parametrize("model, stream", [("limited", False), ("limited-stream", True)])
def test_rate_limit_names_the_wait_and_stops_the_sdk(client, calls, model, stream):
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model=model, messages=HELLO, stream=stream)
    headers = caught.value.response.headers
    assert 1 <= int(headers["retry-after"]) <= 60
    assert headers["x-should-retry"] == "false"
    assert len(calls) == 1, "the SDK tried again although it was told not to"

    # The provider is left alone for as long as it asked.
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=model, messages=HELLO, stream=stream)
    assert caught.value.status_code in (429, 503)
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
    assert len(calls) == 2


@pytest.mark.parametrize("model, stream", [("overloaded", False), ("overloaded-stream", True)])
def test_failing_provider_is_not_retried_by_the_sdk(client, calls, model, stream):
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=model, messages=HELLO, stream=stream)
    assert caught.value.status_code == 503
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(calls) == 1, "the SDK tried again although it was told not to"


@pytest.mark.parametrize("stream", [False, True])
def test_failover_is_invisible_but_for_a_header(client, stream):
    answer = client.chat.completions.with_raw_response.create(model="rescued", messages=HELLO, stream=stream)
    assert answer.headers["x-trunkline-deployment"] == "one/m"
    if stream:
        pieces = [chunk.choices[0].delta.content or "" for chunk in answer.parse()]
        assert "".join(pieces) == WHOLE_ANSWER
    else:
        assert answer.parse().choices[0].message.content == WHOLE_ANSWER


@pytest.mark.parametrize("model", ["breaking", "cut"])
def test_error_within_a_stream(client, calls, model):
    got = []
    with pytest.raises(openai.APIError) as caught:
        for chunk in client.chat.completions.create(model=model, messages=HELLO, stream=True):
            got.append(chunk.choices[0].delta.content or "")
    # An error event, not a broken connection: the SDK knows the difference.
    assert not isinstance(caught.value, openai.APIConnectionError)
    assert caught.value.body
    assert len("".join(got).split()) == 3
    assert len(calls) == 1


def test_sdk_timeout(client):
    start = time.monotonic()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3, max_retries=0).chat.completions.create(model="silent", messages=HELLO)
    # Far below the agent's own patience.
    assert time.monotonic() - start < 5


def test_deadline_of_the_request(client, calls):
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(
            model="silent", messages=HELLO, extra_headers={"x-trunkline-timeout-ms": "300"}
        )
    assert caught.value.status_code == 504
    assert caught.value.code == "deadline_exceeded"
    assert len(calls) == 1


def test_app_key_is_required_once_one_is_configured(world):
    with openai.OpenAI(base_url=world.guarded.openai_url, api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.chat.completions.create(model="chat", messages=HELLO)
        assert caught.value.code == "invalid_api_key"
        assert "wrong" not in caught.value.message

    with openai.OpenAI(base_url=world.guarded.openai_url, api_key=APP_KEY) as client:
        assert client.chat.completions.create(model="chat", messages=HELLO).choices
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="counted", messages=HELLO)
        with pytest.raises(openai.PermissionDeniedError):
            client.chat.completions.create(model="one/m", messages=HELLO)
