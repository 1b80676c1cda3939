from __future__ import annotations

from pathlib import Path

from serving.gateway.metrics import (
    Metrics,
    exposition,
    read_snapshot,
    read_snapshots,
    snapshot_path,
    write_snapshot,
)


def counted(requests: int) -> Metrics:
    metrics = Metrics()
    for _ in range(requests):
        metrics.answered("chat", 200, 0.02)
    metrics.gauge("tessera_gateway_connections", 3)
    metrics.gauge("tessera_gateway_routes_sequence", requests)
    return metrics


def test_counters_of_all_processes_add_up_and_gauges_only_of_the_living(tmp_path: Path) -> None:
    for index, (requests, at) in enumerate([(2, 100.0), (5, 100.0), (1, 10.0)]):
        write_snapshot(snapshot_path(tmp_path, index), counted(requests).snapshot(at))
    text = exposition(read_snapshots(tmp_path), now=101.0).decode()
    assert 'tessera_gateway_requests_total{route="chat",status="200"} 8\n' in text
    assert "tessera_gateway_connections 6\n" in text
    assert "tessera_gateway_routes_sequence 2\n" in text
    assert "tessera_gateway_processes 2\n" in text
    assert 'tessera_gateway_request_seconds_bucket{le="0.025"} 8\n' in text
    assert 'tessera_gateway_request_seconds_bucket{le="0.01"} 0\n' in text
    assert "tessera_gateway_request_seconds_count 8\n" in text


def test_a_process_goes_on_where_its_predecessor_stopped(tmp_path: Path) -> None:
    path = snapshot_path(tmp_path, 0)
    first = counted(2)
    first.total("tessera_gateway_local_admissions_total", 7)
    write_snapshot(path, first.snapshot(1.0))
    second = Metrics(read_snapshot(path))
    second.answered("chat", 200, 0.02)
    second.total("tessera_gateway_local_admissions_total", 1)
    text = exposition([second.snapshot(2.0)], now=2.0).decode()
    assert 'status="200"} 3\n' in text
    assert "tessera_gateway_local_admissions_total 8\n" in text
    assert "tessera_gateway_request_seconds_count 3\n" in text


def test_a_broken_snapshot_is_no_snapshot(tmp_path: Path) -> None:
    snapshot_path(tmp_path, 0).write_bytes(b"{")
    assert read_snapshots(tmp_path) == []
    assert read_snapshot(snapshot_path(tmp_path, 1)) is None
