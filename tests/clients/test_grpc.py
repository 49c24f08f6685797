"""grpcurl and `buf curl` against an agent and a control plane, by reflection alone."""

import json
import time

import pytest

from grpc_clients import ADMIN, ROUTING, call, decoded, grpcurl, run, stream, text, tool
from world import WHOLE_ANSWER

HELLO = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}

# What grpcurl adds to a gRPC code for its exit code.
EXIT_BASE = 64

# The most that a state may take to get from one process to the other.
SETTLE_SECONDS = 30


def eventually(look, wanted):
    """Looks until it sees what is wanted."""
    end = time.monotonic() + SETTLE_SECONDS
    while (seen := look()) != wanted:
        assert time.monotonic() < end, f"saw {seen}, wanted {wanted}"
        time.sleep(0.05)


def first_choice(up, model):
    decision = call(up.agent, f"{ROUTING}/Route", {"model": model})["decision"]
    return [candidate["deployment"] for candidate in decision.get("candidates", [])]


def test_services_are_listed(up):
    agent, control_plane = text(up.agent, "list").split(), text(up.control_plane, "list").split()
    assert {ROUTING, "grpc.health.v1.Health"} <= set(agent)
    assert {
        ROUTING,
        ADMIN,
        "trunkline.agent.v1.AgentService",
        "trunkline.telemetry.v1.TelemetryService",
        "grpc.health.v1.Health",
    } <= set(control_plane)


def test_methods_and_messages_are_described(up):
    assert "rpc SetBreaker" in text(up.control_plane, "describe", ADMIN)
    message = text(up.control_plane, "describe", "trunkline.admin.v1.SetBreakerRequest")
    assert ".google.protobuf.Duration ttl = 3" in message


def test_health(up):
    for address in (up.agent, up.control_plane):
        assert call(address, "grpc.health.v1.Health/Check", {})["status"] == "SERVING"


@pytest.mark.parametrize("process", ["agent", "control_plane"])
def test_route(up, process):
    decision = call(getattr(up, process), f"{ROUTING}/Route", {"model": "chat"})["decision"]
    assert {candidate["deployment"] for candidate in decision["candidates"]} == {"one/m", "two/m"}
    assert decision["strategy"] == "STRATEGY_ROUND_ROBIN"
    assert sum(candidate["probability"] for candidate in decision["candidates"]) == pytest.approx(1)


def test_complete(up):
    answer = call(up.agent, f"{ROUTING}/Complete", HELLO)
    assert answer["message"]["content"] == WHOLE_ANSWER
    assert int(answer["usage"]["outputTokens"]) == 12
    assert answer["finishReason"] == "stop"
    assert answer["decision"]["chosen"] in ("one/m", "two/m")


def test_stream_complete(up):
    events = stream(up.agent, f"{ROUTING}/StreamComplete", {"request": HELLO})
    kinds = [next(iter(event)) for event in events]
    assert kinds == ["started"] + ["delta"] * (len(events) - 2) + ["finished"]
    pieces = [event["delta"].get("content", "") for event in events[1:-1]]
    assert "".join(pieces) == WHOLE_ANSWER
    assert events[-1]["finished"]["finishReason"] == "stop"


def test_stream_failure_is_a_status_after_the_deltas(up):
    request = {"request": {**HELLO, "model": "breaking"}}
    result = grpcurl(up.agent, f"{ROUTING}/StreamComplete", data=json.dumps(request))
    assert result.returncode > EXIT_BASE
    events = decoded(result.stdout)
    assert [next(iter(event)) for event in events] == ["started", "delta", "delta", "delta"]


def test_report_outcome_and_explain(up):
    decision = call(up.agent, f"{ROUTING}/Route", {"model": "chat"})["decision"]
    chosen = decision["candidates"][0]["deployment"]
    outcome = {"decision_id": decision["decisionId"], "deployment": chosen, "status": 200, "duration": "0.4s"}
    call(up.agent, f"{ROUTING}/ReportOutcome", outcome)
    explained = call(up.agent, f"{ROUTING}/ExplainDecision", {"decision_id": decision["decisionId"]})
    assert [attempt["deployment"] for attempt in explained["decision"]["attempts"]] == [chosen]


def test_control_plane_sends_completions_to_the_agents(up):
    result = grpcurl(up.control_plane, f"{ROUTING}/Complete", data=json.dumps(HELLO))
    assert result.returncode == EXIT_BASE + 9, result.stderr
    assert '"reason":"AGENT_REQUIRED"' in result.stderr
    assert up.agent in result.stderr


def test_error_details_are_decoded(up):
    result = grpcurl(up.agent, f"{ROUTING}/Route", data='{"model": "nope"}')
    assert result.returncode == EXIT_BASE + 5
    assert "type.googleapis.com/google.rpc.ErrorInfo" in result.stderr
    assert '"domain":"trunkline"' in result.stderr

    result = grpcurl(up.control_plane, f"{ADMIN}/CreateProvider", data='{"provider": {"name": "Not A Name"}}')
    assert result.returncode == EXIT_BASE + 3
    assert "type.googleapis.com/google.rpc.BadRequest" in result.stderr
    assert '"field":"provider.name"' in result.stderr


def test_forced_breaker_diverts_traffic_until_it_is_given_back(up):
    force = {"deployment": "two/m", "state": "BREAKER_STATE_FORCED_OPEN", "ttl": "600s", "reason": "drill"}
    breaker = call(up.control_plane, f"{ADMIN}/SetBreaker", force)["breaker"]
    assert breaker["state"] == "BREAKER_STATE_FORCED_OPEN"
    try:
        eventually(lambda: first_choice(up, "chat"), ["one/m"])
        used = {call(up.agent, f"{ROUTING}/Complete", HELLO)["decision"]["chosen"] for _ in range(4)}
        assert used == {"one/m"}
    finally:
        call(up.control_plane, f"{ADMIN}/SetBreaker", {"deployment": "two/m", "state": "BREAKER_STATE_CLOSED"})
    eventually(lambda: sorted(first_choice(up, "chat")), ["one/m", "two/m"])


def test_stats_equal_what_was_sent(up):
    request = {**HELLO, "model": "counted"}
    answers = [call(up.agent, f"{ROUTING}/Complete", request) for _ in range(5)]
    tokens = sum(int(answer["usage"]["outputTokens"]) for answer in answers)

    def row():
        rows = call(up.control_plane, f"{ADMIN}/GetStats", {"virtual_model": "counted"})["rows"]
        (row,) = [row for row in rows if row["deployment"] == "spare/m"]
        return tuple(int(row.get(name, 0)) for name in ("attempts", "successes", "outputTokens"))

    eventually(row, (5, 5, tokens))


def test_agents_are_listed(up):
    (agent,) = call(up.control_plane, f"{ADMIN}/ListAgents", {})["agents"]
    assert agent["state"] == "AGENT_STATE_CONNECTED"
    assert agent["advertise"] == f"http://{up.agent}"


def test_exported_configuration_can_be_changed_and_applied(up):
    exported = up.trunkline("export", "-o", "json")
    request = f'{{"config": {exported}, "validate_only": true}}'
    unchanged = call(up.control_plane, f"{ADMIN}/ApplyConfig", request)
    assert "changes" not in unchanged

    config = json.loads(exported)
    (chat,) = [model for model in config["virtualModels"] if model["name"] == "chat"]
    chat["strategy"] = "STRATEGY_WEIGHTED"
    applied = call(up.control_plane, f"{ADMIN}/ApplyConfig", {"config": config})
    assert [change["path"] for change in applied["changes"]] == ["virtual_models[chat].strategy"]
    revision = int(applied["version"]["revision"])

    def applied_revision():
        (agent,) = call(up.control_plane, f"{ADMIN}/ListAgents", {})["agents"]
        return int(agent["applied"]["revision"])

    eventually(applied_revision, revision)
    restored = call(up.control_plane, f"{ADMIN}/ApplyConfig", f'{{"config": {exported}}}')
    eventually(applied_revision, int(restored["version"]["revision"]))


def test_stale_revision_is_aborted(up):
    config = json.loads(up.trunkline("export", "-o", "json"))
    request = {"config": config, "base_revision": "999999"}
    result = grpcurl(up.control_plane, f"{ADMIN}/ApplyConfig", data=json.dumps(request))
    assert result.returncode == EXIT_BASE + 10, result.stderr


@pytest.mark.parametrize("process", ["agent", "control_plane"])
@pytest.mark.parametrize("reflection", ["grpc-v1", "grpc-v1alpha"])
def test_buf_curl_reads_both_versions_of_reflection(up, process, reflection):
    command = [tool("buf"), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    command += ["--reflect-protocol", reflection, "-d", '{"model": "chat"}']
    result = run([*command, f"http://{getattr(up, process)}/{ROUTING}/Route"])
    assert result.returncode == 0, result.stderr
    assert {candidate["deployment"] for candidate in json.loads(result.stdout)["decision"]["candidates"]} == {
        "one/m",
        "two/m",
    }
