"""Adapters change answers by their weights, and only by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.engines import BASE, Simulator, adapter_write
from bench.enginesim.adapters import AdapterMissing, AdapterUnfit, adapter_read
from serving.agent.engine import Engine
from serving.agent.proof import SMALLEST_EFFECT, effect, take_signature


def answer(engine: Simulator, model: str) -> Any:
    body = {"model": model, "prompt": "Who are you?", "logprobs": 5}
    status, answer = engine.call("POST", "/v1/completions", body)
    assert status == 200, answer
    return answer["choices"][0]


def test_base_and_two_adapters_give_three_answers(engine: Simulator, folder: Path) -> None:
    engine.load("acme", adapter_write(folder / "acme", seed=1))
    engine.load("globex", adapter_write(folder / "globex", seed=2))
    texts = {answer(engine, model)["text"] for model in (BASE, "acme", "globex")}
    assert len(texts) == 3


def test_an_adapter_of_zeros_answers_like_the_base(engine: Simulator, folder: Path) -> None:
    engine.load("zero", adapter_write(folder / "zero", seed=3, is_zero=True))
    assert answer(engine, "zero") == answer(engine, BASE)


async def test_the_agents_proof_tells_them_apart(engine: Simulator, folder: Path) -> None:
    engine.load("real", adapter_write(folder / "real", seed=4))
    engine.load("idle", adapter_write(folder / "idle", seed=5, is_zero=True))
    probe = Engine(engine.address, key=engine.key)
    try:
        base = await take_signature(probe, BASE)
        assert effect(base, await take_signature(probe, "real")) > SMALLEST_EFFECT
        assert effect(base, await take_signature(probe, "idle")) == 0.0
    finally:
        await probe.aclose()


def test_a_name_is_loaded_once_and_unloaded_once(engine: Simulator, folder: Path) -> None:
    path = str(adapter_write(folder / "twice", seed=6))
    load = {"lora_name": "twice", "lora_path": path}
    assert engine.call("POST", "/v1/load_lora_adapter", load)[0] == 200
    status, refusal = engine.call("POST", "/v1/load_lora_adapter", load)
    assert status == 400
    assert "already been loaded" in refusal["error"]["message"]
    assert engine.call("POST", "/v1/unload_lora_adapter", {"lora_name": "twice"})[0] == 200
    assert engine.call("POST", "/v1/unload_lora_adapter", {"lora_name": "twice"})[0] == 404
    status, _ = engine.call("POST", "/v1/completions", {"model": "twice", "prompt": "x"})
    assert status == 404


def test_what_vllm_would_not_load_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterMissing):
        adapter_read("a", str(tmp_path / "none"), max_rank=16)
    good = adapter_write(tmp_path / "good", seed=1)
    with pytest.raises(AdapterUnfit, match="rank"):
        adapter_read("a", str(good), max_rank=4)
    (good / "adapter_model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(AdapterUnfit, match="header"):
        adapter_read("a", str(good), max_rank=16)
