"""Scenarios in which processes are killed - the upstream's, a worker's, the classifier's - and clients leave."""

import asyncio
import random
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace

import psutil

from chaos.exchange import Asked, End
from chaos.expected import CLASSIFIER
from chaos.stage import Run, Stage, background, until
from chaos.upstream import RESET, free_port
from cotguard.classifier.bundle import DEFAULT
from loadtest.serving import Server, started

__all__ = ["classifier_killed", "client_killed", "upstream_killed", "worker_killed"]

_STREAM_SECONDS = 1.0
"""About as long as a response takes."""
_LONG_GONE_SECONDS = 8.0
"""Longer than the gateway waits for the classifier."""


async def upstream_killed(run: Run) -> None:
    """Half of the exchanges: their connection is reset at a random byte. The others: the upstream gets SIGKILL."""
    draw = random.Random("upstream killed")  # noqa: S311  # a schedule, no secret
    async with run.stage() as stage:
        half = run.scale.exchanges // 2
        resets = await stage.crowd(replace(stage.whole(), fate=RESET) for _ in range(half))
        async with background(_kill_again_and_again(stage, draw)):
            killed = await stage.crowd(stage.whole() for _ in range(run.scale.exchanges - half))
        run.result.figures = {
            "cut by a reset": sum(each.end is not End.COMPLETE for each in resets),
            "cut by SIGKILL": sum(each.end is not End.COMPLETE for each in killed),
        }


async def _kill_again_and_again(stage: Stage, draw: random.Random) -> None:
    """The upstream's process; its parent starts another."""
    while True:
        await asyncio.sleep(draw.uniform(0.3, 1.0))
        for process in stage.upstream.process.children():
            with suppress(psutil.NoSuchProcess):
                process.kill()


async def client_killed(run: Run) -> None:
    """Every client aborts its connection at a random moment, with an RST or without."""
    draw = random.Random("client killed")  # noqa: S311  # a schedule, no secret

    def asks(stage: Stage) -> Asked:
        return replace(stage.whole(), leave=draw.uniform(0, _STREAM_SECONDS))

    async with run.stage() as stage:
        await stage.crowd(asks(stage) for _ in range(run.scale.exchanges))


async def worker_killed(run: Run) -> None:
    """One of two workers gets SIGKILL every few seconds. Streams of the other one must go on."""
    draw = random.Random("worker killed")  # noqa: S311  # a schedule, no secret
    ports: set[int] = set()
    kills = 0

    async def kill_again_and_again(stage: Stage) -> None:
        nonlocal kills
        while True:
            await asyncio.sleep(draw.uniform(0.5, 2))
            workers = stage.gateway.serving
            if len(workers) == stage.gateway.workers:  # else the one before is not there again
                ports.update(_kill(draw.choice(workers)))
                kills += 1

    async with run.stage(workers=2) as stage:
        await _all_replaced(stage)
        stage.note_base()  # a worker that took another's place has ends of pipes that the first ones had not
        async with background(kill_again_and_again(stage)):
            seen = await stage.crowd(stage.whole() for _ in range(run.scale.exchanges))
        bystanders = sum(each.end is End.CLOSED and each.port > 0 and each.port not in ports for each in seen)
        run.result.figures = {"kills": kills, "streams of the other worker that ended": bystanders}
        if bystanders:
            run.result.problems.append(f"{bystanders} streams of the other worker ended")


def _kill(worker: psutil.Process) -> set[int]:
    """Kill it; returns the ports of the clients whose connections it had."""
    worker.suspend()  # so that it takes no connection between the look and its end
    ports = {each.raddr[1] for each in worker.net_connections("tcp") if each.status == psutil.CONN_ESTABLISHED}
    worker.kill()
    return ports


async def _all_replaced(stage: Stage) -> None:
    """Kill all workers and wait until others have their places."""
    first = stage.gateway.serving
    for worker in first:
        worker.kill()

    async def replaced() -> bool:
        return not set(first) & set(stage.gateway.serving) and await stage.gateway.ready()

    await until(replaced)


async def classifier_killed(run: Run) -> None:
    """The server of the classifier's model gets SIGKILL every few seconds; another comes at once, or much later."""
    draw = random.Random("classifier killed")  # noqa: S311  # a schedule, no secret
    kills = 0
    port = str(free_port())

    async def kill_again_and_again(stack: ExitStack, server: Server) -> None:
        nonlocal kills
        while True:
            await asyncio.sleep(draw.uniform(2, 5))
            server.process.kill()
            kills += 1
            await asyncio.sleep(draw.choice((0.1, _LONG_GONE_SECONDS)))
            server = await asyncio.to_thread(stack.enter_context, _classifier(port))

    model = {"bundle": DEFAULT, "classifier_url": f"grpc://127.0.0.1:{port}"}
    with ExitStack() as stack:
        server = stack.enter_context(_classifier(port))
        async with run.stage(policies=(CLASSIFIER,), settings=model) as stage:
            async with background(kill_again_and_again(stack, server)):
                await stage.crowd(stage.whole() for _ in range(run.scale.exchanges))
            stack.close()
            stack.enter_context(_classifier(port))
            run.result.figures = {"kills": kills}


def _classifier(port: str) -> AbstractContextManager[Server]:
    return started("loadtest.oip_server", DEFAULT, port)
