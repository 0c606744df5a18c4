"""A replica over HTTP, in JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import orjson

from cotguard.classifier.remote.address import Address, Tls
from cotguard.classifier.remote.client import MAX_ANSWER_BYTES, ReplicaError, tensor
from cotguard.classifier.tokens import Integers

__all__ = ["HttpClient"]

_HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}


class HttpClient:
    """A :class:`~cotguard.classifier.remote.client.Client`."""

    def __init__(self, address: Address, model: str, outputs: Sequence[str], tls: Tls) -> None:
        self._model, self._outputs = f"{address}/v2/models/{model}", outputs
        self._server = f"{address}/v2"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=tls.context() if address.secure else True),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def ready(self, seconds: float) -> bool:
        for path in (f"{self._server}/health/ready", f"{self._model}/ready"):
            status, _ = await self._ask("GET", path, None, seconds)
            if status != 200:
                return False
        return True

    async def infer(self, given: Mapping[str, Integers], seconds: float) -> dict[str, object]:
        request = {
            "inputs": [
                {"name": name, "datatype": "INT64", "shape": array.shape, "data": array.reshape(-1)}
                for name, array in given.items()
            ],
            "outputs": [{"name": name} for name in self._outputs],
        }
        body = orjson.dumps(request, option=orjson.OPT_SERIALIZE_NUMPY)
        status, answer = await self._ask("POST", f"{self._model}/infer", body, seconds)
        if status != 200:
            raise ReplicaError("refused" if status < 500 else "unavailable", f"HTTP status {status}")
        try:
            outputs: list[dict[str, Any]] = orjson.loads(answer)["outputs"]
            named = {output["name"]: output for output in outputs}
            return {
                name: tensor(named[name]["datatype"], named[name]["shape"], named[name]["data"])
                for name in self._outputs
            }
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise ReplicaError("invalid", "the model's answer is not JSON of the protocol") from None

    async def _ask(self, method: str, url: str, body: bytes | None, seconds: float) -> tuple[int, bytes]:
        try:
            async with self._session.request(
                method,
                url,
                data=body,
                headers=_HEADERS,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=seconds),
            ) as response:
                answer = bytearray()
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise ReplicaError("invalid", "the model's answer is too long")
                return response.status, bytes(answer)
        except TimeoutError:
            raise ReplicaError("timeout", "no answer in time") from None
        except aiohttp.ClientError as error:
            raise ReplicaError("unavailable", type(error).__name__) from None

    async def close(self) -> None:
        await self._session.close()
