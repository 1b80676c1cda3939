from __future__ import annotations

import asyncio
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kernel.usage import Completeness
from serving.journal.record import Record, RecordKind, decode_checkpoint, scan
from serving.journal.recovery import fact_of
from serving.journal.segment import (
    dead_writer,
    mark_shipped,
    segment_list,
    unshipped_bytes,
    writer_folders,
    writer_lock,
)
from serving.journal.tests.facts import (
    SMALL,
    draft,
    folder_of,
    open_until_refused,
    records_of,
    settled,
    settles_of,
    write_settled,
)
from serving.journal.writer import JournalFull, JournalWriter, Limits

_MOUNT = 'mount -t tmpfs -o size=64k none /mnt && exec "$@"'
_IN_SMALL_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNT, "sh"]


def _can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run([*_IN_SMALL_DISK, "true"], capture_output=True, check=False).returncode == 0
    )


def test_a_request_leaves_intent_checkpoint_and_settle(tmp_path: Path) -> None:
    writer = JournalWriter.open(tmp_path, node="node 1/a", clock=lambda: 12.5)
    intent = draft()
    fact = settled(intent)
    writer.intent(intent)
    writer.checkpoint(intent.event_id, {"output": 5})
    writer.settle(fact)
    records = records_of(folder_of(tmp_path, writer))
    assert [r.kind for r in records] == [1, 2, 3]
    assert {r.written_at for r in records} == {12_500_000}
    assert fact_of(records[0]) == intent
    assert decode_checkpoint(records[1].payload) == (intent.event_id, {"output": 5})
    assert fact_of(records[2]) == fact
    assert writer.open_intents == 0
    writer.close()


def test_writers_have_names_of_their_own_and_private_folders(tmp_path: Path) -> None:
    journal = tmp_path / "new" / "journal"
    writers = [JournalWriter.open(journal, node="a/../b") for _ in range(3)]
    names = {writer.writer_id for writer in writers}
    assert len(names) == 3
    assert all(name.startswith("a-..-b_") for name in names)
    assert {folder.name for folder in writer_folders(journal)} == names
    assert {folder.stat().st_mode & 0o777 for folder in writer_folders(journal)} == {0o700}
    for writer in writers:
        writer.close()


def test_a_living_writer_holds_its_lock_and_a_closed_one_does_not(tmp_path: Path) -> None:
    writer = JournalWriter.open(tmp_path, node="n")
    folder = folder_of(tmp_path, writer)
    with dead_writer(folder) as is_dead:
        assert not is_dead
    writer.close()
    with dead_writer(folder) as is_dead:
        assert is_dead
    assert writer_lock(folder).stat().st_mode & 0o777 == 0o600


def test_an_event_is_opened_once_and_settled_once(tmp_path: Path) -> None:
    writer = JournalWriter.open(tmp_path, node="n")
    intent = draft()
    writer.intent(intent)
    with pytest.raises(ValueError, match="open already"):
        writer.intent(intent)
    writer.settle(settled(intent))
    with pytest.raises(KeyError):
        writer.settle(settled(intent))
    writer.checkpoint(intent.event_id, {"output": 9})  # late, says nothing new
    assert len(records_of(folder_of(tmp_path, writer))) == 2
    writer.close()


def test_segments_follow_each_other_and_repeat_what_is_open(tmp_path: Path) -> None:
    writer = JournalWriter.open(tmp_path, node="n", limits=SMALL)
    long_running = draft()
    writer.intent(long_running)
    writer.checkpoint(long_running.event_id, {"output": 1})
    facts = write_settled(writer, 40)
    folder = folder_of(tmp_path, writer)
    segments = segment_list(folder)
    assert len(segments) > 3
    for segment in segments[1:]:
        head = _records_in(segment.path)[:2]
        assert [r.kind for r in head] == [RecordKind.INTENT, RecordKind.CHECKPOINT]
        assert fact_of(head[0]) == long_running
    writer.settle(settled(long_running))
    assert settles_of(folder) == [*facts, settled(long_running)]
    writer.close()
    assert all(s.path.stat().st_size <= SMALL.segment_bytes for s in segment_list(folder))


def test_what_is_open_may_be_larger_than_a_segment(tmp_path: Path) -> None:
    writer = JournalWriter.open(tmp_path, node="n", limits=SMALL)
    intents = [draft() for _ in range(100)]
    for intent in intents:
        writer.intent(intent)
    for intent in intents:
        writer.settle(settled(intent))
    folder = folder_of(tmp_path, writer)
    assert len(segment_list(folder)) < 20, "a flood of open intents must not rotate at every call"
    assert settles_of(folder) == [settled(intent) for intent in intents]
    writer.close()


def test_every_open_intent_can_settle_when_files_may_not_grow(tmp_path: Path) -> None:
    writer = JournalWriter.open(tmp_path, node="n", limits=SMALL)
    with _file_size_limit(SMALL.segment_bytes):
        opened, refusal = open_until_refused(writer)
        assert refusal.rule == "journal_space"
        assert refusal.status == 503
        assert len(opened) > 3
        for intent in opened:
            writer.settle(settled(intent))
    assert settles_of(folder_of(tmp_path, writer)) == [settled(intent) for intent in opened]
    writer.close()


@pytest.mark.skipif(not _can_mount(), reason="needs a user namespace that may mount a tmpfs")
def test_on_a_full_disk_intents_are_refused_and_everything_open_settles() -> None:
    """A disk of 64 KB, filled by somebody else while requests run."""
    script = [sys.executable, "-m", "serving.journal.tests.full_disk"]
    done = subprocess.run([*_IN_SMALL_DISK, *script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["refused"] == "journal_space"
    assert told["opened"] >= 10
    assert told["checkpoints_dropped"] > 0
    assert told["settled"] == told["opened"]
    assert told["after_space_is_back"] is True


async def test_a_journal_at_its_bound_refuses_intents_until_it_is_shipped(tmp_path: Path) -> None:
    limits = Limits(segment_bytes=8192, unshipped_bytes=20_000, free_bytes=0, sync_seconds=0.01)
    writer = JournalWriter.open(tmp_path, node="n", limits=limits)
    running = asyncio.create_task(writer.run())
    opened = draft()
    writer.intent(opened)
    write_settled(writer, 40)
    assert unshipped_bytes(tmp_path) > limits.unshipped_bytes
    await _until(lambda: _refuses(writer))
    writer.settle(settled(opened))
    for segment in segment_list(folder_of(tmp_path, writer))[:-1]:
        mark_shipped(segment, at=time.time())
    await _until(lambda: not _refuses(writer))
    running.cancel()
    writer.close()


def test_a_disk_with_too_little_free_refuses_intents(tmp_path: Path) -> None:
    writer = JournalWriter.open(tmp_path, node="n", limits=Limits(free_bytes=2**62))
    with pytest.raises(JournalFull) as refusal:
        writer.intent(draft())
    assert refusal.value.rule == "journal_free_space"
    writer.close()


def test_a_disk_without_room_for_a_journal_says_so(tmp_path: Path) -> None:
    with _file_size_limit(0), pytest.raises(JournalFull, match="No journal can be begun in"):
        JournalWriter.open(tmp_path, node="n")
    assert list(tmp_path.iterdir()) == []


async def test_finished_segments_give_back_what_they_did_not_use(tmp_path: Path) -> None:
    limits = Limits(segment_bytes=8192, free_bytes=0, sync_seconds=0.01)
    writer = JournalWriter.open(tmp_path, node="n", limits=limits)
    running = asyncio.create_task(writer.run())
    write_settled(writer, 40)
    first = segment_list(folder_of(tmp_path, writer))[0].path
    await _until(lambda: first.stat().st_size < 8192)
    assert not first.read_bytes().endswith(b"\0")
    running.cancel()
    writer.close()


def test_closing_leaves_open_intents_to_the_shipper(tmp_path: Path) -> None:
    writer = JournalWriter.open(tmp_path, node="n")
    intent = draft()
    writer.intent(intent)
    writer.close()
    records = records_of(folder_of(tmp_path, writer))
    assert [fact_of(record) for record in records] == [intent]
    assert fact_of(records[0]).completeness == Completeness.UNKNOWN


def test_what_comes_after_the_end_is_refused(tmp_path: Path) -> None:
    writer = JournalWriter.open(tmp_path, node="n")
    intent = draft()
    writer.intent(intent)
    writer.close()
    with pytest.raises(JournalFull):
        writer.settle(settled(intent))
    with pytest.raises(JournalFull):
        writer.intent(draft())


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    writer = JournalWriter.open(tmp_path, node="n", limits=SMALL)
    write_settled(writer, 40)
    writer.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def _records_in(path: Path) -> list[Record]:
    return list(scan(path.read_bytes()).records)


def _refuses(writer: JournalWriter) -> bool:
    intent = draft()
    try:
        writer.intent(intent)
    except JournalFull as refusal:
        return refusal.rule == "journal_bound"
    writer.settle(settled(intent))
    return False


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may grow past ``size``; Python ignores the signal, calls fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
