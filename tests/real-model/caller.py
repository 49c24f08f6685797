"""An app of the real-model test: the official openai SDK, and what its user sees."""

import collections
import threading
import time
from dataclasses import dataclass

import openai

from processes import Failed

# Answers may be slow: nothing here is about speed.
REQUEST_PATIENCE_S = 240.0
SHORT_ANSWER_TOKENS = 40


@dataclass
class Answer:
    """What a caller sees of one request."""

    text: str
    deployment: str
    attempts: str
    cost_usd: str
    usage: object
    first_token_s: float | None
    total_s: float

    def failed_attempts(self):
        """`local-a/gemma3-270m:connect` and the like, without the one that answered."""
        return [attempt for attempt in self.attempts.split(",") if not attempt.endswith(":ok")]


class Caller:
    """The official SDK, which must not hide a failure by a retry of its own."""

    def __init__(self, agent):
        self.client = openai.OpenAI(
            base_url=f"{agent}/v1", api_key="none", max_retries=0, timeout=REQUEST_PATIENCE_S
        )
        # By deployment: attempts that the callers' headers tell of, and failed ones.
        self.attempts = collections.Counter()
        self.failures = collections.Counter()
        self.counting = threading.Lock()

    def ask(self, prompt, stream=False, max_tokens=SHORT_ANSWER_TOKENS):
        started = time.monotonic()
        try:
            raw = self.client.chat.completions.with_raw_response.create(
                model="chat",
                messages=[{"role": "user", "content": prompt}],
                max_tokens=max_tokens,
                stream=stream,
            )
            text, usage, first = self.read(raw.parse(), stream)
        except openai.OpenAIError as error:
            raise Failed(f"a request failed: {error!r}") from error
        if not text.strip():
            raise Failed("an answer has no text")
        answer = Answer(
            text=text,
            deployment=raw.headers.get("x-trunkline-deployment", "-"),
            attempts=raw.headers.get("x-trunkline-attempts", "-"),
            cost_usd=raw.headers.get("x-trunkline-cost-usd", "-"),
            usage=usage,
            first_token_s=first and first - started,
            total_s=time.monotonic() - started,
        )
        self.count(answer)
        return answer

    @staticmethod
    def read(response, stream):
        """Text, usage if the server told it, and when the first text of a stream came."""
        if not stream:
            return response.choices[0].message.content or "", response.usage, None
        parts, usage, first, finish = [], None, None, None
        for chunk in response:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                if choice.delta.content:
                    first = first or time.monotonic()
                    parts.append(choice.delta.content)
        if finish is None:
            raise Failed("a stream ended without a finish_reason")
        return "".join(parts), usage, first

    def count(self, answer):
        with self.counting:
            for attempt in answer.attempts.split(","):
                self.attempts[attempt.rsplit(":", 1)[0]] += 1
            for attempt in answer.failed_attempts():
                self.failures[attempt.rsplit(":", 1)[0]] += 1
