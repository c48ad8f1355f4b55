"""Completions from an OpenAI-compatible server: many requests at once, each tried again before it is given up."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from rlvr.config import RecipeError
from rlvr.config.evaluation import EndpointSection, SamplingSection
from rlvr.evaluation.generate import NO_ROOM, Answered
from rlvr.evaluation.lines import sound

_RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
_LONGEST_PAUSE = 60.0
_LEAST_IN_A_ROW = 4
_SAID_EVERY_S = 30.0
# how servers say that prompt and completion are longer than their context: vLLM, SGLang, llama.cpp, the OpenAI API
_TOO_LONG = re.compile(r"context[ _](length|size|window)|max(imum)?[ _]model[ _]len|longer than the", re.IGNORECASE)


class EndpointFailure(RuntimeError):
    """Requests that stayed without a usable answer; those answered are on disk and none is scored. Exit code 1."""

    exit_code = 1


class EndpointSampler:
    """Chat messages go to /chat/completions, plain prompts to /completions, one request a sample.

    A request is tried again after a refused connection, a busy or failing server, a timeout, or an answer that is no
    completion, which is said at most every 30 s; not after answers that no further try can mend (401, 404 ...). A
    prompt that the server's context cannot hold is reported as that. EndpointFailure once the others are through, or
    as soon as so many as are sent at once (4 at least) failed in a row: then the server is taken for dead.
    """

    draws_together = False

    def __init__(self, endpoint: EndpointSection, sampling: SamplingSection, pause_s: float = 1.0) -> None:
        self.endpoint, self.sampling, self.pause_s = endpoint, sampling, pause_s
        self._headers = _authorization(endpoint.api_key_env)
        self._said = -math.inf

    def draw(self, prompts: Sequence[Any], greedy: bool, seeds: Sequence[int], answered: Answered) -> None:
        asyncio.run(self._draw(prompts, greedy, seeds, answered))

    async def _draw(self, prompts: Sequence[Any], greedy: bool, seeds: Sequence[int], answered: Answered) -> None:
        import httpx

        waiting = iter(enumerate(prompts))
        failures: list[str] = []
        in_a_row = sent = 0
        timeout = httpx.Timeout(self.endpoint.timeout_s, connect=min(30.0, self.endpoint.timeout_s))
        limits = httpx.Limits(max_connections=self.endpoint.concurrency)
        async with httpx.AsyncClient(headers=self._headers, timeout=timeout, limits=limits) as client:

            async def work() -> None:
                nonlocal in_a_row, sent
                for row, prompt in waiting:
                    if in_a_row >= max(_LEAST_IN_A_ROW, self.endpoint.concurrency):
                        return
                    sent += 1
                    try:
                        answered(row, *await self._ask(client, prompt, greedy, seeds[row]))
                        in_a_row = 0
                    except EndpointFailure as failure:
                        failures.append(str(failure))
                        in_a_row += 1

            await asyncio.gather(*(work() for _ in range(min(self.endpoint.concurrency, len(prompts)))))
        if failures:
            unsent = f", {len(prompts) - sent} more were not sent" if sent < len(prompts) else ""
            raise EndpointFailure(
                f"{self.endpoint.url}: {len(failures)} of {len(prompts)} requests have no usable answer{unsent}; the "
                f"first: {failures[0]}. What was answered is kept and nothing is scored; the same command continues"
            )

    async def _ask(self, client: Any, prompt: Any, greedy: bool, seed: int) -> tuple[str, int, str]:
        import httpx

        path = "completions" if isinstance(prompt, str) else "chat/completions"
        body = self._body(prompt, greedy, seed)
        why = ""
        for attempt in range(self.endpoint.tries):
            if attempt:
                pause = min(_LONGEST_PAUSE, self.pause_s * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
                self._say(f"{why}; asked again in {pause:.0f} s, try {attempt + 1} of {self.endpoint.tries}")
                await asyncio.sleep(pause)
            try:
                response = await client.post(f"{self.endpoint.url}/{path}", json=body)
            except httpx.HTTPError as error:
                why = f"{type(error).__name__}: {error}".rstrip(": ")
                continue
            if response.status_code == 200:
                try:
                    return _completion(response.text)
                except ValueError as error:
                    why = str(error)
                    continue
            if response.status_code in (400, 413, 422) and _TOO_LONG.search(response.text):
                return _no_room(response.text), 0, NO_ROOM
            why = f"HTTP {response.status_code}: {response.text[:200]!r}"
            if response.status_code in (404, 405, 501) and not self.endpoint.url.endswith("/v1"):
                why += " (addresses mostly go up to and with /v1)"
            if response.status_code not in _RETRIED:
                break
        raise EndpointFailure(why)

    def _say(self, trouble: str) -> None:
        now = time.monotonic()
        if now - self._said >= _SAID_EVERY_S:
            self._said = now
            tqdm.write(f"{self.endpoint.url}: {trouble}", file=sys.stderr)  # beside the bars, not into them

    def _body(self, prompt: Any, greedy: bool, seed: int) -> dict[str, Any]:
        section = self.sampling
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "max_tokens": section.max_completion_length,
            "temperature": 0.0 if greedy else section.temperature,
            "top_p": 1.0 if greedy else section.top_p,
            "seed": seed % 2**31,
            "n": 1,
        }
        if section.top_k and not greedy:
            body["top_k"] = section.top_k
        return body | ({"prompt": prompt} if isinstance(prompt, str) else {"messages": prompt}) | self.endpoint.extra


def _authorization(variable: str) -> dict[str, str]:
    """The header that holds the key of the environment; RecipeError, which does not show it, for one that cannot be."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise RecipeError(f"{variable}: holds signs that no HTTP header may hold; is it the key?")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _no_room(text: str) -> str:
    try:
        said = str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        said = text
    return (
        f"the server says {' '.join(said.split())[:300]!r}; start it with a longer context, lower "
        "sampling.max_completion_length, or leave it out by data.exclude"
    )


def _completion(text: str) -> tuple[str, int, str]:
    """(completion, tokens, finish reason) of an answer. ValueError for one that holds no completion."""
    shown = repr(text[:120])
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"answer is no JSON, or cut short: {shown}") from None
    try:
        choice = body["choices"][0]
        message = choice.get("message")
        found = choice["text"] if message is None else message.get("content")
        reasoning = None if message is None else message.get("reasoning_content") or message.get("reasoning")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError(f"answer holds no completion: {shown}") from None
    if reasoning and isinstance(reasoning, str):
        found = f"<think>{reasoning}</think>{found or ''}"
    if not isinstance(found, str):
        raise ValueError(f"answer holds no text: {shown}")
    reason = choice.get("finish_reason")
    if reason not in ("stop", "length", "tool_calls", None):
        raise ValueError(f"answer ended with finish_reason {reason!r}: {shown}")
    usage = body.get("usage") or {}
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    counted = tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else 0
    return sound(found), counted, "length" if reason == "length" else "stop"
