"""The door to one engine incarnation: health, adapters, probe answers."""

from __future__ import annotations

import asyncio
import math
import re
from typing import Any, Literal

import httpx2

from serving.agent.errors import EngineRefused, EngineUnavailable

HEALTH_SECONDS = 5.0
PROBE_SECONDS = 30.0
LOAD_SECONDS = 120.0
METRICS_SECONDS = 5.0
METRICS_BYTES = 8 * 1024 * 1024
TOP_LOGPROBS = 20  # what vLLM gives at most unless told otherwise
PROBE_SALT = "tessera-agent"  # keeps probes out of every tenant's prefix cache

_WORKER_WORDS = re.compile(r"Worker failed with error '(.+)', please check the stack trace")

Logprobs = dict[str, float]
Pulse = Literal["alive", "sick", "absent"]


class Engine:
    """An engine at an address that belongs to one incarnation, ``unix:<path>`` or ``http://...``.

    Every failure leaves as ``EngineUnavailable`` (try again) or ``EngineRefused`` (its word is no).
    """

    def __init__(
        self, address: str, *, key: str, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        url = address
        if address.startswith("unix:"):
            url = "http://engine"
            transport = transport or httpx2.AsyncHTTPTransport(uds=address.removeprefix("unix:"))
        self._client = httpx2.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            transport=transport,
            trust_env=False,
        )

    async def aclose(self) -> None:
        await self._client.aclose()

    async def pulse(self) -> Pulse:
        """Whether the engine is healthy, is not, or is not there at all. Never raises."""
        if self._client.is_closed:
            return "absent"
        try:
            response = await self._client.get("/health", timeout=HEALTH_SECONDS)
        except httpx2.ConnectError:
            return "absent"
        except httpx2.HTTPError:
            return "sick"
        return "alive" if response.status_code == 200 else "sick"

    async def adapters(self, *, base: str) -> frozenset[str]:
        """The names of the adapters that the engine says it has."""
        body = await self._call("GET", "/v1/models", seconds=HEALTH_SECONDS)
        return frozenset(model["id"] for model in body["data"] if model["id"] != base)

    async def load(self, name: str, path: str) -> None:
        """Load an adapter under a name; a name that is loaded already is a success."""
        response = await self._send(
            "POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path}, LOAD_SECONDS
        )
        if response.status_code == 400 and "already been loaded" in response.text:
            return
        _require_success(response)

    async def unload(self, name: str) -> None:
        """Forget an adapter's name; one that is not there is a success."""
        response = await self._send(
            "POST", "/v1/unload_lora_adapter", {"lora_name": name}, LOAD_SECONDS
        )
        if response.status_code != 404:
            _require_success(response)

    async def next_token(self, model: str, prompt: str) -> Logprobs:
        """The likeliest next tokens after a prompt, with their log-probabilities."""
        request = {
            "model": model,
            "prompt": prompt,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": TOP_LOGPROBS,
            "return_tokens_as_token_ids": True,  # two tokens may print alike
            "cache_salt": PROBE_SALT,
        }
        body = await self._call("POST", "/v1/completions", request, seconds=PROBE_SECONDS)
        try:
            top = body["choices"][0]["logprobs"]["top_logprobs"][0]
            return {str(token): _number(value) for token, value in top.items()}
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise EngineUnavailable("The engine answered a probe without logprobs.") from error

    async def metrics(self) -> bytes:
        """What the engine measures, in its own words (Prometheus' text form)."""
        self._require_open()
        try:
            async with asyncio.timeout(METRICS_SECONDS):
                return await self._read_metrics()
        except TimeoutError as error:
            reason = f"The engine did not give its metrics within {METRICS_SECONDS:.0f} s."
            raise EngineUnavailable(reason) from error
        except httpx2.HTTPError as error:
            raise _silence("/metrics", error) from error

    async def _read_metrics(self) -> bytes:
        body = bytearray()
        headers = {"Accept": "text/plain", "Accept-Encoding": "identity"}
        async with self._client.stream(
            "GET", "/metrics", headers=headers, timeout=METRICS_SECONDS
        ) as response:
            if response.status_code != 200:
                raise EngineUnavailable(f"The engine answered /metrics {response.status_code}.")
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > METRICS_BYTES:
                    raise EngineUnavailable(f"The engine's metrics exceed {METRICS_BYTES} bytes.")
        return bytes(body)

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, seconds: float
    ) -> Any:
        response = await self._send(method, path, body, seconds)
        _require_success(response)
        try:
            return response.json()
        except ValueError as error:
            raise EngineUnavailable(f"The engine answered {path} with no JSON.") from error

    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None, seconds: float
    ) -> httpx2.Response:
        self._require_open()
        try:
            return await self._client.request(method, path, json=body, timeout=seconds)
        except httpx2.HTTPError as error:
            raise _silence(path, error) from error

    def _require_open(self) -> None:
        """A new incarnation may come while somebody still works on this one."""
        if self._client.is_closed:
            raise EngineUnavailable("This start of the engine is over.")


def _number(value: object) -> float:
    """A log-probability; what is not a number, which JSON cannot say, becomes ``nan``."""
    return float(value) if isinstance(value, (int, float)) else math.nan


def _silence(path: str, error: httpx2.HTTPError) -> EngineUnavailable:
    reason = str(error) or type(error).__name__
    return EngineUnavailable(f"The engine does not answer {path}: {reason}")


def _require_success(response: httpx2.Response) -> None:
    if response.status_code == 200:
        return
    message = _engine_words(response)
    if 400 <= response.status_code < 500:
        raise EngineRefused(f"The engine refuses it: {message}")
    raise EngineUnavailable(f"The engine answered {response.status_code}: {message}")


def _engine_words(response: httpx2.Response) -> str:
    """The message of vLLM's error object, its worker's own words if it quotes them."""
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = response.text
    quoted = _WORKER_WORDS.search(message)
    return (quoted[1] if quoted else message)[:300].rstrip(".") + "."
