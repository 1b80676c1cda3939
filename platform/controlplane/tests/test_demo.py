"""The demo on the real engine: what a newcomer gets, and what happens when the engine is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest

from controlplane.embedded.tests.installation import (
    Installation,
    gone,
    new_installation,
    tree,
    until,
)
from controlplane.engine.environment import engine_python

pytestmark = [pytest.mark.stack, pytest.mark.engine, pytest.mark.timeout(900)]

ANSWER_WITHIN_SECONDS = 420
QUESTION = "What is your refund policy?"
MODELS = ("support", "legal")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The demo's organizations on a running stack."""
    if engine_python() is None:
        pytest.skip("the engine is not installed: `make engine` says why")
    for made in new_installation(tmp_path_factory.mktemp("demo")):
        done = made.manage("up", "--detach", within_seconds=240)
        assert done.returncode == 0, done.stdout + done.stderr
        yield made


@dataclass
class Customers:
    """Both demo organizations' apps, asking the same question over and over."""

    clients: dict[str, openai.OpenAI]
    stop: threading.Event = field(default_factory=threading.Event)
    answers: dict[str, list[str]] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, stack: Installation) -> Customers:
        demo = json.loads((stack.home / "demo.json").read_text())
        url = f"http://127.0.0.1:{stack.gateway_port}/v1"
        return cls(
            {
                each["model"]: openai.OpenAI(
                    base_url=url, api_key=each["key"], max_retries=0, timeout=60
                )
                for each in demo["organizations"]
            }
        )

    def ask(self, model: str) -> str:
        answer = self.clients[model].chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            max_tokens=60,
        )
        return answer.choices[0].message.content or ""

    def wait(self, model: str) -> str:
        """The first answer there is, within the time that an engine may take to start."""
        deadline = time.monotonic() + ANSWER_WITHIN_SECONDS
        while True:
            try:
                return self.ask(model)
            except openai.APIError:
                assert time.monotonic() < deadline, f"{model} never answered"
                time.sleep(0.5)

    def keep_asking(self, model: str) -> None:
        while not self.stop.is_set():
            try:
                self.answers.setdefault(model, []).append(self.ask(model))
            except openai.APIError as error:
                self.refusals.append(type(error).__name__)
                self.stop.wait(0.2)


def test_the_walk_of_two_new_customers_ends_well(stack: Installation) -> None:
    customers = Customers.of(stack)
    for model in MODELS:
        customers.wait(model)
    walk = stack.manage("demo", within_seconds=ANSWER_WITHIN_SECONDS)
    assert walk.returncode == 0, walk.stdout + walk.stderr
    result = json.loads(walk.stdout.strip().splitlines()[-1])
    assert result["answers_distinct"] is True
    assert result["foreign_model_status"] == 404
    assert result["usage_equal"] is True


def test_a_killed_engine_comes_back_and_the_base_never_answers_for_an_adapter(
    stack: Installation,
) -> None:
    customers = Customers.of(stack)
    proper = {model: customers.wait(model) for model in MODELS}
    assert len(set(proper.values())) == len(MODELS)
    leader, members = _engine(stack)
    with ThreadPoolExecutor(2 * len(MODELS)) as pool:
        for model in 2 * MODELS:
            pool.submit(customers.keep_asking, model)
        _until_both_answered(customers, at_least=2)
        victim = members[-1]  # deep inside: the process that computes
        os.kill(victim, signal.SIGKILL)
        before = {model: len(customers.answers[model]) for model in MODELS}
        _patiently(lambda: gone([leader, *members]), "all processes of the killed engine are gone")
        _patiently(
            lambda: all(len(customers.answers[model]) > before[model] + 3 for model in MODELS),
            "both adapters answer again",
        )
        customers.stop.set()
    assert _engine(stack)[0] != leader
    for model in MODELS:
        assert set(customers.answers[model]) == {proper[model]}
    assert customers.refusals, "the kill went unnoticed, so nothing was tested"


def _engine(stack: Installation) -> tuple[int, list[int]]:
    """Process ids of the engine: the one that the supervisor started, and those below it."""
    parts = stack.status()
    [leader] = [part["pid"] for name, part in parts.items() if name.startswith("engine-")]
    return leader, tree(leader)[1:]


def _patiently(condition: Callable[[], object], what: str) -> None:
    until(condition, what, within_seconds=ANSWER_WITHIN_SECONDS)


def _until_both_answered(customers: Customers, *, at_least: int) -> None:
    _patiently(
        lambda: all(len(customers.answers.get(model, ())) >= at_least for model in MODELS),
        "both answer under load",
    )


def test_the_printed_files_are_private(stack: Installation) -> None:
    for name in ("demo.json", "secrets.json", "environment.json"):
        assert (stack.home / name).stat().st_mode & 0o077 == 0
    assert Path(stack.home).stat().st_mode & 0o077 == 0
