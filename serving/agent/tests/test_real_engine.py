"""The agent beside a real vLLM that serves a tiny model of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serving.agent.agent import Agent
from serving.agent.engine import Engine
from serving.agent.errors import EngineRefused
from serving.agent.fetch import AdapterCache
from serving.agent.proof import effect, take_signature
from serving.agent.tests.engine_process import EngineProcess, write_tiny_adapter
from serving.agent.tests.stand_ins import FakeControlPlane, eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]


@asynccontextmanager
async def agent_of(
    engine: EngineProcess, control: FakeControlPlane, cache: Path
) -> AsyncIterator[Agent]:
    agent = Agent(
        replica="replica-1",
        run_dir=engine.run_dir,
        control=control,
        cache=AdapterCache(cache),
        connect=lambda address: Engine(address, key=engine.key),
    )
    task = asyncio.create_task(agent.run())
    try:
        yield agent
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_adapters_are_fetched_loaded_and_proven(
    tiny_engine: EngineProcess, tmp_path: Path
) -> None:
    one = write_tiny_adapter(tmp_path / "one", seed=1)
    two = write_tiny_adapter(tmp_path / "two", seed=2)
    control = FakeControlPlane(base=tiny_engine.base)
    control.order({"proven-one": one, "proven-two": two})
    async with agent_of(tiny_engine, control, tmp_path / "cache"):
        await eventually(
            lambda: control.states() == {"proven-one": "proven", "proven-two": "proven"}
        )
    answers = {
        tiny_engine.complete("tell me", model=name)["choices"][0]["text"]
        for name in ("tiny", "proven-one", "proven-two")
    }
    assert len(answers) == 3


async def test_an_adapter_of_zeros_is_never_proven(
    tiny_engine: EngineProcess, tmp_path: Path
) -> None:
    zeros = write_tiny_adapter(tmp_path / "zeros", seed=3, scale=0.0)
    good = write_tiny_adapter(tmp_path / "good", seed=4)
    control = FakeControlPlane(base=tiny_engine.base)
    control.order({"zeros": zeros, "beside-zeros": good})
    async with agent_of(tiny_engine, control, tmp_path / "cache"):
        await eventually(
            lambda: control.states() == {"zeros": "no_effect", "beside-zeros": "proven"}
        )
    assert "proven" not in control.every_state_of("zeros")
    assert "does not change" in control.reason_of("zeros")
    with tiny_engine.client() as client:
        listed = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert "zeros" not in listed
    assert "beside-zeros" in listed


async def test_what_is_no_longer_ordered_is_reported_gone_and_unloaded(
    tiny_engine: EngineProcess, tmp_path: Path
) -> None:
    folder = write_tiny_adapter(tmp_path / "one", seed=5)
    control = FakeControlPlane(base=tiny_engine.base)
    control.order({"short-lived": folder})
    engine = Engine(tiny_engine.address, key=tiny_engine.key)
    async with agent_of(tiny_engine, control, tmp_path / "cache"):
        await eventually(lambda: control.states() == {"short-lived": "proven"})
        control.order({})
        await eventually(lambda: control.states() == {})
        for _ in range(100):
            if "short-lived" not in await engine.adapters(base="tiny"):
                break
            await asyncio.sleep(0.1)
        assert await engine.adapters(base="tiny") == frozenset()
    await engine.aclose()


async def test_an_adapter_the_engine_cannot_use_fails_with_the_engines_words(
    tiny_engine: EngineProcess, tmp_path: Path
) -> None:
    broken = write_tiny_adapter(tmp_path / "broken", seed=6)
    (broken / "adapter_model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    (broken / "adapter_config.json").write_text('{"r": 512, "lora_alpha": 1, "target_modules": []}')
    control = FakeControlPlane(base=tiny_engine.base)
    control.order({"broken": broken})
    async with agent_of(tiny_engine, control, tmp_path / "cache"):
        await eventually(lambda: control.states() == {"broken": "failed"})
    assert "rank" in control.reason_of("broken")


async def test_the_noise_of_a_busy_engine_is_no_proof(
    tiny_engine: EngineProcess, tmp_path: Path
) -> None:
    """Probes of the base in batches with other requests stay far from what counts as an effect."""
    engine = Engine(tiny_engine.address, key=tiny_engine.key)
    quiet = await take_signature(engine, "tiny")

    async def busy(number: int) -> None:
        await asyncio.to_thread(
            tiny_engine.complete, f"say {number} " * number, max_tokens=40, ignore_eos=True
        )

    crowd = [asyncio.create_task(busy(number)) for number in range(1, 9)]
    noisy = [await take_signature(engine, "tiny") for _ in range(5)]
    await asyncio.gather(*crowd)
    await engine.aclose()
    assert max(effect(quiet, signature) for signature in noisy) < 0.05


async def test_loading_twice_and_unloading_what_is_not_there_are_successes(
    tiny_engine: EngineProcess, tmp_path: Path
) -> None:
    folder = write_tiny_adapter(tmp_path / "twice", seed=7)
    engine = Engine(tiny_engine.address, key=tiny_engine.key)
    await engine.load("twice", str(folder))
    await engine.load("twice", str(folder))
    await engine.unload("twice")
    await engine.unload("twice")
    with pytest.raises(EngineRefused):
        await engine.next_token("twice", "hello")
    await engine.aclose()


def test_a_salt_keeps_prefix_caches_apart(tiny_engine: EngineProcess) -> None:
    """Tenants differ in ``cache_salt``: one never profits from, or learns of, another's prompts."""
    prompt = "bafanero kilomasu " * 120

    def cached_tokens(salt: str) -> int:
        answer = tiny_engine.complete(prompt, max_tokens=1, cache_salt=salt)
        return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert cached_tokens("a1") == 0
    assert cached_tokens("a1") >= 128
    assert cached_tokens("b2") == 0


async def test_a_killed_engine_comes_back_with_its_adapters(
    tiny_engine: EngineProcess, tmp_path: Path
) -> None:
    """The new start is another incarnation at another address, and proves everything again."""
    folder = write_tiny_adapter(tmp_path / "one", seed=8)
    control = FakeControlPlane(base=tiny_engine.base)
    control.order({"survivor": folder})
    async with agent_of(tiny_engine, control, tmp_path / "cache"):
        await eventually(lambda: control.states() == {"survivor": "proven"})
        before, address = tiny_engine.incarnation, tiny_engine.address
        tiny_engine.kill()
        await eventually(lambda: control.last.state == "gone")
        tiny_engine.start()
        await eventually(lambda: control.last.incarnation != before)
        assert control.last.state == "starting"
        assert control.last.adapters == ()
        await eventually(lambda: control.states() == {"survivor": "proven"}, seconds=240)
        assert control.last.incarnation == tiny_engine.incarnation
        assert control.last.address == tiny_engine.address != address
        assert control.downloads == 2  # both files once: the second time they were in the cache
