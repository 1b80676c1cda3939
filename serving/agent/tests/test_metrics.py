from __future__ import annotations

from serving.agent.metrics import agent_metrics
from serving.contracts import AdapterReport, AgentReport


def report(**changes: object) -> AgentReport:
    states = ("proven", "proven", "failed")
    fields = {
        "version": 1,
        "replica": "replica-1",
        "incarnation": "01",
        "address": "unix:/run/01.sock",
        "state": "ready",
        "adapters": tuple(
            AdapterReport(name=str(number), digest="d", state=state)  # type: ignore[arg-type]
            for number, state in enumerate(states)
        ),
    }
    return AgentReport(**fields | changes)  # type: ignore[arg-type]


def series(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return dict(line.rsplit(" ", 1) for line in lines)


def test_adapters_are_counted_by_state_and_no_state_is_left_out() -> None:
    of = 'replica="replica-1",incarnation="01"'
    assert series(agent_metrics(report())) == {
        f"tessera_agent_engine_ready{{{of}}}": "1",
        f'tessera_agent_adapters{{{of},state="fetching"}}': "0",
        f'tessera_agent_adapters{{{of},state="loading"}}': "0",
        f'tessera_agent_adapters{{{of},state="proven"}}': "2",
        f'tessera_agent_adapters{{{of},state="no_effect"}}': "0",
        f'tessera_agent_adapters{{{of},state="failed"}}': "1",
    }


def test_an_engine_that_is_not_ready_counts_as_none() -> None:
    for state in ("starting", "failing", "gone"):
        first = next(iter(series(agent_metrics(report(state=state))).items()))
        assert first == ('tessera_agent_engine_ready{replica="replica-1",incarnation="01"}', "0")


def test_a_name_cannot_break_out_of_its_label() -> None:
    text = agent_metrics(report(replica='a"\\\nb'))
    assert r'replica="a\"\\\nb"' in text
    assert len(text.splitlines()) == 10
