"""Lines of the log: fields of a fixed set, and never what anybody else wrote."""

import json
import logging
import re
import subprocess
import sys

import pytest

from cotguard.telemetry import logs
from cotguard.telemetry.logs import FIELDS, LogFormat

VALUE = "ann.lee@example.com"
ALWAYS = {"time", "level", "logger", "event"}


def run(form: LogFormat, code: str, level: str = "info") -> list[str]:
    """What a process that runs ``code`` writes to its standard error."""
    head = (
        "import asyncio, logging, sys, threading, warnings\n"
        "from cotguard.telemetry import logs\n"
        f"VALUE = {VALUE!r}\n"
        f"logs.configure(logs.LogFormat({form.value!r}), {level!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=False)
    assert VALUE not in done.stderr
    return done.stderr.splitlines()


ACCESS = """
line = logs.Access(dialect="ollama", status=200, outcome="ok", seconds=0.25, caller_role="a b", policy="12")
with logs.exchange("r1"):
    logs.access(line)
logs.access(line)
logging.getLogger("cotguard.gateway").warning("exchange failed closed", extra={"kind": "blocked", "prompt": VALUE})
logging.getLogger("cotguard.gateway").debug("not shown")
"""


def test_an_event_is_an_object_on_a_line() -> None:
    first, second, third = (json.loads(line) for line in run(LogFormat.JSON, ACCESS))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first.pop("time"))
    fields = {"dialect": "ollama", "status": 200, "outcome": "ok", "seconds": 0.25, "caller_role": "a b"}
    fields["policy"] = "12"
    head = {"level": "info", "logger": "cotguard.access", "event": "exchange"}
    assert first == {**head, "request_id": "r1", **fields}
    assert set(second) == ALWAYS | set(fields)
    assert set(third) == {*ALWAYS, "kind"}


def test_or_keys_and_values() -> None:
    first, _, third = run(LogFormat.TEXT, ACCESS)
    assert first.split(" ", 1)[1] == (
        "level=info logger=cotguard.access event=exchange request_id=r1 "
        'caller_role="a b" dialect=ollama outcome=ok policy=12 seconds=0.25 status=200'
    )
    assert third.endswith('event="exchange failed closed" kind=blocked')


FAULTS = """
def fail():
    try:
        int(VALUE)
    except ValueError as error:
        raise KeyError(VALUE) from error

try:
    fail()
except KeyError:
    logging.getLogger("cotguard.gateway").exception("own event")
    logging.getLogger("aiohttp.server").exception("Error handling request from %s", VALUE)
logging.getLogger("asyncio").error(f"Task exception was never retrieved {VALUE}")
logging.getLogger("cotguard.gateway").warning("%s", VALUE)
warnings.warn(VALUE)

class Held:
    def __del__(self):
        fail()

Held()
thread = threading.Thread(target=fail)
thread.start()
thread.join()

async def main():
    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task = asyncio.create_task(asyncio.to_thread(fail))
    await asyncio.wait([task])

asyncio.run(main())
fail()
"""


@pytest.mark.parametrize("form", LogFormat)
def test_neither_libraries_nor_exceptions_are_quoted(form: LogFormat) -> None:
    lines = run(form, FAULTS)
    assert len(lines) == 10
    assert sum("KeyError < ValueError" in line for line in lines) == 7
    assert sum("a library's message, withheld" in line for line in lines) == 5


def test_of_a_fault_the_place_is_told() -> None:
    told = [json.loads(line) for line in run(LogFormat.JSON, FAULTS)]
    own, library = told[:2]
    assert own["event"] == "own event"
    assert [place.split()[-1] for place in own["frames"].split(" > ")] == ["<module>", "fail"]
    assert library["at"] == "<string>:16 <module>"
    assert [line["event"] for line in told if line["logger"] == "cotguard"] == [
        "exception in a finalizer",
        "exception in a thread",
        "uncaught exception",
    ]


def test_a_level_hides_what_is_below_it() -> None:
    assert len(run(LogFormat.TEXT, ACCESS, "WARNING")) == 1
    assert len(run(LogFormat.TEXT, ACCESS, "debug")) == 4


class _Record(logging.LogRecord):
    def __init__(self) -> None:
        super().__init__("cotguard", logging.INFO, "", 0, "", (), None)


def test_no_field_has_the_name_of_something_else() -> None:
    """``logging`` refuses an event whose field would hide an attribute of its own."""
    assert not (set(vars(_Record())) | {"message", "asctime"}) & set(FIELDS)
    assert not set(FIELDS) & set(logs.ALWAYS)
