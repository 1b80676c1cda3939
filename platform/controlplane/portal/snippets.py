"""Calls to paste into a terminal or a file, with this key and a model that exists."""

from __future__ import annotations

from dataclasses import dataclass

_QUESTION = "Hello! What can you help me with?"


@dataclass(frozen=True, slots=True)
class Snippet:
    """``name`` is for the tab, ``language`` names its panel."""

    name: str
    language: str
    text: str


def for_key(gateway_url: str, secret: str, model: str) -> tuple[Snippet, ...]:
    """One call in each language, and the two variables that most clients read by themselves."""
    base_url = f"{gateway_url.rstrip('/')}/v1"
    return (
        Snippet(
            "curl", "curl", _CURL.format(url=base_url, key=secret, model=model, text=_QUESTION)
        ),
        Snippet(
            "Python",
            "python",
            _PYTHON.format(url=base_url, key=secret, model=model, text=_QUESTION),
        ),
        Snippet("Environment", "environment", _ENVIRONMENT.format(url=base_url, key=secret)),
    )


def call(gateway_url: str, model: str) -> Snippet:
    """One call of one model, with the key left to a variable."""
    url = f"{gateway_url.rstrip('/')}/v1"
    text = _CURL.format(url=url, key="$TESSERA_KEY", model=model, text=_QUESTION)
    return Snippet("curl", "curl", text)


_CURL = """\
curl {url}/chat/completions \\
  -H "Authorization: Bearer {key}" \\
  -H "Content-Type: application/json" \\
  -d '{{
    "model": "{model}",
    "messages": [{{"role": "user", "content": "{text}"}}]
  }}'
"""

_PYTHON = """\
from openai import OpenAI

client = OpenAI(
    base_url="{url}",
    api_key="{key}",
)
stream = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "{text}"}}],
    stream=True,
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
"""

_ENVIRONMENT = """\
export OPENAI_BASE_URL="{url}"
export OPENAI_API_KEY="{key}"
"""
