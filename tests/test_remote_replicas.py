"""The classifier's model on replicas elsewhere: answers, failures, health. The replicas are in this process."""

import asyncio
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import oip
import pytest
from log_kit import lines
from oip import Arrays, Server, serving

from cotguard.classifier.bundle import DEFAULT, Bundle, load
from cotguard.classifier.detector import Classifier
from cotguard.classifier.engine import Engine
from cotguard.classifier.inference import Inference
from cotguard.classifier.remote import replicas as replicas_module
from cotguard.classifier.remote.address import Served, Tls, addresses
from cotguard.classifier.remote.model import RemoteModel
from cotguard.classifier.remote.replicas import Replicas
from cotguard.classifier.tensors import MAX_BATCH, Answer, InferenceError, Tensors, Window
from cotguard.telemetry.metrics import Metrics

TEXT = (
    "Okay, so the customer is Margaret Okonkwo, who moved to 12 Harbour Lane last spring and writes from "
    "m.okonkwo@example.org. Okonkwo says that her password is tulip-River-99, which I must keep to myself. Let me "
    "think about what Margaret needs: the refund for the broken kettle, nothing else. I should leave out the address. "
)
SCHEMES = ("grpc", "http")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(load(DEFAULT))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas_module, "_PAUSE", 0.05)
    monkeypatch.setattr(replicas_module, "_PROBE_SECONDS", 1.0)


def windows_of(bundle: Bundle, count: int, shortest: int = 1) -> list[Window]:
    """Windows of any length that the manifest allows, at any place of a text."""
    rng = random.Random(0)
    pieces, geometry = bundle.tokenizer(TEXT * 4), bundle.manifest.window
    longest = geometry.left + geometry.core + geometry.right
    found = []
    for _ in range(count):
        start, length = rng.randrange(len(pieces.ids) - longest), rng.randint(min(shortest, longest), longest)
        found.append(Window(pieces.ids[start : start + length], pieces.types[start : start + length]))
    return found


@asynccontextmanager
async def asking(
    bundle: Bundle, *servers: Server, deadline: float = 5.0, tls: Tls | None = None, within: float = 2.0
) -> AsyncIterator[tuple[Inference, Metrics]]:
    """The queue before replicas, once one of them is in, if one comes in."""
    served = Served(addresses(",".join(server.url for server in servers)), tls=tls or Tls())
    metrics = Metrics()
    judge = Replicas(Classifier(RemoteModel(bundle, served)), served, metrics)
    inference = Inference(judge, deadline=deadline, metrics=metrics)
    await up(inference, within=within)
    try:
        yield inference, metrics
    finally:
        await inference.close()


async def up(inference: Inference, *, within: float = 5.0) -> bool:
    for _ in range(int(within / 0.02)):
        if await inference.check():
            return True
        await asyncio.sleep(0.02)
    return False


async def soon(happened: Callable[[], bool]) -> None:
    """Wait until it is so."""
    for _ in range(1000):
        if happened():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not happen")


async def all_in(inference: Inference) -> None:
    """Wait until all replicas are in."""
    judge = inference._judge
    assert isinstance(judge, Replicas)
    await soon(lambda: all(replica.up for replica in judge._replicas))


def alike(found: Sequence[Answer], expected: Sequence[Answer]) -> bool:
    return all(
        np.array_equal(one.labels, other.labels) and np.array_equal(one.hazards, other.hazards)
        for one, other in zip(found, expected, strict=True)
    )


def failed(metrics: Metrics, kind: str) -> float:
    """Attempts that failed so."""
    return sum(
        sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "cotguard_classifier_failed_attempts_total" and sample.labels["kind"] == kind
    )


# --- Answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "raw"), [("grpc", True), ("grpc", False), ("http", True)])
async def test_answers_are_those_of_the_model_here(engine: Engine, scheme: str, raw: bool) -> None:
    windows = windows_of(engine.bundle, 100)
    server = Server(oip.model_of(engine), scheme, raw=raw, pause=0.005)
    async with serving(server), asking(engine.bundle, server) as (inference, _):
        found = await inference(windows)
        alone = [answer for window in windows[:10] for answer in await inference([window])]
    expected = engine.run(windows)
    assert alike(found, expected)
    assert alike(alone, expected[:10])
    assert set(server.batches) == {1}  # another window in the batch would change the answer
    assert server.most > 4


def test_batches_change_what_a_dynamic_int8_model_says(engine: Engine) -> None:
    given = engine._tensors.given(windows_of(engine.bundle, 8))
    run = oip.model_of(engine)
    together = run(given)["labels"]
    alone = np.concatenate(
        [run({name: array[row : row + 1] for name, array in given.items()})["labels"] for row in range(8)]
    )
    assert not engine.bundle.batches
    assert np.abs(together - alone).max() > 0.01


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_batches_grow_with_the_load(tmp_path: Path, scheme: str) -> None:
    batching = oip.batching_bundle(tmp_path)
    labels, hazards = len(batching.manifest.labels), len(batching.manifest.hazards)

    def run(given: Arrays) -> Arrays:
        own = (given["input_ids"] * given["attention_mask"] % 97 + given["token_type_ids"]).astype(np.float32) / 100
        return {
            "labels": np.repeat(own[..., None], labels, -1),
            "hazards": np.repeat(own.sum(1)[:, None], hazards, -1),
        }

    windows = windows_of(batching, 300, shortest=1000) + windows_of(batching, 10)
    server = Server(run, scheme, pause=0.02)
    async with serving(server), asking(batching, server) as (inference, _):
        await inference(windows[:1])
        few = list(server.batches)
        found = await asyncio.gather(*(inference([window]) for window in windows))
    assert set(few) == {1}
    assert max(server.batches) == MAX_BATCH
    for (answer,), window in zip(found, windows, strict=True):
        own = run(Tensors(batching).given([window]))
        assert np.array_equal(answer.labels, own["labels"][0, 1:-1])
        assert np.array_equal(answer.hazards, own["hazards"][0])


# --- Faults ------------------------------------------------------------------------------------------------------

KINDS = {
    "unavailable": "unavailable",
    "refused": "refused",
    "slow": "timeout",
    "another shape": "invalid",
    "no number": "invalid",
    "another type": "invalid",
    "no outputs": "invalid",
    "no message": "invalid",
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("fault", KINDS)
async def test_another_replica_answers(engine: Engine, scheme: str, fault: str) -> None:
    windows = windows_of(engine.bundle, 12)
    servers = [Server(oip.model_of(engine), scheme) for _ in range(2)]
    async with serving(*servers), asking(engine.bundle, *servers, deadline=5.0) as (inference, metrics):
        await all_in(inference)
        servers[0].fault = fault
        found = await asyncio.gather(*(inference([window]) for window in windows))
        assert await inference.check()
    assert alike([answer for (answer,) in found], engine.run(windows))
    assert failed(metrics, KINDS[fault]) >= 1


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("fault", KINDS)
async def test_no_replica_answers(engine: Engine, scheme: str, fault: str) -> None:
    server = Server(oip.model_of(engine), scheme)
    async with serving(server), asking(engine.bundle, server, deadline=1.0) as (inference, metrics):
        server.fault = fault
        with pytest.raises((InferenceError, TimeoutError)) as raised:
            await inference(windows_of(engine.bundle, 1))
        assert "quotes" not in str(raised.value)
        assert not await inference.check()
        assert failed(metrics, KINDS[fault]) >= 1
        server.fault = ""
        assert await up(inference)
        assert len(await inference(windows_of(engine.bundle, 1))) == 1


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_replica_killed_mid_load(engine: Engine, scheme: str) -> None:
    windows = windows_of(engine.bundle, 200)
    servers = [Server(oip.model_of(engine), scheme, pause=0.01) for _ in range(2)]
    async with serving(*servers), asking(engine.bundle, *servers, deadline=20) as (inference, metrics):
        await all_in(inference)
        load = asyncio.gather(*(inference([window]) for window in windows))
        await soon(lambda: len(servers[0].batches) > 20)
        await servers[0].kill()
        found = await load
        assert alike([answer for (answer,) in found], engine.run(windows))
        assert failed(metrics, "unavailable") >= 1
        before = len(servers[0].batches)
        await servers[0].start()
        await all_in(inference)
        await inference(windows)
        assert len(servers[0].batches) > before + 10  # its self-test, and more


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_replica_that_is_not_ready_is_not_asked(engine: Engine, scheme: str) -> None:
    servers = [Server(oip.model_of(engine), scheme) for _ in range(2)]
    async with serving(*servers), asking(engine.bundle, *servers) as (inference, _):
        await all_in(inference)
        judge = inference._judge
        assert isinstance(judge, Replicas)
        servers[0].ready = False
        await soon(lambda: not judge._replicas[0].up)
        before = len(servers[0].batches)
        await asyncio.gather(*(inference([window]) for window in windows_of(engine.bundle, 10)))
        assert len(servers[0].batches) == before
        servers[1].ready = False
        await soon(lambda: not judge.ready)
        assert not await inference.check()


async def test_another_model_under_the_name_is_never_asked(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    right = oip.model_of(engine)

    def wrong(given: Arrays) -> Arrays:
        return {name: np.zeros_like(array) for name, array in right(given).items()}

    caplog.set_level("INFO", "cotguard.classifier")
    server = Server(wrong)
    async with serving(server), asking(engine.bundle, server, deadline=1.0, within=0.4) as (inference, _):
        assert not await inference.check()
        with pytest.raises(TimeoutError):
            await inference(windows_of(engine.bundle, 1))
        server.run = right
        assert await up(inference)
    assert f'event="replica in" replica={server.url}' in lines(caplog)


async def test_what_comes_before_the_first_replica_waits(engine: Engine) -> None:
    server = Server(oip.model_of(engine))
    async with asking(engine.bundle, server, within=0.1) as (inference, _):
        load = asyncio.create_task(inference(windows_of(engine.bundle, 3)))
        await asyncio.sleep(0.1)
        async with serving(server):
            assert len(await load) == 3


# --- Transport ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_tls(engine: Engine, tmp_path: Path, scheme: str) -> None:
    server_tls, client_tls = oip.certificates(tmp_path)
    server = Server(oip.model_of(engine), scheme, tls=server_tls)
    async with serving(server):
        async with asking(engine.bundle, server, tls=client_tls) as (inference, _):
            assert await inference.check()
            assert len(await inference(windows_of(engine.bundle, 2))) == 2
        for tls in (Tls(), Tls(client_tls.ca)):  # it is not trusted; it does not trust us
            async with asking(engine.bundle, server, tls=tls, deadline=0.2, within=0.4) as (inference, _):
                assert not await inference.check()


def test_a_plain_proxy_loads_neither_grpc_nor_a_runtime() -> None:
    code = (
        "import sys, cotguard.cli, cotguard.gateway.serve\n"
        "print([name for name in ('grpc', 'google.protobuf', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
