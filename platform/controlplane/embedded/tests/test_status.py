from __future__ import annotations

from controlplane.embedded.status import Row, table


def row(name: str, **fields: object) -> Row:
    values = {
        "state": "running",
        "healthy": True,
        "pid": 7,
        "memory_bytes": 50_000_000,
        "restarts": 0,
        "up_seconds": 3661.0,
        "last_exit": None,
        "is_engine": False,
        **fields,
    }
    return Row(name=name, **values)  # type: ignore[arg-type]


def test_engines_are_summed_apart() -> None:
    text = table([row("web"), row("worker"), row("engine-0", memory_bytes=9e8, is_engine=True)])
    assert "100 MB without engines, 900 MB for engines (PSS)" in text
    assert "1:01:01" in text


def test_a_finished_step_is_done_and_a_failed_one_says_why() -> None:
    done = row("migrate", state="stopped", last_exit="exit 0", pid=None, up_seconds=None)
    failed = row("migrate", state="failed", last_exit="exit 1", pid=None, up_seconds=None)
    assert done.is_well
    assert not failed.is_well
    assert " done " in table([done])
    assert "failed (exit 1)" in table([failed])


def test_one_that_does_not_answer_is_not_well() -> None:
    silent = row("web", healthy=False)
    assert not silent.is_well
    assert "failing" in table([silent])
