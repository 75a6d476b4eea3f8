"""Who answers about images while data is made: a model, or a server that speaks OpenAI's protocol."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from chiasm.data.sample import Message, Picture, Sample
from chiasm.errors import ChiasmError, excerpt
from chiasm.inference.answers import Answer, answers
from chiasm.inference.text import WordSampling
from chiasm.model import Model

ROWS = 16  # prompts that a model answers together
MOST_BYTES = 4 << 20  # of a server's answer


class Prompt(NamedTuple):
    picture: Picture
    text: str


class Speaker(ABC):
    """Answers prompts about images."""

    @abstractmethod
    def answer(self, prompts: Sequence[Prompt], *, temperature: float = 0.0) -> list[str]:
        """An answer to each; one that a limit has cut off is an `Answer` that says so.

        temperature: 0 = the likeliest words.
        """


@dataclass(frozen=True)
class ModelSpeaker(Speaker):
    """A model of one's own. tokens: most of an answer. seed: of answers at a temperature."""

    model: Model
    tokens: int = 128
    seed: int = 0

    def answer(self, prompts: Sequence[Prompt], *, temperature: float = 0.0) -> list[str]:
        sampling, results = WordSampling(temperature=temperature), list[str]()
        for start in range(0, len(prompts), ROWS):
            samples = [
                Sample(f"prompt {start + i}", (Message("user", (prompt.picture, prompt.text)),))
                for i, prompt in enumerate(prompts[start : start + ROWS], 1)
            ]
            seeds = [self.seed + start + i for i in range(len(samples))]
            results += answers(self.model, samples, tokens=self.tokens, sampling=sampling, seeds=seeds)
        return results


@dataclass(frozen=True)
class ServerSpeaker(Speaker):
    """A server with `/v1/chat/completions` (`chiasm serve`, vLLM, llama.cpp, a hosted one).

    url: where its paths begin, such as http://localhost:8000/v1. model: the name it knows the model by. key: sent
    as a bearer token. together: requests at a time. seconds: that one may take.
    """

    url: str
    model: str
    key: str | None = None
    tokens: int = 256
    together: int = 4
    seconds: float = 300.0

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise ChiasmError(f"{self.url} is no server; its address begins with http:// or https://")

    def answer(self, prompts: Sequence[Prompt], *, temperature: float = 0.0) -> list[str]:
        with ThreadPoolExecutor(self.together) as pool:
            return list(pool.map(lambda prompt: self._one(prompt, temperature), prompts))

    def _one(self, prompt: Prompt, temperature: float) -> str:
        content = [
            {"type": "image_url", "image_url": {"url": _data_url(prompt.picture)}},
            {"type": "text", "text": prompt.text},
        ]
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.tokens,
            "temperature": temperature,
        }
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        address = f"{self.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self.seconds) as reply:
                text = reply.read(MOST_BYTES)
        except urllib.error.HTTPError as error:
            reply_text = excerpt(error.read(MOST_BYTES).decode("utf-8", "replace"))
            raise ChiasmError(f"{address} answers {error.code}: {reply_text}") from None
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise ChiasmError(f"{address} does not answer: {reason}") from None
        try:
            choice = json.loads(text)["choices"][0]
            answer, cut = choice["message"]["content"], choice.get("finish_reason") == "length"
        except (ValueError, LookupError, TypeError, AttributeError):
            answer, cut = None, False
        if not isinstance(answer, str):
            raise ChiasmError(
                f"{address} answers {excerpt(text.decode('utf-8', 'replace'))}, which is no completion"
            )
        return Answer.of(answer.strip(), cut=cut)


def _data_url(picture: Picture) -> str:
    buffer = io.BytesIO()
    picture.open().save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
