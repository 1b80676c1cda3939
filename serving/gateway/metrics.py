"""What this process counts, and the sum over a node's processes in Prometheus' text form.

Each process writes a snapshot file once a second; whoever is asked adds them up. A process that
starts takes over the counters of its predecessor, so that a restart is no step back.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
HELP = {
    "tessera_gateway_requests_total": "Requests answered, by route and status.",
    "tessera_gateway_refused_connections_total": "Requests that ended at the door, by code.",
    "tessera_gateway_endings_total": "Inference calls by how they ended.",
    "tessera_gateway_tokens_total": "Tokens metered, by class.",
    "tessera_gateway_upstream_failures_total": "Engine failures met, by kind.",
    "tessera_gateway_choices_total": "Replicas chosen, by known prefix, hashed home or least load.",
    "tessera_gateway_ejections_total": "Replicas ejected, by reason.",
    "tessera_gateway_probes_total": "Probes of ejected replicas, by outcome.",
    "tessera_gateway_retries_total": "Calls tried elsewhere or refused that by the budget.",
    "tessera_gateway_replica_outstanding_tokens": "Tokens estimated to be still computed.",
    "tessera_gateway_replica_outstanding_requests": "Requests under way on a replica.",
    "tessera_gateway_replica_ejected": "Processes that have ejected the replica.",
    "tessera_gateway_retry_budget": "Retries that a pool's calls have left, over all processes.",
    "tessera_gateway_local_admissions_total": "Calls admitted on the local share, Redis away.",
    "tessera_gateway_local_refusals_total": "Calls refused by the local share, Redis away.",
    "tessera_gateway_principal_reads_total": "Principals read from PostgreSQL.",
    "tessera_gateway_failed_keys_refused_total": "Keys not looked up: limit of their address.",
    "tessera_gateway_idempotent_total": "Calls with an Idempotency-Key, by what became of them.",
    "tessera_gateway_request_seconds": "From the whole request to the end of its answer.",
    "tessera_gateway_first_token_seconds": "From the whole request to the answer's first byte.",
    "tessera_gateway_connections": "Client connections open.",
    "tessera_gateway_streams": "Streams under way.",
    "tessera_gateway_slots_held": "Slots of pools held.",
    "tessera_gateway_waiting": "Calls that wait for a slot.",
    "tessera_gateway_queue_seconds": "How long calls waited that found no free slot.",
    "tessera_gateway_refusals_total": "Calls that admission refused, by reason.",
    "tessera_gateway_money_ready": "Processes for which every hold of the cell is known.",
    "tessera_gateway_soft_unchecked_total": "Calls begun before a soft account was known.",
    "tessera_gateway_upstream_connections": "Connections to engines open.",
    "tessera_gateway_redis_up": "Processes that reach Redis.",
    "tessera_gateway_database_up": "Processes whose last read of PostgreSQL succeeded.",
    "tessera_gateway_routes_sequence": "Sequence of the routes document in use, lowest of all.",
    "tessera_gateway_processes": "Gateway processes of this node that are alive.",
}
_INPUT = 'tessera_gateway_tokens_total{class="input"}'
_OUTPUT = 'tessera_gateway_tokens_total{class="output"}'
_LOWEST = frozenset({"tessera_gateway_routes_sequence"})


class Snapshot(msgspec.Struct):
    """What one process knows at one time. Names carry their labels, as Prometheus writes them."""

    at: float
    counters: dict[str, float]
    gauges: dict[str, float]
    histograms: dict[str, list[float]]  # a count per bucket, one over all, the sum


class Metrics:
    """All of the mutable state: counters, and histograms as counts per bucket plus the sum."""

    def __init__(self, before: Snapshot | None = None) -> None:
        self._counters: defaultdict[str, float] = defaultdict(
            float, before.counters if before else {}
        )
        self._histograms = dict(before.histograms) if before else {}
        self._before = dict(self._counters)
        self._gauges: dict[str, float] = {}
        self._names: dict[tuple[str, ...], str] = {}

    def count(self, name: str, label: str, value: str, by: float = 1) -> None:
        key = (name, label, value)
        full = self._names.get(key)
        if full is None:
            full = self._names[key] = f'{name}{{{label}="{value}"}}'
        self._counters[full] += by

    def ended(self, ending: str, *, input_tokens: int, output_tokens: int) -> None:
        """An inference call is over."""
        self.count("tessera_gateway_endings_total", "ending", ending)
        self._counters[_INPUT] += input_tokens
        self._counters[_OUTPUT] += output_tokens

    def answered(self, route: str, status: int, seconds: float) -> None:
        key = (route, str(status))
        full = self._names.get(key)
        if full is None:
            full = f'tessera_gateway_requests_total{{route="{route}",status="{status}"}}'
            self._names[key] = full
        self._counters[full] += 1
        self.observe("tessera_gateway_request_seconds", seconds)

    def observe(self, name: str, seconds: float) -> None:
        histogram = self._histograms.get(name)
        if histogram is None:
            histogram = self._histograms[name] = [0.0] * (len(BUCKETS) + 2)
        histogram[bisect_left(BUCKETS, seconds)] += 1
        histogram[-1] += seconds

    def total(self, name: str, since_start: float) -> None:
        """A counter that is kept elsewhere, from zero at the start of this process."""
        self._counters[name] = self._before.get(name, 0.0) + since_start

    def gauge(self, name: str, value: float) -> None:
        self._gauges[name] = float(value)

    def gauges(self, name: str, label: str, values: Mapping[str, float]) -> None:
        """All values that a gauge has, by its label; those it had before and has no more go."""
        for full in [full for full in self._gauges if full.startswith(f"{name}{{")]:
            del self._gauges[full]
        for value, number in values.items():
            self._gauges[f'{name}{{{label}="{value}"}}'] = float(number)

    def snapshot(self, at: float) -> Snapshot:
        return Snapshot(at, dict(self._counters), dict(self._gauges), self._histograms)


def snapshot_path(run: Path, index: int) -> Path:
    return run / f"gateway-{index}.metrics.json"


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    staging = path.with_suffix(f".{os.getpid()}")
    staging.write_bytes(msgspec.json.encode(snapshot))
    staging.replace(path)


def read_snapshot(path: Path) -> Snapshot | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Snapshot)
    except (OSError, msgspec.DecodeError):
        return None


def read_snapshots(run: Path) -> list[Snapshot]:
    found = (read_snapshot(path) for path in sorted(run.glob("gateway-*.metrics.json")))
    return [snapshot for snapshot in found if snapshot is not None]


def exposition(snapshots: Iterable[Snapshot], *, now: float, stale_seconds: float = 5.0) -> bytes:
    """Counters of all, gauges of those alive, in Prometheus' text form."""
    snapshots = list(snapshots)
    counters: defaultdict[str, float] = defaultdict(float)
    histograms: dict[str, list[float]] = {}
    for snapshot in snapshots:
        for full, value in snapshot.counters.items():
            counters[full] += value
        for name, counts in snapshot.histograms.items():
            known = histograms.setdefault(name, [0.0] * len(counts))
            histograms[name] = [a + b for a, b in zip(known, counts, strict=True)]
    alive = [snapshot for snapshot in snapshots if now - snapshot.at < stale_seconds]
    lines: list[str] = []
    _plain(lines, counters, "counter")
    _plain(lines, _gauges(alive), "gauge")
    for name, counts in sorted(histograms.items()):
        _histogram(lines, name, counts)
    return ("\n".join(lines) + "\n").encode()


def _gauges(alive: list[Snapshot]) -> dict[str, float]:
    names = {name for snapshot in alive for name in snapshot.gauges}
    values = {name: [s.gauges[name] for s in alive if name in s.gauges] for name in names}
    gauges = {name: min(v) if name in _LOWEST else sum(v) for name, v in values.items()}
    return {**gauges, "tessera_gateway_processes": len(alive)}


def _plain(lines: list[str], values: Mapping[str, float], kind: str) -> None:
    last = ""
    for full, value in sorted(values.items()):
        name = full.partition("{")[0]
        if name != last:
            lines.append(f"# HELP {name} {HELP[name]}")
            lines.append(f"# TYPE {name} {kind}")
            last = name
        lines.append(f"{full} {value:g}" if value < 1e6 else f"{full} {value:.0f}")


def _histogram(lines: list[str], name: str, counts: list[float]) -> None:
    lines.append(f"# HELP {name} {HELP[name]}")
    lines.append(f"# TYPE {name} histogram")
    total = 0.0
    for bound, count in zip(BUCKETS, counts, strict=False):
        total += count
        lines.append(f'{name}_bucket{{le="{bound:g}"}} {total:.0f}')
    total += counts[len(BUCKETS)]
    lines.append(f'{name}_bucket{{le="+Inf"}} {total:.0f}')
    lines.append(f"{name}_sum {counts[-1]:.6f}")
    lines.append(f"{name}_count {total:.0f}")
