"""The processes that the client tests talk to: simulated providers, each with one
fault, and `trunkline up` over them. All on loopback, at ports of the system's choice.
"""

import hashlib
import os
import queue
import subprocess
import threading
from pathlib import Path

# The most a process may take to announce its listeners, on a busy machine.
START_SECONDS = 60

# Answers of 12 tokens within milliseconds, never an error by chance.
QUICK_MODEL = """
name: {name}
ttft: {{base_s: 0.002, per_1k_input_s: 0, sigma: 0}}
tpot: {{median_s: 0.001, sigma: 0}}
output: {{median_tokens: 12, sigma: 0}}
"""

# By provider; each is also a virtual model with this provider as its only target.
# 60 s is more than an agent waits for a provider, so a 429 comes back at once.
FAULTS = {
    "limited": "status:429:retry-after=60",
    "limited-stream": "status:429:retry-after=60",
    "overloaded": "status:503",
    "overloaded-stream": "status:503",
    "refusing": "status:400",
    "breaking": "error:3",
    "cut": "cut:3",
    "silent": "silent",
}
HEALTHY = ["one", "two", "spare"]

# What a simulated provider says in its 12 tokens.
WHOLE_ANSWER = "This is a simulated answer, one word for each token."

APP_KEY = "an-app-key-of-the-tests"
APP_KEY_SHA256 = hashlib.sha256(APP_KEY.encode()).hexdigest()


class Process:
    """A process known by its `listening <role> <url>` lines. `stop` ends it."""

    def __init__(self, binary, arguments):
        # Variables of the product from outside would be flags that no test wrote.
        env = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
        self.arguments = arguments
        self.process = subprocess.Popen(
            [binary, *arguments], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        self.lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def line(self, prefix):
        """The next line that starts so; those before it are dropped."""
        while True:
            line = self.lines.get(timeout=START_SECONDS)
            assert line is not None, f"{self.arguments} ended before it printed '{prefix}'"
            if line.startswith(prefix):
                return line

    def url(self, role):
        return self.line(f"listening {role} ").split()[2]

    def stop(self):
        assert self.process.poll() is None, f"{self.arguments} ended by itself, or somebody ended it"
        self.process.terminate()
        try:
            self.process.wait(timeout=START_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode


class Up:
    """`trunkline up` with a configuration document."""

    def __init__(self, binary, directory, document):
        directory.mkdir(parents=True)
        config = directory / "config.yaml"
        config.write_text(document)
        free = "127.0.0.1:0"
        self.binary = binary
        self.process = Process(
            binary,
            ["up", "--config", str(config), "--data-dir", str(directory / "data")]
            + ["--listen", free, "--ops-listen", free]
            + ["--control-plane-listen", free, "--control-plane-ops-listen", free],
        )
        self.control_plane = self.process.url("control-plane").removeprefix("http://")
        self.agent = self.process.url("agent").removeprefix("http://")
        self.process.line("Ctrl-C")

    @property
    def openai_url(self):
        return f"http://{self.agent}/v1"

    def trunkline(self, *arguments):
        """Output of a command of the product, against this control plane."""
        command = [self.binary, *arguments, "--control-plane", f"http://{self.control_plane}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class World:
    """Providers and the two `up`s: one open, one that asks apps for a key."""

    def __init__(self, directory: Path):
        binary = os.environ.get("TRUNKLINE_BIN", "target/debug/trunkline")
        self.started = []
        try:
            self._start(binary, directory)
        except BaseException:
            self.stop()
            raise

    def _start(self, binary, directory):
        providers = {}
        for name in HEALTHY + list(FAULTS):
            model = directory / f"{name}.yaml"
            model.write_text(QUICK_MODEL.format(name=name))
            arguments = ["simulate-provider", "--model-file", str(model)]
            if name in FAULTS:
                arguments += ["--fault", FAULTS[name]]
            provider = Process(binary, arguments)
            self.started.append(provider)
            providers[name] = provider.url("provider")
        document = config(providers)
        self.up = self._up(binary, directory / "open", document)
        keys = f"api_keys:\n  - {{name: team, secret_sha256: {APP_KEY_SHA256}, allowed_models: [chat]}}\n"
        self.guarded = self._up(binary, directory / "guarded", document + keys)

    def _up(self, binary, directory, document):
        up = Up(binary, directory, document)
        self.started.append(up.process)
        return up

    def stop(self):
        """Ends everything, what was started last first. Exit codes in that order."""
        codes = []
        try:
            while self.started:
                codes.append(self.started.pop().stop())
        finally:
            for process in self.started:
                process.process.kill()
        return codes


def config(providers):
    lines = ["providers:"]
    for name, url in providers.items():
        lines += [
            f"  - name: {name}",
            "    dialect: DIALECT_OPENAI",
            f"    base_url: {url}",
            "    allow_private_network: true",
            "    deployments:",
            '      - {name: m, price: {input_usd_per_mtok: "1", output_usd_per_mtok: "2"}}',
        ]
    lines.append("virtual_models:")
    lines += virtual_model("chat", ["one/m", "two/m"])
    lines += virtual_model("counted", ["spare/m"])
    # The way out of a faulty provider: the next tier.
    lines += virtual_model("rescued", ["overloaded/m"], ["one/m"])
    for name in FAULTS:
        lines += virtual_model(name, [f"{name}/m"])
        # Else an agent with no other target goes on trying for many seconds.
        lines.append("    retry: {max_attempts: 1}")
    return "\n".join(lines) + "\n"


def virtual_model(name, *tiers):
    lines = [f"  - name: {name}", "    strategy: STRATEGY_ROUND_ROBIN", "    tiers:"]
    for targets in tiers:
        listed = ", ".join(f"{{deployment: {target}}}" for target in targets)
        lines.append(f"      - targets: [{listed}]")
    return lines
