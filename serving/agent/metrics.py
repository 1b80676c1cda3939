"""The agent's own metrics, in Prometheus' text form. Pure: a report in, text out."""

from __future__ import annotations

from collections import Counter
from typing import get_args

from serving.contracts import AdapterState, AgentReport

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def agent_metrics(report: AgentReport) -> str:
    """Every state is there, also where no adapter is in it: a series that vanishes looks stale."""
    states = Counter(adapter.state for adapter in report.adapters)
    of = _labels(replica=report.replica, incarnation=report.incarnation)
    lines = [
        "# HELP tessera_agent_engine_ready Whether the engine is healthy and gives tokens.",
        "# TYPE tessera_agent_engine_ready gauge",
        f"tessera_agent_engine_ready{{{of}}} {int(report.state == 'ready')}",
        "# HELP tessera_agent_adapters Adapters ordered of this engine, by how far they came.",
        "# TYPE tessera_agent_adapters gauge",
        *(
            f"tessera_agent_adapters{{{of},{_labels(state=state)}}} {states[state]}"
            for state in get_args(AdapterState)
        ),
    ]
    return "\n".join(lines) + "\n"


def _labels(**values: str) -> str:
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in values.items())
