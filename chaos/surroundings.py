"""Scenarios in which what the gateway relies on changes: the disk, the clock, certificates, its configuration."""

import asyncio
import random
import resource
from collections import Counter
from pathlib import Path

from chaos.certificates import Authority
from chaos.exchange import End
from chaos.expected import FIRST, SECOND, policy_file
from chaos.stage import Run, Stage, until
from chaos.trail import account

__all__ = ["certificate_rotated", "clock_jumped", "config_flapped", "disk_full"]

_ENDLESS = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
_LIBRARY = "faketime/libfaketimeMT.so.1"
_NOTICED_SECONDS = 1.5
"""After which the gateway surely has the new time."""
_JUMPS = ("+2h", "-3h", "+1d", "-1d", "+0")


async def disk_full(run: Run) -> None:
    """No file of the gateway may grow, from a moment at which a write is cut in its midst; and again, and again.

    Looked at while it is so: what clients got must have its decisions in the trail by then.
    """
    draw = random.Random("disk full")  # noqa: S311  # a schedule, no secret
    times = max(2, int(run.scale.seconds / 6))
    ahead = failed = 0
    async with run.stage() as stage, stage.load():
        for _ in range(times):
            await asyncio.sleep(draw.uniform(1, 2))
            before = len(stage.seen)
            used = max(file.stat().st_size for file in stage.gateway.trail.glob("audit-*"))
            stage.gateway.process.rlimit(resource.RLIMIT_FSIZE, (used + draw.randrange(4000), resource.RLIM_INFINITY))
            await asyncio.sleep(2)
            meanwhile = list(stage.seen)
            found = account(stage.gateway.trail, meanwhile)
            ahead += found.exchanges
            failed += sum(each.end is not End.COMPLETE for each in meanwhile[before:])
            if found.decisions:
                run.result.problems.append(f"{found.decisions} values replaced ahead of their records")
            stage.gateway.process.rlimit(resource.RLIMIT_FSIZE, _ENDLESS)
            await until(stage.gateway.ready)
        run.result.figures = {"times": times, "failed closed": failed, "complete ahead of their record": ahead}
    if not failed:
        run.result.problems.append("the full disk was not noticed")


async def clock_jumped(run: Run) -> None:
    """The wall clock jumps by hours, ahead and back, as after a wrong setting; the monotonic one goes on."""
    library = _library()
    if library is None:
        run.result.skipped = "needs libfaketime: apt-get install faketime"
        return
    clock = run.scratch / "clock"
    clock.write_text("+0\n", encoding="utf-8")
    environment = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # which lets threads wait seconds for the interpreter
    }
    async with run.stage(environment=environment) as stage, stage.load():
        for jump in _JUMPS:
            clock.write_text(f"{jump}\n", encoding="utf-8")
            await asyncio.sleep(max(_NOTICED_SECONDS, run.scale.seconds / len(_JUMPS) / 2))
    hours = account(stage.gateway.trail, ()).hours
    run.result.figures = {"jumps": len(_JUMPS), "hours between records": round(hours)}
    if hours < 24:
        run.result.problems.append("the clock did not jump")


def _library() -> Path | None:
    return next(Path("/usr/lib").glob(f"*/{_LIBRARY}"), None)


async def certificate_rotated(run: Run) -> None:
    """The data port's certificate is renewed again and again; every client gets in, and the new one is shown."""
    authority = Authority(run.scratch)
    serials = [authority.issue()]
    tls = {"tls_cert": str(authority.certificate), "tls_key": str(authority.key)}

    async with run.stage(trusted=authority.trusted(), settings=tls) as stage:
        shown = Counter[int]()

        async def is_shown() -> bool:
            shown.update(each.serial for each in stage.seen)
            return shown[serials[-1]] > 0

        async with stage.load():
            for _ in range(max(3, int(run.scale.seconds / 3))):
                await until(is_shown)
                serials.append(authority.issue())
            await until(is_shown)
    unseen = sum(not shown[serial] for serial in serials)
    run.result.figures = {"certificates": len(serials)}
    if unseen:
        run.result.problems.append(f"{unseen} certificates were never shown")


async def config_flapped(run: Run) -> None:
    """Every second another configuration: one, another, one that is no good. Each exchange is under one policy."""

    def one(stage: Stage) -> None:
        stage.gateway.configure(policy=policy_file(FIRST))

    def other(stage: Stage) -> None:
        stage.gateway.configure(policy=policy_file(SECOND))

    def bad(stage: Stage) -> None:
        stage.gateway.configure_badly()

    changes = (other, bad, one, bad)
    async with run.stage(policies=(FIRST, SECOND)) as stage:
        await stage.adopt(SECOND, FIRST)
        async with stage.load():
            for number in range(max(len(changes), int(run.scale.seconds))):
                changes[number % len(changes)](stage)
                await asyncio.sleep(1)
            one(stage)
        refused = await stage.gateway.metric("cotguard_config_reloads_total", result="refused")
        applied = await stage.gateway.metric("cotguard_config_reloads_total", result="applied")
        policies = len({each.policy for each in stage.seen})
        run.result.figures = {"applied": applied, "refused": refused, "policies": policies}
        if policies < 2 or not refused:
            run.result.problems.append("the configuration did not change under the load")
