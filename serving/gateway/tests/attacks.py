"""What the tests of attacks share: ordinary requests, and what they cost a gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from serving.gateway.tests import raw

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {
    "model": "support",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 2,
}
# The least that each inference route needs besides the model's name.
LEAST: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HELLO["messages"]},
    "/v1/completions": {"prompt": "hi"},
}


def rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RSS")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process' main thread, which runs its event loop."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def told_apart(answer: raw.Answer) -> tuple[int, bytes, tuple[tuple[str, str], ...]]:
    """All that could tell one answer from another, but for its id and the time."""
    headers = {k: v for k, v in answer.headers.items() if k not in {"x-request-id", "date"}}
    return answer.status, answer.body, tuple(sorted(headers.items()))
