"""Fixtures of the client tests. Run by `cargo test --workspace` (tests/clients.rs), or
by hand: `TRUNKLINE_BIN=target/debug/trunkline pytest tests/clients`.
"""

import openai
import pytest

from world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("world"))
    yield world
    # A drain that ends in order is part of what clients see.
    codes = world.stop()
    assert all(code == 0 for code in codes), f"exit codes {codes}"


@pytest.fixture(scope="session")
def up(world):
    return world.up


@pytest.fixture
def calls():
    """HTTP requests that the SDK sent in this test."""
    return []


@pytest.fixture
def client(up, calls):
    """The SDK as an app makes it, with its own retries on."""
    hooks = {"request": [calls.append]}
    http_client = openai.DefaultHttpxClient(event_hooks=hooks)
    with openai.OpenAI(base_url=up.openai_url, api_key="none", http_client=http_client) as client:
        yield client
