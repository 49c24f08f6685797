"""Prints README.md as a bash script: what a newcomer would paste, in order.

    python3 tests/clients/readme.py README.md [FROM=TO ...] | bash

Blocks marked `sh` are commands, `python` goes to python3, and `yaml` to the file that
its first line names. Others (`console`, `text`, `rust`) are not run here. FROM=TO
replaces text, for an `up` that is not on the default ports.
"""

import re
import sys

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END = "END_OF_README_BLOCK"


def commands(language, body):
    """What runs a block."""
    if language == "sh":
        return body
    if language == "python":
        return f"python3 - <<'{END}'\n{body}{END}\n"
    if language == "yaml":
        name = re.match(r"# (\S+\.yaml)\n", body)
        assert name, f"a yaml block must name its file first: {body[:40]!r}"
        return f"cat > {name[1]} <<'{END}'\n{body}{END}\n"
    return None


def script(text, replacements):
    for old, new in replacements:
        assert old in text, f"'{old}' is not in the text"
        text = text.replace(old, new)
    parts = ["set -euo pipefail\n"]
    for block in BLOCK.finditer(text):
        run = commands(block[1], block[2])
        if run:
            line = text.count("\n", 0, block.start()) + 1
            parts.append(f"echo '== line {line}'\n{run}")
    return "".join(parts)


def main():
    path, *replacements = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        print(script(file.read(), [pair.split("=", 1) for pair in replacements]), end="")


if __name__ == "__main__":
    main()
