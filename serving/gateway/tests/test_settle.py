from __future__ import annotations

from collections.abc import Mapping

from kernel.usage import Completeness, UsageFact
from serving.contracts import Endpoint
from serving.gateway import settle
from serving.gateway.rhythm import all_of
from serving.gateway.settle import Account, OpenAccounts
from serving.gateway.stream import Choice, Chunk, Meter, Usage
from serving.journal.record import QuickFact

ESTIMATE = {"input": 5, "cached_input": 0, "output": 0}
ENDPOINT = Endpoint(pool="p", replica="r", incarnation="i", address="unix:/x", slots=1, adapters=())


class Journal:
    def __init__(self) -> None:
        self.written: list[tuple[str, object]] = []

    def intent(self, draft: UsageFact) -> None:
        self.written.append(("intent", draft))

    def checkpoint(self, event_id: str, quantities: Mapping[str, int]) -> None:
        self.written.append(("checkpoint", dict(quantities)))

    def settle(self, fact: UsageFact) -> None:
        self.written.append(("settle", fact))


def account(journal: Journal) -> Account:
    draft = UsageFact(
        event_id="e", occurred_at=1, organization="o", project="p", key="k", deployment="d",
        version="v", quantities=ESTIMATE, completeness=Completeness.UNKNOWN, model="m", pool="x",
    )  # fmt: skip
    return Account(journal, draft, Meter())


def counted(tokens: int) -> Chunk:
    return Chunk(
        choices=[Choice(finish_reason="stop")],
        usage=Usage(prompt_tokens=3, completion_tokens=tokens),
    )


def test_the_intent_is_written_before_anything_and_the_settle_once() -> None:
    journal = Journal()
    made = account(journal)
    assert [kind for kind, _ in journal.written] == ["intent"]
    made.ask(ENDPOINT)
    made.meter.take_whole(counted(4))
    assert made.close(settle.finished(made.meter, made.estimate))
    assert not made.close(settle.refused("again"))
    kinds = [kind for kind, _ in journal.written]
    assert kinds == ["intent", "settle"]
    fact = journal.written[1][1]
    assert isinstance(fact, QuickFact)
    assert fact.quantities == {"input": 3, "cached_input": 0, "output": 4}
    assert (fact.completeness, fact.billable, fact.finish_reason) == ("final", True, "stop")
    assert (fact.replica, fact.incarnation, fact.model, fact.event_id) == ("r", "i", "m", "e")


def test_checkpoints_are_written_when_the_count_changed_and_never_after_the_end() -> None:
    journal, accounts = Journal(), OpenAccounts()
    made = account(journal)
    accounts.add(made)
    all_of(accounts.checkpoint())
    made.meter.take(counted(1))
    all_of(accounts.checkpoint())
    all_of(accounts.checkpoint())
    made.meter.take(counted(2))
    all_of(accounts.checkpoint())
    made.close(settle.cut(made.meter, made.estimate, "client_gone"))
    made.meter.take(counted(3))
    all_of(accounts.checkpoint())
    counts = [what["output"] for kind, what in journal.written if kind == "checkpoint"]  # type: ignore[index]
    assert counts == [1, 2]


def test_how_a_call_ends_decides_what_is_booked() -> None:
    nothing, something, whole = Meter(), Meter(), Meter()
    something.take(counted(2))
    whole.take_whole(counted(9))
    cases = [
        (settle.finished(whole, ESTIMATE), ("final", True, 9)),
        (settle.finished(something, ESTIMATE), ("aborted", True, 2)),
        (settle.finished(nothing, ESTIMATE), ("unknown", True, 0)),
        (settle.cut(something, ESTIMATE, "x"), ("aborted", True, 2)),
        (settle.cut(nothing, ESTIMATE, "x"), ("unknown", True, 0)),
        (settle.failed(nothing, "x"), ("unknown", False, 0)),
        (settle.refused("x"), ("final", False, 0)),
    ]
    for ending, expected in cases:
        got = (ending.completeness, ending.billable, ending.quantities["output"])
        assert got == expected
    assert settle.cut(nothing, ESTIMATE, "x").quantities["input"] == 5
    assert settle.refused("x").quantities["input"] == 0
