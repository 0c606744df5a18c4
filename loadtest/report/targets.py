"""The targets, and what was measured of each: value, baseline of the same run, verdict, and the reason where missed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cotguard.classifier.bundle import DEFAULT, NONE, load
from cotguard.moderation.lane import PATIENCE
from loadtest.bench import medians
from loadtest.contenders import DIRECT, REFERENCE, compiled, cotguard
from loadtest.report.results import Results
from loadtest.report.scaling import slope
from loadtest.tables import cells

__all__ = ["TARGETS", "Finding", "Target", "table"]

_NOT_MEASURED = "not measured"
_PATTERNS, _SECRETS, _NOTHING = cotguard("patterns-only"), cotguard("secrets-only"), cotguard("nothing")
_COMPILED = compiled("patterns-only")
_PARSE = "parse-and-write"
_FAST = "tagger-3"
_PAIR = ("p50", "p99")


@dataclass(frozen=True)
class Finding:
    """What was measured of a target. ``missed``: in a few words which part, if any; ``reason``: why."""

    measured: str
    baseline: str
    missed: str = ""
    reason: str = ""

    @property
    def verdict(self) -> str:
        """In words."""
        return f"{self.missed}: {self.reason}" if self.missed else "met"


@dataclass(frozen=True)
class Target:
    """A row of the table. ``find`` raises ``LookupError`` where something was not measured."""

    figure: str
    target: str
    find: Callable[[Results], Finding]


def table(results: Results) -> str:
    """Every target with what was found."""
    rows = []
    for target in TARGETS:
        try:
            found = target.find(results)
        except LookupError:
            rows.append((target.figure, target.target, _NOT_MEASURED, "", _NOT_MEASURED))
        else:
            rows.append((target.figure, target.target, found.measured, found.baseline, found.verdict))
    return cells(("figure", "target", "measured", "baseline, same run", "verdict"), rows)


def _limits(values: Sequence[float], most: Sequence[float], names: Sequence[str]) -> str:
    """Which of ``values`` are above their limits, in words."""
    above = [name for name, value, limit in zip(names, values, most, strict=True) if value > limit]
    if not above:
        return ""
    return "missed" if len(above) == len(values) else f"{', '.join(above)} missed"


def _paced_cost(results: Results) -> Finding:
    rows = medians(results["cost"]["paced"])
    ratio = rows[_PATTERNS]["ratio"]
    each = sorted(turn["cpu"] for turn in results["cost"]["paced"][_PATTERNS])
    core = f"; compiled core {rows[_COMPILED]['ratio']:.2f} x" if _COMPILED in rows else ""
    return Finding(
        f"{ratio:.2f} x ({rows[_PATTERNS]['cpu']:.0f} µs; turns {each[0]:.0f} to {each[-1]:.0f}){core}",
        f"{REFERENCE} {rows[REFERENCE]['cpu']:.1f} µs; {_PARSE} {rows[_PARSE]['ratio']:.2f} x",
        _limits([ratio], [1.5], ["ratio"]),
        f"without any detector it is {rows[_NOTHING]['ratio']:.2f} x, with `secrets-only` "
        f"{rows[_SECRETS]['ratio']:.2f} x: the rest is matching and deciding, for every event",
    )


def _unpaced_speed(results: Results) -> Finding:
    rows = medians(results["cost"]["unpaced"])
    per_core = {name: 1e6 / figures["cpu"] for name, figures in rows.items() if "cpu" in figures}
    ratio = per_core[_PATTERNS] / per_core[_PARSE]
    core = f"; compiled core {per_core[_COMPILED] / per_core[_PARSE]:.2f} x" if _COMPILED in per_core else ""
    return Finding(
        f"{ratio:.2f} x ({per_core[_PATTERNS]:,.0f} events/s and core){core}",
        f"{_PARSE} {per_core[_PARSE]:,.0f} events/s and core",
        _limits([-ratio], [-0.5], ["ratio"]),
        f"without any detector it is {per_core[_NOTHING] / per_core[_PARSE]:.2f} x, with `secrets-only` "
        f"{per_core[_SECRETS] / per_core[_PARSE]:.2f} x",
    )


def _own_time(results: Results) -> Finding:
    own = results["latency"][_PATTERNS]["own"]
    values = own["50"], own["99"]
    return Finding(
        f"{values[0]:.2f} / {values[1]:.1f} ms",
        "–",
        _limits(values, (0.3, 3), _PAIR),
        "what several streams bring in one turn of the loop is moderated together, and the processes of the test share "
        "the cores: wall time, with waiting for a core in it",
    )


def _added(name: str, figure: str, most: tuple[float, float], reason: str) -> Callable[[Results], Finding]:
    """What ``name`` adds to percentiles of the open loop, in milliseconds."""

    def find(results: Results) -> Finding:
        latency = results["latency"]
        direct, own, copying = latency[DIRECT][figure], latency[name][figure], latency[REFERENCE][figure]
        values = own["50"] - direct["50"], own["99"] - direct["99"]
        return Finding(
            f"{values[0]:.1f} / {values[1]:.1f} ms",
            f"{REFERENCE} {copying['50'] - direct['50']:.1f} / {copying['99'] - direct['99']:.1f} ms; "
            f"direct itself {direct['50']:.1f} / {direct['99']:.1f} ms",
            _limits(values, most, _PAIR),
            reason,
        )

    return find


def _classifier_cost(results: Results) -> Finding:
    found = results["classifier"]
    values = [found[bundle]["unpaced"]["cpu"] for bundle in (DEFAULT, _FAST)]
    window = load(DEFAULT).manifest.window
    judged = (window.left + window.core + window.right) / window.core
    bare = medians(results["cost"]["unpaced"])[_PATTERNS]["cpu"]
    return Finding(
        f"{DEFAULT} {values[0]:.0f} µs, {_FAST} {values[1]:.0f} µs",
        f"without a classifier {bare:.1f} µs",
        _limits(values, (150, 80), (DEFAULT, _FAST)),
        f"inference on the CPU; with its context `{DEFAULT}` reads every piece {judged:.1f} times",
    )


def _classifier_hold(results: Results) -> Finding:
    value = results["hold"][f"balanced, {DEFAULT}"]["tokens"]["50"]
    window = load(DEFAULT).manifest.window
    return Finding(
        f"{value} tokens (quality: the bundle's evaluation.md)",
        f"`patterns-only` {results['hold']['patterns-only']['tokens']['50']} tokens",
        _limits([value], [16], ["p50"]),
        f"half a core of {window.core} pieces and {window.right} of look-ahead are inherent in `{DEFAULT}`'s windows",
    )


def _memory(results: Results) -> Finding:
    found = results["memory"]
    mega = {bundle: size / 1e6 for bundle, size in found["fresh"].items()}
    idle = {name: _slope(sizes) / 1e3 for name, sizes in found["idle"].items()}
    values = mega[NONE], mega[DEFAULT], idle[_PATTERNS]
    nothing = medians(results["cost"]["paced"])[_NOTHING]["idle"] * 2**20 / 1e6
    return Finding(
        f"{values[0]:.0f} MB without, {values[1]:.0f} MB with `{DEFAULT}`; {values[2]:.0f} KB an idle stream",
        f"{REFERENCE} {found['idle'][REFERENCE]['0'] / 1e6:.0f} MB, {idle[REFERENCE]:.0f} KB an idle stream",
        _limits(values, (60, 250, 30), ("without", "with", "stream")),
        f"a proxy without any detector has {nothing:.0f} MB (Python, aiohttp, libraries), the compiled automata are "
        "the rest; an idle stream is two connections of aiohttp, a task and its detectors' state",
    )


def _slope(sizes: Mapping[str, float]) -> float:
    return slope({float(streams): size for streams, size in sizes.items()})


def _remote(results: Results) -> Finding:
    found = results["remote"]
    missed = _limits((found["added50_ms"], -found["throughput_ratio"]), (3, -1), ("delay", "throughput"))
    return Finding(
        f"{found['added50_ms']:.1f} ms; {found['throughput_ratio']:.2f} x",
        found["baseline"],
        missed,
        found.get("reason", "see there"),
    )


_TOKEN = 20.0
_SEAM = (
    f"the seam: while the reasoning's last words are on hold, the first {PATIENCE} characters of the answer wait, once "
    "a stream, which is some 4 % of the characters of the load's short streams (with one character instead, which "
    "servers that interleave channels would make a leak, both p99 were within the target)"
)

TARGETS: Sequence[Target] = (
    Target("CPU per event, 64 streams x 50 tokens/s, `patterns-only`", f"at most 1.5 x {REFERENCE}", _paced_cost),
    Target("unpaced events/s and core, `patterns-only`", f"at least 0.5 x {_PARSE}", _unpaced_speed),
    Target("the proxy's own time per event, p50 / p99, 50 streams", "at most 0.3 / 3 ms", _own_time),
    Target(
        "added delay per character at 20 ms/token, `patterns-only`, p50 / p99",
        "at most 1 token + 0.5 ms / 4 tokens",
        _added(_PATTERNS, "character", (_TOKEN + 0.5, 4 * _TOKEN), _SEAM),
    ),
    Target(
        "same, `secrets-only`",
        "at most 0.5 ms / 3 tokens",
        _added(_SECRETS, "character", (0.5, 3 * _TOKEN), _SEAM),
    ),
    Target(
        "added time to first delivered text, 50 streams, `patterns-only`, p50 / p99",
        "at most 1 token + 1 ms / 2 tokens",
        _added(
            _PATTERNS,
            "first",
            (_TOKEN + 1, 2 * _TOKEN),
            "the text of the load begins with `Okay, the`, which may begin a seed phrase: three tokens are on hold",
        ),
    ),
    Target(
        "CPU per token with the classifier on", "at most 150 µs (default bundle), 80 µs (fast bundle)", _classifier_cost
    ),
    Target("hold with the classifier on, p50", "at most 16 tokens", _classifier_hold),
    Target("memory", "idle at most 60 MB without, 250 MB with the classifier; 30 KB an idle stream", _memory),
    Target(
        "remote classifier", "at most 3 ms above in-process at p50; at least the engine's own client's speed", _remote
    ),
)
