"""Decisions with the model on real servers of the protocol, and here: `make test-remote` runs these.

Each server has an environment of its own, named by a variable; without it, its tests skip.
"""

import asyncio
import itertools
import json
import os
import random
import re
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np
import pytest
import pytest_asyncio
from aiohttp.test_utils import unused_port

from cotguard.classifier.bundle import DEFAULT, Bundle, load
from cotguard.classifier.detector import Classifier
from cotguard.classifier.engine import Engine
from cotguard.classifier.inference import Inference
from cotguard.classifier.joining import Labelled
from cotguard.classifier.remote import replicas
from cotguard.classifier.remote.address import Served, Tls, addresses
from cotguard.classifier.remote.client import ReplicaError
from cotguard.classifier.remote.grpc_client import GrpcClient
from cotguard.classifier.remote.model import RemoteModel
from cotguard.classifier.remote.replicas import Replicas
from cotguard.classifier.tensors import INPUTS, Answer, Window
from cotguard.classifier.triton import export
from cotguard.spans import Span
from cotguard.telemetry.metrics import Metrics

MLSERVER = os.environ.get("COTGUARD_MLSERVER_PYTHON", "")
PYTRITON = os.environ.get("COTGUARD_PYTRITON_PYTHON", "")
RUNTIME = Path(__file__).parents[1] / "deploy" / "mlserver"

NAMES = ("Margaret Okonkwo", "Jörg Müller", "Li Wei", "Ana de Souza", "O'Brien", "Dmitri")
THINGS = (
    "the broken kettle",
    "her sister",
    "12 Harbour Lane",
    "+44 20 7946 0818",
    "m.okonkwo@example.org",
    "1984-07-03",
)
PHRASES = (
    "Okay, so the customer is {}, who asks about {}. ",
    "Wait, {} said that {} is not right, let me check the numbers again. ",
    "If {} lives near {}, the refund goes there; otherwise x = 3 * (y + 2). ",
    "I must not tell {} about {}, that would be wrong. ",
    "def total(items): return sum(items)  # as {} wrote, see {}\n",
)


def text_of(rng: random.Random, length: int) -> str:
    parts: list[str] = []
    while sum(map(len, parts)) < length:
        parts.append(rng.choice(PHRASES).format(rng.choice(NAMES), rng.choice(THINGS)))
    return "".join(parts)


def windows_of(classifier: Classifier, count: int) -> list[Window]:
    """The windows of made-up streams, as the detector cuts them."""
    geometry, tokenizer = classifier.engine.bundle.manifest.window, classifier.engine.bundle.tokenizer
    rng, found = random.Random(4), list[Window]()
    while len(found) < count:
        pieces = tokenizer(text_of(rng, rng.randint(40, 1200)))
        for core in range(0, len(pieces.ids), geometry.core):
            part = slice(max(core - geometry.left, 0), core + geometry.core + geometry.right)
            found.append(Window(pieces.ids[part], pieces.types[part]))
    return found[:count]


def decisions(classifier: Classifier, answers: Sequence[Answer]) -> list[tuple[list[Labelled], list[Span]]]:
    """What is decided by answers, with its scores: per piece, and per window."""
    return [(list(classifier.labels.read(answer.labels)), classifier.hazards(0, 1, answer)) for answer in answers]


@dataclass
class Running:
    """A server that is up: its URLs, and its process."""

    grpc: str
    http: str
    process: asyncio.subprocess.Process


@asynccontextmanager
async def running(
    command: Sequence[str], folder: Path, ports: Sequence[int], **environment: str
) -> AsyncIterator[Running]:
    """``command``, once what listens on the second of ``ports`` says over HTTP that its model is ready."""
    log = (folder / f"{ports[0]}.log").open("wb")
    with log:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdout=log, stderr=log, env={**os.environ, **environment}, start_new_session=True
        )
        try:
            url = f"http://localhost:{ports[1]}"
            async with aiohttp.ClientSession() as session:
                for _ in range(600):
                    try:
                        async with session.get(f"{url}/v2/models/{DEFAULT}/ready") as response:
                            if response.status == 200:
                                break
                    except aiohttp.ClientError:
                        pass
                    if process.returncode is not None:
                        break
                    await asyncio.sleep(0.1)
                else:
                    pytest.fail((folder / f"{ports[0]}.log").read_text()[-2000:])
            yield Running(f"grpc://localhost:{ports[0]}", url, process)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


Start = Callable[[], Awaitable[Running]]


@pytest_asyncio.fixture
async def start_mlserver(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts MLServers with the default bundle's model."""
    if not MLSERVER:
        pytest.skip("COTGUARD_MLSERVER_PYTHON is not set to a Python that has mlserver")
    async with AsyncExitStack() as stack:
        numbers = itertools.count()

        async def start() -> Running:
            folder = tmp_path / str(next(numbers))
            shutil.copytree(RUNTIME, folder)
            grpc, http = unused_port(), unused_port()
            settings = json.loads((folder / "settings.json").read_text())
            settings |= {"grpc_port": grpc, "http_port": http, "metrics_port": unused_port(), "host": "127.0.0.1"}
            (folder / "settings.json").write_text(json.dumps(settings))
            model = json.loads((folder / "model-settings.json").read_text())
            model["parameters"]["uri"] = str(load(DEFAULT).model)
            (folder / "model-settings.json").write_text(json.dumps(model))
            command = (MLSERVER, "-m", "mlserver.cli.main", "start", ".")
            return await stack.enter_async_context(running(command, folder, (grpc, http), PYTHONPATH="."))

        yield start


@pytest_asyncio.fixture
async def triton(tmp_path: Path) -> AsyncIterator[Running]:
    """Triton, by nvidia-pytriton, with the default bundle's model."""
    libraries = await _libraries()
    grpc, http = unused_port(), unused_port()
    script = str(Path(__file__).with_name("pytriton_server.py"))
    command = (PYTRITON, script, str(load(DEFAULT).model), DEFAULT, str(grpc), str(http))
    path = f"{Path(PYTRITON).parent}:{os.environ['PATH']}"
    async with running(command, tmp_path, (grpc, http), LD_LIBRARY_PATH=libraries, PATH=path) as found:
        yield found


async def _libraries() -> str:
    """Where libpython is, which Triton loads."""
    if not PYTRITON:
        pytest.skip("COTGUARD_PYTRITON_PYTHON is not set to a Python that has nvidia-pytriton")
    code = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    return (await _output(PYTRITON, "-c", code)).strip()


async def _output(*command: str, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    told, _ = await asyncio.wait_for(process.communicate(), 60)
    return told.decode()


@asynccontextmanager
async def asking(bundle: Bundle, *urls: str) -> AsyncIterator[tuple[Classifier, Inference]]:
    served = Served(addresses(",".join(urls)))
    classifier = Classifier(RemoteModel(bundle, served))
    inference = Inference(Replicas(classifier, served, Metrics()), deadline=10, metrics=Metrics())
    try:
        for _ in range(200):
            if await inference.check():
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("no replica came in")
        yield classifier, inference
    finally:
        await inference.close()


async def judged(inference: Inference, windows: Sequence[Window], streams: int = 16) -> list[Answer]:
    """Answers to windows of many streams at the same time."""
    answers: dict[int, Answer] = {}
    rest = iter(enumerate(windows))

    async def stream() -> None:
        for index, window in rest:
            (answers[index],) = await inference([window])

    await asyncio.gather(*(stream() for _ in range(streams)))
    return [answers[index] for index in range(len(windows))]


async def check_parity(running: Running, scheme: str, count: int) -> None:
    local = Classifier(Engine(load(DEFAULT)))
    windows = windows_of(local, count)
    expected = decisions(local, local.engine.run(windows))
    async with asking(local.engine.bundle, running.grpc if scheme == "grpc" else running.http) as (remote, inference):
        found = decisions(remote, await judged(inference, windows))
    different = sum(one != other for one, other in zip(expected, found, strict=True))
    assert different == 0
    assert any(piece.entity >= 0 for pieces, _ in expected for piece in pieces)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
async def test_mlserver_decides_alike(start_mlserver: Start, scheme: str) -> None:
    await check_parity(await start_mlserver(), scheme, 300)


@pytest.mark.long
async def test_mlserver_decides_alike_on_ten_thousand_windows(start_mlserver: Start) -> None:
    await check_parity(await start_mlserver(), "grpc", 10_000)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
async def test_an_mlserver_killed_mid_load(
    start_mlserver: Start, monkeypatch: pytest.MonkeyPatch, ending: signal.Signals
) -> None:
    monkeypatch.setattr(replicas, "_PAUSE", 0.1)
    monkeypatch.setattr(replicas, "_PROBE_SECONDS", 0.5)
    first, second = await asyncio.gather(start_mlserver(), start_mlserver())
    local = Classifier(Engine(load(DEFAULT)))
    windows = windows_of(local, 1000)
    async with asking(local.engine.bundle, first.grpc, second.grpc) as (remote, inference):
        await asyncio.sleep(0.5)
        load_ = asyncio.create_task(judged(inference, windows))
        await asyncio.sleep(0.5)
        first.process.send_signal(ending)
        found = await load_
        if ending is signal.SIGSTOP:
            first.process.send_signal(signal.SIGCONT)
    assert decisions(remote, found) == decisions(local, local.engine.run(windows))


@pytest.mark.parametrize("scheme", ["grpc", "http"])
async def test_triton_decides_alike(triton: Running, scheme: str) -> None:
    await check_parity(triton, scheme, 300)


async def test_triton_refuses_a_batch_where_windows_are_alone(triton: Running) -> None:
    (address,), given = addresses(triton.grpc), np.ones((2, 8), dtype=np.int64)
    client = GrpcClient(address, DEFAULT, ("labels",), Tls())
    try:
        for rows, accepted in ((1, True), (2, False)):
            inputs = dict.fromkeys(INPUTS, given[:rows])
            if accepted:
                assert set(await client.infer(inputs, 5)) == {"labels"}
            else:
                with pytest.raises(ReplicaError) as raised:
                    await client.infer(inputs, 5)
                assert raised.value.kind == "refused"
    finally:
        await client.close()


async def test_triton_reads_the_exported_repository(tmp_path: Path) -> None:
    """As far as this Triton can: it has no backend for ONNX."""
    libraries = await _libraries()
    export(DEFAULT, tmp_path / "repository", 2)
    where = await _output(PYTRITON, "-c", "import pytriton; print(pytriton.__path__[0])")
    server = Path(where.splitlines()[-1]) / "tritonserver"
    ports = (f"--{name}-port={unused_port()}" for name in ("http", "grpc"))
    folders = (f"--model-repository={tmp_path / 'repository'}", f"--backend-directory={server / 'backends'}")
    told = await _output(
        str(server / "bin" / "tritonserver"), *folders, *ports, "--allow-metrics=false", LD_LIBRARY_PATH=libraries
    )
    (reason,) = re.findall(rf"\| {DEFAULT} +\| 1 +\| (.*?) *\|", told)
    assert "unable to find backend library for backend 'onnxruntime'" in reason
