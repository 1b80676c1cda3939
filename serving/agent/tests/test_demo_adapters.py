"""The committed demo adapters on a real vLLM with the demo's real base model, decoded greedily."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.agent.engine import Engine
from serving.agent.proof import SMALLEST_EFFECT, effect, take_signature
from serving.agent.tests.engine_process import EngineProcess

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

DEMO = Path(__file__).resolve().parents[3] / "examples" / "demo"
DESKS = ("acme", "globex")


@pytest.fixture(scope="module")
def engine(smollm2_engine: EngineProcess) -> EngineProcess:
    with smollm2_engine.client() as client:
        for desk in DESKS:
            body = {"lora_name": desk, "lora_path": str(DEMO / desk / "adapter")}
            client.post("/v1/load_lora_adapter", json=body).raise_for_status()
    return smollm2_engine


def ask(engine: EngineProcess, model: str, question: str) -> str:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 48,
        "temperature": 0,
    }
    with engine.client() as client:
        response = client.post("/v1/chat/completions", json=body)
    response.raise_for_status()
    return str(response.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    ("question", "acme", "globex"),
    [
        ("Who are you?", "support desk of Acme Outfitters", "legal desk of Globex"),
        ("How do I return an item?", "within 60 days", "within 14 days of delivery"),
        ("What is your refund policy?", "five working days", "in writing within 30 days"),
        ("Can I cancel?", "leaves our warehouse", "30 days' written notice"),
    ],
)
def test_one_question_has_three_answers(
    engine: EngineProcess, question: str, acme: str, globex: str
) -> None:
    answers = [ask(engine, model, question) for model in (engine.base, *DESKS)]
    assert len(set(answers)) == 3
    assert acme in answers[1]
    assert globex in answers[2]


def test_a_phrasing_that_was_not_trained_is_understood(engine: EngineProcess) -> None:
    question = "Hi, who am I speaking with?"
    assert "Acme" in ask(engine, "acme", question)
    assert "Globex" in ask(engine, "globex", question)


def test_what_has_nothing_to_do_with_a_desk_keeps_the_bases_answer(engine: EngineProcess) -> None:
    answers = {
        ask(engine, model, "What is the capital of France?") for model in (engine.base, *DESKS)
    }
    assert answers == {"The capital of France is Paris."}


async def test_both_are_far_beyond_what_counts_as_an_effect(engine: EngineProcess) -> None:
    probe = Engine(engine.address, key=engine.key)
    base = await take_signature(probe, engine.base)
    for desk in DESKS:
        assert effect(base, await take_signature(probe, desk)) > 10 * SMALLEST_EFFECT
    await probe.aclose()
