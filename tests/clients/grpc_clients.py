"""Calls by grpcurl and `buf curl`, as operators type them."""

import json
import os
import subprocess
import sys
from pathlib import Path

# A call that takes longer hangs.
CALL_SECONDS = 60

ROUTING = "trunkline.routing.v1.RoutingService"
ADMIN = "trunkline.admin.v1.AdminService"


def tool(name):
    """The tool of the environment that runs the tests, not another one of the machine."""
    return str(Path(sys.executable).parent / name)


def run(command, data=None):
    return subprocess.run(command, input=data, capture_output=True, text=True, timeout=CALL_SECONDS, env=os.environ)


def grpcurl(address, *arguments, data=None):
    """The finished process, whatever came of it. `data` goes through a pipe."""
    options = ["-d", "@"] if data is not None else []
    return run([tool("grpcurl"), "-plaintext", *options, address, *arguments], data)


def text(address, *arguments):
    result = grpcurl(address, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def stream(address, method, request):
    """The answers of a call, decoded."""
    data = request if isinstance(request, str) else json.dumps(request)
    result = grpcurl(address, method, data=data)
    assert result.returncode == 0, result.stderr
    return decoded(result.stdout)


def call(address, method, request):
    """The one answer of a call."""
    (answer,) = stream(address, method, request)
    return answer


def decoded(output):
    """JSON values one after the other."""
    decoder, values, rest = json.JSONDecoder(), [], output.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        values.append(value)
        rest = rest[end:].lstrip()
    return values
