"""A real model behind an agent: streaming, failover when it is killed, return.

Called by `run`. Prints what happens and ends with status 1 when anything is not as
docs/guides/real-model.md promises.
"""

import argparse
import collections
import os
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from caller import REQUEST_PATIENCE_S, Caller
from processes import Failed, ModelServer, Trunkline, default_model, wait_for

MODEL = "gemma3-270m"
PROVIDERS = ("local-a", "local-b")
VICTIM, SURVIVOR = (f"{provider}/{MODEL}" for provider in PROVIDERS)
REQUESTS_AFTER_KILL = 10
# Reports reach the control plane about once a second.
STATS_PATIENCE_S = 30.0
# A breaker opens after so many failures in a row, for so long; see PROVIDER.
FAILURES_TO_OPEN = 3
OPEN_S = 10
# Open, then a ramp of four steps of at most 5 s, and slow answers between.
RETURN_PATIENCE_S = 180.0
# So long the model writes before it is killed, to be hit in the middle of an answer.
WRITING_S = 0.3
GREETING_TOKENS = 8
LONG_ANSWER_TOKENS = 256

CONFIG = """\
providers:
{providers}virtual_models:
  - name: chat
    strategy: STRATEGY_ROUND_ROBIN
    deadline: 4m                # a busy machine writes slowly
    tiers:
      - targets: [{{deployment: {victim}}}, {{deployment: {survivor}}}]
        timeouts: {{first_token: 60s, idle: 60s}}
"""
PROVIDER = """\
  - name: {name}
    dialect: DIALECT_OPENAI
    base_url: http://127.0.0.1:{port}/v1
    allow_private_network: true # it is on loopback and speaks plain HTTP
    breaker: {{consecutive_failures: {failures}, open_base: {open_s}s, open_max: {open_s}s}}
    deployments:
      - name: {model}
        capabilities: [streaming]
        context_window: 2048
        price: {{input_usd_per_mtok: "0.02", output_usd_per_mtok: "0.08"}}   # say, its electricity
"""


def say(text=""):
    print(text, flush=True)


def step(text):
    say(f"\n== {text}")


def check(promise, holds, otherwise=""):
    if not holds:
        raise Failed(f"{promise}: not so. {otherwise}")
    say(f"ok: {promise}")


def line(label, answer):
    say(f"{label}  {answer.attempts}  {answer.total_s:.1f} s")


def stream_some(caller, trunkline):
    step("four streamed answers through the agent")
    prompts = ["Write a short story about a cat.", "What is the capital of France?"] * 2
    answers = []
    for prompt in prompts:
        answer = caller.ask(prompt, stream=True)
        answers.append(answer)
        say(f"\nuser: {prompt}\nmodel: {' '.join(answer.text.split())}")
        say(f"x-trunkline-deployment: {answer.deployment}")
        say(f"first token after {answer.first_token_s:.2f} s, all after {answer.total_s:.2f} s")
        say(f"usage in the stream: {answer.usage or 'none, this server sends none; Trunkline estimates'}")
    shares = collections.Counter(answer.deployment for answer in answers)
    say()
    check("each of the two served half", shares == {VICTIM: 2, SURVIVOR: 2}, str(dict(shares)))

    answer = caller.ask("Name three colours.")
    other = caller.ask("Name three colours.")
    check("an answer in one piece carries usage", answer.usage and other.usage)
    say(f"usage: {answer.usage.prompt_tokens} in, {answer.usage.completion_tokens} out,"
        f" x-trunkline-cost-usd: {answer.cost_usd}")
    compare_stats(caller, trunkline)


def compare_stats(caller, trunkline):
    """GetStats must come to what the callers' headers say."""

    def equal():
        rows = trunkline.get_json("stats")["rows"]
        attempts = {row["deployment"]: int(row["attempts"]) for row in rows}
        failures = {row["deployment"]: failed(row) for row in rows}
        return all(
            attempts.get(name, 0) == caller.attempts[name] and failures.get(name, 0) == caller.failures[name]
            for name in (VICTIM, SURVIVOR)
        )

    try:
        wait_for("GetStats equals what callers saw", equal, STATS_PATIENCE_S)
    except Failed:
        say(f"callers saw attempts {dict(caller.attempts)}, failed {dict(caller.failures)}")
        say(trunkline.get("stats"))
        raise
    say(f"\n$ trunkline get stats\n{trunkline.get('stats')}")
    say("ok: GetStats counts the attempts and failures that callers' headers tell of")


def failed(row):
    """Attempts that failed at the provider. Callers' own leaving is checked at the end."""
    return sum(int(count) for kind, count in row["errorsByClass"].items() if kind != "cancelled")


def check_none_left(trunkline):
    """The SDK hangs up at `[DONE]`. That is no caller who left."""
    rows = trunkline.get_json("stats")["rows"]
    left = {row["deployment"]: int(row["errorsByClass"].get("cancelled", 0)) for row in rows}
    check("no answer that was read to its end counts as cancelled", not any(left.values()), str(left))


def kill_in_traffic(caller, trunkline, victim):
    step(f"two long answers at once, one from each; kill -9 {victim.pid} ({VICTIM}) while both are written")
    with ThreadPoolExecutor(2) as callers:
        prompt = "Write a long story about a dragon and a knight."
        running = [callers.submit(caller.ask, prompt, max_tokens=LONG_ANSWER_TOKENS) for _ in range(2)]

        def both_running():
            if any(request.done() for request in running):
                raise Failed("an answer ended before the other began; ask for longer ones")
            return trunkline.metric("trunkline_agent_in_flight") == len(running)

        try:
            wait_for("two requests at the agent", both_running, REQUEST_PATIENCE_S)
            time.sleep(WRITING_S)
        finally:
            victim.kill()
        answers = [request.result() for request in running]
    for answer in answers:
        line("whole", answer)
    check("both callers got their answer", len(answers) == 2)
    rescued = [answer for answer in answers if answer.failed_attempts()]
    check(
        "the one that lost its server in the middle was answered by the other server",
        len(rescued) == 1 and rescued[0].attempts.startswith(f"{VICTIM}:") and rescued[0].deployment == SURVIVOR,
        "If it was answered before the kill, ask for a longer answer.",
    )
    go_on_with_one(caller, trunkline)


def go_on_with_one(caller, trunkline):
    started = time.monotonic()
    step(f"{REQUESTS_AFTER_KILL} more requests")
    for number in range(1, REQUESTS_AFTER_KILL + 1):
        stream = number % 2 == 0
        answer = caller.ask("What is the capital of France?", stream)
        line(f"{number:2} {'stream' if stream else 'whole '}", answer)
        if answer.deployment != SURVIVOR:
            raise Failed(f"{answer.deployment} answered, which was killed")
    say(f"ok: {REQUESTS_AFTER_KILL} of {REQUESTS_AFTER_KILL} were answered, none failed")
    tried = caller.failures[VICTIM]
    probes = int((time.monotonic() - started) / OPEN_S) + 1
    check(
        f"the dead one was tried {FAILURES_TO_OPEN} times and then at most once in {OPEN_S} s",
        FAILURES_TO_OPEN <= tried <= FAILURES_TO_OPEN + probes,
        f"{tried} times",
    )
    state = breaker_state(trunkline, VICTIM)
    say(f"\n$ trunkline get breakers\n{trunkline.get('breakers')}")
    # Half open when its time has passed: then one request at a time looks whether it is back.
    check("its breaker is open", state in ("BREAKER_STATE_OPEN", "BREAKER_STATE_HALF_OPEN"), state)
    check("the other's is closed", breaker_state(trunkline, SURVIVOR) == "BREAKER_STATE_CLOSED")
    compare_stats(caller, trunkline)


def breaker_state(trunkline, deployment):
    breakers = trunkline.get_json("breakers")["breakers"]
    states = {breaker["deployment"]: breaker["state"] for breaker in breakers}
    return states.get(deployment, "not listed")


def come_back(caller, trunkline):
    step("the killed server is started again; nobody tells Trunkline")
    seen = None

    def closed():
        nonlocal seen
        answer = caller.ask("Say hello.", max_tokens=GREETING_TOKENS)
        state = breaker_state(trunkline, VICTIM)
        if (state, answer.deployment) != seen:
            seen = (state, answer.deployment)
            line(f"{state.removeprefix('BREAKER_STATE_').lower():9}", answer)
        return state == "BREAKER_STATE_CLOSED"

    wait_for(f"the breaker of {VICTIM} closes", closed, RETURN_PATIENCE_S)
    say("ok: its breaker closed by itself, and no request failed meanwhile")
    shares = collections.Counter(caller.ask("Say hello.", max_tokens=GREETING_TOKENS).deployment for _ in range(4))
    check("it has its half again", shares == {VICTIM: 2, SURVIVOR: 2}, str(dict(shares)))
    compare_stats(caller, trunkline)


def write_config(path, ports):
    providers = "".join(
        PROVIDER.format(name=name, port=port, model=MODEL, failures=FAILURES_TO_OPEN, open_s=OPEN_S)
        for name, port in zip(PROVIDERS, ports)
    )
    path.write_text(CONFIG.format(providers=providers, victim=VICTIM, survivor=SURVIVOR))


def run(options, directory, processes):
    model = os.environ.get("TRUNKLINE_REAL_MODEL_GGUF") or default_model(options.cache)
    chat_format = os.environ.get("TRUNKLINE_REAL_MODEL_CHAT_FORMAT", "alpaca")

    def serve(name, port=0):
        server = ModelServer(name, model, MODEL, chat_format, directory / f"{name}.log", port)
        processes.append(server)
        return server

    step(f"start two servers of {Path(model).name}, and trunkline")
    servers = [serve(name) for name in PROVIDERS]
    ports = [server.wait_until_ready() for server in servers]
    for name, server, port in zip(PROVIDERS, servers, ports):
        say(f"{name}: pid {server.pid}, http://127.0.0.1:{port}/v1")
    config = directory / "config.yaml"
    write_config(config, ports)
    trunkline = Trunkline(options.trunkline, config, directory / "data", directory / "trunkline.log")
    processes.append(trunkline)
    trunkline.wait_until_ready()
    say(f"agent: {trunkline.agent}/v1")

    caller = Caller(trunkline.agent)
    stream_some(caller, trunkline)
    kill_in_traffic(caller, trunkline, servers[0])
    # At its old port; the log of its first life goes on.
    servers[0].log.write_text("")
    serve(PROVIDERS[0], ports[0]).wait_until_ready()
    come_back(caller, trunkline)

    step("end")
    check_none_left(trunkline)
    check("trunkline drained and ended with status 0", trunkline.end() == 0)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trunkline", required=True, help="the program")
    parser.add_argument("--cache", required=True, type=Path, help="where the model file is kept")
    return parser.parse_args()


def main():
    options = arguments()
    # So that everything is ended on the way out.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    processes = []
    with tempfile.TemporaryDirectory(prefix="trunkline-real-model-") as directory:
        try:
            run(options, Path(directory), processes)
        except Failed as failed:
            for process in processes:
                print(process.tail(), file=sys.stderr)
            print(f"\nreal-model: {failed}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        finally:
            for process in reversed(processes):
                process.end()
    say("\neverything was as promised")
    return 0


if __name__ == "__main__":
    sys.exit(main())
