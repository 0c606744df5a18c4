"""A server of the Open Inference Protocol, over gRPC and over HTTP, that fails as it is told."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
from aiohttp import web
from aiohttp.test_utils import unused_port
from numpy.typing import NDArray

from cotguard.classifier.bundle import DEFAULT, MODEL, Bundle, load
from cotguard.classifier.engine import Engine
from cotguard.classifier.remote import messages
from cotguard.classifier.remote.address import Tls

__all__ = ["Arrays", "Run", "Server", "batching_bundle", "certificates", "model_of", "serving"]

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]

_TYPES = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "int64": "INT64"}


def model_of(engine: Engine) -> Run:
    """The model of a local engine, as a server has it."""
    names = engine._tensors.outputs
    return lambda given: dict(zip(names, engine._session.run(names, dict(given)), strict=True))


def _shorter(found: Arrays) -> Arrays:
    return {name: array[..., :-1] for name, array in found.items()}


def _no_number(found: Arrays) -> Arrays:
    return {name: np.full_like(array, np.nan) for name, array in found.items()}


def _whole_numbers(found: Arrays) -> Arrays:
    return {name: array.astype(np.int64) for name, array in found.items()}


SPOILT: dict[str, Callable[[Arrays], Arrays]] = {
    "another shape": _shorter,
    "no number": _no_number,
    "another type": _whole_numbers,
    "no outputs": lambda _found: {},
}
"""Answers that are none."""


@dataclass
class Server:
    """``fault``: how it fails from now on, if it does: one of :data:`SPOILT`, or ``unavailable``, ``refused``,
    ``slow``, ``no message``. ``raw``: whether answers over gRPC are bytes or numbers.
    """

    run: Run
    scheme: str = "grpc"
    model: str = "tagger-4"
    tls: Tls | None = None
    raw: bool = True
    pause: float = 0.0
    port: int = field(default_factory=unused_port)
    fault: str = ""
    ready: bool = True
    batches: list[int] = field(default_factory=list)
    """Windows of each request."""
    most: int = 0
    """Requests under way at the same time, at most."""
    _now: int = 0
    _grpc: grpc.aio.Server | None = None
    _http: web.AppRunner | None = None

    @property
    def url(self) -> str:
        secure = "s" if self.tls else ""
        return f"{self.scheme}{secure}://localhost:{self.port}"

    async def start(self) -> None:
        if self.scheme == "grpc":
            await self._start_grpc()
        else:
            await self._start_http()

    async def kill(self) -> None:
        """End at once, with all that is under way."""
        if self._grpc is not None:
            await self._grpc.stop(0)
        if self._http is not None:
            await self._http.cleanup()
        self._grpc = self._http = None

    async def _answer(self, given: Arrays) -> Arrays:
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            self.batches.append(len(next(iter(given.values()))))
            await asyncio.sleep(30 if self.fault == "slow" else self.pause)
            found = await asyncio.to_thread(self.run, given)
            return SPOILT[self.fault](found) if self.fault in SPOILT else found
        finally:
            self._now -= 1

    # --- gRPC

    async def _start_grpc(self) -> None:
        server = self._grpc = grpc.aio.server()
        handlers = {
            "ServerReady": (self._server_ready, messages.ServerReadyRequest),
            "ModelReady": (self._model_ready, messages.ModelReadyRequest),
            "ModelInfer": (self._infer, messages.InferRequest),
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(call, request.FromString, _serialized)
            for name, (call, request) in handlers.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(messages.SERVICE, methods),))
        if self.tls is None:
            server.add_insecure_port(f"localhost:{self.port}")
        else:
            ca, key, certificate = self.tls.contents()
            assert key is not None
            assert certificate is not None
            server.add_secure_port(
                f"localhost:{self.port}", grpc.ssl_server_credentials([(key, certificate)], ca, ca is not None)
            )
        await server.start()

    async def _server_ready(self, _request: Any, _context: Any) -> Any:
        return messages.ServerReadyResponse(ready=self.ready)

    async def _model_ready(self, request: Any, _context: Any) -> Any:
        return messages.ModelReadyResponse(ready=request.name == self.model)

    async def _infer(self, request: Any, context: Any) -> Any:
        if self.fault in ("unavailable", "refused"):
            code = grpc.StatusCode.UNAVAILABLE if self.fault == "unavailable" else grpc.StatusCode.INVALID_ARGUMENT
            await context.abort(code, "quotes the text")
        if self.fault == "no message":
            return b"\xff\xff"
        given = {
            tensor.name: np.frombuffer(raw, dtype="<i8").reshape(tuple(tensor.shape))
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        response = messages.InferResponse(model_name=request.model_name)
        for name, array in (await self._answer(given)).items():
            tensor = response.outputs.add(name=name, datatype=_TYPES[array.dtype.name], shape=array.shape)
            if self.raw:
                response.raw_output_contents.append(array.tobytes())
            else:
                tensor.contents.fp32_contents.extend(array.reshape(-1).tolist())
        return response

    # --- HTTP

    async def _start_http(self) -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_get("/v2/health/ready", self._health)
        app.router.add_get(f"/v2/models/{self.model}/ready", self._health)
        app.router.add_post(f"/v2/models/{self.model}/infer", self._infer_json)
        self._http = web.AppRunner(app, shutdown_timeout=0.1)
        await self._http.setup()
        context = None
        if self.tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.tls.ca or None)
            context.load_cert_chain(self.tls.certificate, self.tls.key)
            context.verify_mode = ssl.CERT_REQUIRED if self.tls.ca else ssl.CERT_NONE
        await web.TCPSite(self._http, "localhost", self.port, ssl_context=context).start()

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 400)

    async def _infer_json(self, request: web.Request) -> web.Response:
        if self.fault in ("unavailable", "refused"):
            return web.json_response({"error": "quotes the text"}, status=503 if self.fault == "unavailable" else 400)
        if self.fault == "no message":
            return web.Response(body=b"\xff\xff", content_type="application/json")
        body = json.loads(await request.read())
        given = {
            tensor["name"]: np.array(tensor["data"], dtype=np.int64).reshape(tensor["shape"])
            for tensor in body["inputs"]
        }
        outputs = [
            {
                "name": name,
                "datatype": _TYPES[array.dtype.name],
                "shape": list(array.shape),
                "data": array.reshape(-1).tolist(),
            }
            for name, array in (await self._answer(given)).items()
        ]
        return web.json_response({"model_name": self.model, "outputs": outputs})


def _serialized(response: Any) -> bytes:
    found: bytes = response if isinstance(response, bytes) else response.SerializeToString()
    return found


@asynccontextmanager
async def serving(*servers: Server) -> AsyncIterator[Sequence[Server]]:
    """All of them, started; killed in the end."""
    try:
        for server in servers:
            await server.start()
        yield servers
    finally:
        for server in servers:
            await server.kill()


def batching_bundle(folder: Path) -> Bundle:
    """A bundle in ``folder`` whose model may be asked with batches, and whose self-test expects nothing."""
    bundle = load(DEFAULT)
    (folder / MODEL).write_bytes(b"a model of float32")
    self_test = bundle.manifest.self_test.model_copy(update={"entities": ()})
    found = Bundle(folder, bundle.manifest.model_copy(update={"self_test": self_test}))
    found.__dict__["tokenizer"] = bundle.tokenizer
    return found


def certificates(folder: Path) -> tuple[Tls, Tls]:
    """Of a server at ``localhost`` that asks for certificates, and of a client that has one; both of one CA.

    Needs the command ``openssl``.
    """

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca")
    (folder / "names").write_text("subjectAltName=DNS:localhost\n", encoding="utf-8")
    for name in ("server", "client"):
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        run("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    server, client = (
        Tls(*(str(folder / part) for part in ("ca.pem", f"{name}.pem", f"{name}.key"))) for name in ("server", "client")
    )
    return server, client
