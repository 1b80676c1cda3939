"""The simulator answers as vLLM does: name by name, in order, with every null."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.engines import BASE, Simulator
from bench.tests.shapes import Captured, captured, event_shapes, shape
from serving.agent.tests.engine_process import EngineProcess

ANSWERS = captured()
# vLLM tells its model's length and the field that failed; we only say that it is the body.
OUR_OWN_WORDS = {"no-messages", "bad-type", "load-nopath"}


@pytest.mark.parametrize("was", ANSWERS, ids=lambda was: was.name)
def test_the_simulator_answers_in_vllms_shape(engine: Simulator, was: Captured) -> None:
    status, body = engine.call(was.method, was.path, was.request_to(BASE))
    assert status == was.status
    assert _shape(body) == _shape(_decoded(was.body))


@pytest.mark.parametrize("was", ANSWERS, ids=lambda was: was.name)
def test_refusals_name_the_same_field(engine: Simulator, was: Captured) -> None:
    if was.status == 200 or was.name in OUR_OWN_WORDS or "error" not in was.body:
        return
    _, body = engine.call(was.method, was.path, was.request_to(BASE))
    assert body["error"]["param"] == json.loads(was.body)["error"]["param"]


@pytest.mark.engine
def test_vllm_still_answers_as_it_was_taken_down(tiny_engine: EngineProcess) -> None:
    """When this fails the pinned vLLM changed its wire format: take it down again."""
    with tiny_engine.client() as client:
        for model in client.get("/v1/models").json()["data"]:
            if model["parent"]:  # an adapter that another test left on the shared engine
                client.post("/v1/unload_lora_adapter", json={"lora_name": model["id"]})
        for was in ANSWERS:
            now = client.request(was.method, was.path, json=was.request_to(tiny_engine.base))
            assert now.status_code == was.status, was.name
            assert _shape(_decoded(now.text)) == _shape(_decoded(was.body)), was.name


def _decoded(body: str) -> Any:
    return json.loads(body) if body.startswith("{") else body


def _shape(body: Any) -> Any:
    return event_shapes(body) if isinstance(body, str) else shape(body)
