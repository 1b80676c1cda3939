"""What usage must say after everything was killed, told from the engines' own journals. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bench.enginesim.journal import Line

SHORT_SECONDS = 1.0  # what a cut stream may lack of what its engine generated


@dataclass(frozen=True, slots=True)
class Asked:
    """What the client saw of one request. Without an answer's head it never learnt the id."""

    request: str
    is_stream: bool
    is_whole: bool
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """What was booked."""

    request: str
    completeness: str
    billable: bool
    input: int
    cached_input: int
    output: int


@dataclass(slots=True)
class Run:
    """What one engine process did for a request; ``end`` is missing where it was killed.

    ``late_seconds``: how long, before its end, this machine kept a gateway waiting for a core.
    """

    begin: Line
    late_seconds: float = 0.0
    cut_at: float = 0.0  # when nobody was left to hear of a token; what came later is nobody's
    tokens: list[Line] = field(default_factory=list)
    end: Line | None = None

    @property
    def is_finished(self) -> bool:
        return self.end is not None and self.end.ended == "finished"

    @property
    def last_seen(self) -> float:
        return max(line.time for line in (self.begin, *self.tokens, self.end) if line)

    @property
    def most(self) -> int:
        """More than it generated nobody can have counted."""
        return max((line.tokens for line in (*self.tokens, self.end) if line), default=0)

    def generated_by(self, time: float) -> int:
        return max((line.tokens for line in self.tokens if line.time <= time), default=0)

    @property
    def least(self) -> int:
        """What stood in a checkpoint for certain when it was cut."""
        return self.generated_by(self.cut_at - SHORT_SECONDS - self.late_seconds)

    def lacks_seconds(self, booked: int) -> float:
        """The age of the oldest token that was generated and not booked, when the run ended."""
        missing = [line.time for line in self.tokens if line.tokens > booked]
        return max(0.0, self.cut_at - min(missing)) if missing else 0.0

    def equals(self, row: Row) -> bool:
        counted = (self.begin.prompt_tokens, self.begin.cached_tokens, self.most)
        return counted == (row.input, row.cached_input, row.output)


def runs_by_request(
    lines: Iterable[Line],
    *,
    late: Callable[[float], float] = lambda _time: 0.0,
    cut_at: Callable[[float], float] = lambda time: time,
) -> dict[str, list[Run]]:
    """An engine numbers its requests, so its process and number tell its lines apart.

    ``late``: how long this machine kept a gateway waiting for a core, shortly before an instant.
    ``cut_at``: when the gateway was killed whose death an engine noticed then.
    """
    runs: dict[tuple[int, int], Run] = {}
    for line in lines:
        place = (line.process, line.number)
        if line.at == "begin":
            runs[place] = Run(line)
        elif line.at == "token":
            runs[place].tokens.append(line)
        else:
            runs[place].end = line
    found: defaultdict[str, list[Run]] = defaultdict(list)
    for run in sorted(runs.values(), key=lambda run: run.begin.time):
        run.cut_at = cut_at(run.last_seen)
        run.late_seconds = late(run.cut_at)
        found[run.begin.request.removeprefix("req_")].append(run)
    return dict(found)


def contradictions(
    asked: Sequence[Asked], runs: dict[str, list[Run]], rows: dict[str, Row]
) -> list[str]:
    """A sentence for everything that does not fit together; none is what we want."""
    wrong = [
        f"{request}: an engine worked for it, and there is no row"
        for request in runs.keys() - rows.keys()
    ]
    for row in rows.values():
        problem = _problem(row, runs.get(row.request, []))
        if problem:
            wrong.append(f"{row.request}: {problem}: {row}")
    for one in asked:
        if one.request and one.request in runs:
            problem = _broken_promise(one, rows[one.request]) if one.request in rows else ""
            if problem:
                wrong.append(f"{one.request}: {problem}: {one} {rows[one.request]}")
    return sorted(wrong)


@dataclass(frozen=True, slots=True)
class Lack:
    """A stream that was cut: the age of the oldest token that was generated and is not booked."""

    seconds: float
    late_seconds: float


def lacks(runs: dict[str, list[Run]], rows: dict[str, Row]) -> list[Lack]:
    """Of every stream that died with its gateway and had been counted."""
    cut = [row for row in rows.values() if row.completeness == "estimated" and row.request in runs]
    last = [(row, runs[row.request][-1]) for row in cut]
    return [Lack(run.lacks_seconds(row.output), run.late_seconds) for row, run in last]


def _problem(row: Row, runs: list[Run]) -> str:
    """Where a row does not follow from what engines did."""
    last = runs[-1] if runs else None
    if not row.billable:
        return "it was answered" if last is not None and last.is_finished else ""
    match row.completeness:
        case "final":
            is_so = any(run.is_finished and run.equals(row) for run in runs)
            return "" if is_so else "no engine finished just that"
        case "unknown":
            was_counted = last is not None and last.begin.stream and last.least > 0
            return "the stream ran for longer than a checkpoint" if was_counted else ""
        case _:
            return _problem_of_a_cut(row, last)


def _problem_of_a_cut(row: Row, run: Run | None) -> str:
    if run is None or not run.begin.stream:
        return "only streams are counted on the way"
    if not run.least <= row.output <= run.most:
        return f"not between {run.least} and {run.most} tokens"
    return ""


def _broken_promise(asked: Asked, row: Row) -> str:
    """Where a row contradicts what the client has in its hands."""
    if asked.is_whole:
        return "" if row.completeness == "final" and row.billable else "a whole answer is final"
    if asked.is_stream:
        if row.completeness == "aborted" and row.output < asked.tokens:
            return "the client has more than was booked"
        return ""
    # The process may have died between the settle and the last byte: then the settle counts.
    return "" if row.completeness in {"unknown", "final"} else "a cut plain call is unknown"
