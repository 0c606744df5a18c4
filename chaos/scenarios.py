"""All scenarios, how their exchanges may end, and how one is played."""

import tempfile
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import NamedTuple

import uvloop

from chaos.connections import idle_connections, slow_readers
from chaos.exchange import End
from chaos.processes import classifier_killed, client_killed, upstream_killed, worker_killed
from chaos.stage import Result, Run, Scale
from chaos.surroundings import certificate_rotated, clock_jumped, config_flapped, disk_full

__all__ = ["SCENARIOS", "Scenario", "play"]


class Scenario(NamedTuple):
    """What is done, how exchanges may end, and whether their number is the scale's; else they last for its seconds."""

    act: Callable[[Run], Coroutine[object, None, None]]
    allowed: frozenset[End]
    counted: bool = False


def play(name: str, scenario: Scenario, scale: Scale, advance: Callable[[int], object]) -> Result:
    """Play a scenario in processes and files of its own; ``advance`` is told how many exchanges are over."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        run = Run(name, scale, advance, Path(scratch))
        uvloop.run(scenario.act(run))
    if not run.result.skipped:
        run.result.judge(scenario.allowed)
    return run.result


def _ends(*ends: End) -> frozenset[End]:
    return frozenset({End.COMPLETE, *ends})


SCENARIOS: Mapping[str, Scenario] = {
    "upstream killed": Scenario(upstream_killed, _ends(End.ERROR, End.REFUSED), counted=True),
    "client killed": Scenario(client_killed, _ends(End.LEFT), counted=True),
    "worker killed": Scenario(worker_killed, _ends(End.CLOSED), counted=True),
    "classifier killed": Scenario(classifier_killed, _ends(End.ERROR, End.REFUSED), counted=True),
    "disk full": Scenario(disk_full, _ends(End.ERROR, End.REFUSED)),
    "clock jumped": Scenario(clock_jumped, _ends()),
    "certificate rotated": Scenario(certificate_rotated, _ends()),
    "config flapping": Scenario(config_flapped, _ends()),
    "idle connections": Scenario(idle_connections, _ends()),
    "slow readers": Scenario(slow_readers, _ends(End.CLOSED)),
}
