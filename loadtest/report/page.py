"""The report's page, in Markdown, from figures alone."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cotguard import __version__
from loadtest.bench import UNPACED, medians
from loadtest.measure import Figures
from loadtest.nginx import find_nginx
from loadtest.report.results import RESULTS, Results, remote
from loadtest.report.scaling import growth, slope
from loadtest.report.targets import table as targets
from loadtest.tables import MISSING, Column, cells, table

__all__ = ["PAGE", "render", "write"]

PAGE = "README.md"

_FIT_POINTS = 3

_INTRODUCTION = """\
Written by `make loadtest`; figures in [{results}]({results}). All processes run on the machine named below, each proxy
with one worker; what they have in common (kernel, loopback, mock server, client) cancels out in ratios, so compare
ratios, not times. Processor time and memory are what the operating system counts for a process. Percentiles are of all
samples, by an HDR histogram (three digits). Text: prose without values, tokens of about a word, Chat Completions.
"""

_PACED = (
    Column("cpu", "CPU µs/event", 1),
    Column("ratio", "ratio", 2),
    Column("least", "least", 1),
    Column("most", "most", 1),
    Column("mock", "mock µs", 1),
    Column("client", "client µs", 1),
    Column("own50", "own time p50 ms", 3),
    Column("own99", "p99 ms", 2),
    Column("busy", "MiB", 0),
    Column("mock_busy", "mock MiB", 0),
    Column("client_busy", "client MiB", 0),
)
_DIALECTS = (
    Column("paced", "paced, µs", 1),
    Column("paced_ratio", "ratio", 2),
    Column("unpaced", "unpaced, µs", 2),
    Column("unpaced_ratio", "ratio", 1),
)
_CLASSIFIER = (
    Column("judging", "judging, share of the time", 2),
    Column("batch", "windows a batch", 2),
    Column("wait_mean", "in the queue, mean ms", 1),
    Column("wait50", "p50 ms", 1),
    Column("wait99", "p99 ms", 0),
    Column("late50", "tokens late p50", 0),
    Column("late99", "p99", 0),
    Column("failed", "failed", 0),
)


def write(results: Results, folder: Path) -> Path:
    """Write the page, and the plots if matplotlib is installed."""
    results = {**results, **remote(folder)}
    try:
        from loadtest.report.plots import draw
    except ModuleNotFoundError:
        drawn: list[str] = []
    else:
        drawn = draw(results, folder)
    page = folder / PAGE
    page.write_text(render(results, drawn), encoding="utf-8")
    return page


def render(results: Results, drawn: Sequence[str]) -> str:
    """The page; ``drawn``: names of plots beside it."""
    parts = [f"# cotguard {__version__}: cost, speed and scale", _INTRODUCTION.format(results=RESULTS)]
    parts += [_where(results), "## Targets", targets(results)]
    for title, plot, chapter in _CHAPTERS:
        try:
            text = chapter(results)
        except LookupError:
            text = "Not measured.\n"
        parts.append(f"## {title}")
        if plot in drawn:
            parts.append(f"![{title}]({plot}.png)")
        parts.append(text)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _where(results: Results) -> str:
    """The machine of each section; sections of one run of one machine differ in time and load only."""
    rows = []
    for section, machine in results.get("machine", {}).items():
        when, _, rest = machine.partition("; ")
        before, _, versions = rest.partition("; ")
        rows.append((section, when, before, versions))
    same = {(before.partition(", load ")[0], versions) for _, _, before, versions in rows}
    lines = [f"* {hardware}; {versions}" for hardware, versions in sorted(same)]
    skipped = "" if find_nginx() or not rows else "\nnginx is not installed: its rows are left out.\n"
    loads = ", ".join(f"{section} {when} ({before.rpartition(', ')[2]})" for section, when, before, _ in rows)
    return "\n".join(lines) + f"\n\nSections, when and how busy the machine was: {loads}.\n{skipped}"


def _cost(results: Results) -> str:
    plan, turns = results["plan"], results["cost"]["paced"]
    rows = medians(turns)
    for name, figures in rows.items():
        if "cpu" in figures:
            each = [turn["cpu"] for turn in turns[name]]
            figures |= {"least": min(each), "most": max(each)}
    load = f"{plan['busy']} streams, medians of {plan['repeat']} turns"
    return (
        f"Paced: {plan['rate']:g} tokens/s a stream, {load}; `least` and `most` of the turns. Mock and client are the "
        f"other two processes.\n\n{table('proxy', _PACED, rows)}\n"
        f"Unpaced: as fast as it goes, many events in a read, {load}.\n\n"
        f"{table('proxy', UNPACED, medians(results['cost']['unpaced']))}"
    )


def _dialects(results: Results) -> str:
    plan, rows = results["plan"], dict[str, Mapping[str, float]]()
    for dialect, found in results["dialects"].items():
        base, moderated = found.values()
        ratios = {f"{kind}_ratio": moderated[kind] / base[kind] for kind in ("paced", "unpaced")}
        rows[dialect] = {**moderated, **ratios}
    return (
        f"CPU µs per event with `{plan['spoken'][-1]}`, and its ratio to {plan['spoken'][0]}; one turn each, "
        f"{plan['busy']} streams, else as above.\n\n{table('dialect', _DIALECTS, rows)}"
    )


def _latency(results: Results) -> str:
    plan, found = results["plan"], results["latency"]
    rows = (
        (
            name,
            f"{each['requests']}",
            f"{each['failed']}",
            *(f"{each[kind][at]:,.1f}" for kind in ("first", "character", "whole") for at in ("50", "99", "100")),
            *(f"{each['own'][at]:.2f}" if "own" in each else MISSING for at in ("50", "99")),
        )
        for name, each in found.items()
    )
    headings = (
        "proxy",
        "requests",
        "failed",
        *(f"{kind} {at}" for kind in ("first text", "a character", "whole") for at in ("p50", "p99", "most")),
        "own time p50",
        "p99",
    )
    return (
        f"Open loop: requests come as a Poisson process, so many that {plan['concurrent']} streams of {plan['rate']:g} "
        "tokens/s are under way on average, the same schedule for every proxy. Milliseconds. First text and whole "
        "response (beyond what its tokens take) count from the time a request was due, characters from the writing of "
        f"their token by the mock server.\n\n{cells(headings, rows, right=True)}"
    )


def _by_streams(section: str, figure: str, decimals: int) -> Callable[[Results], str]:
    """A table of proxies by streams."""

    def chapter(results: Results) -> str:
        found: Mapping[str, Mapping[str, Figures]] = results[section]
        rows = {
            name: {streams: figures[figure] for streams, figures in points.items()} for name, points in found.items()
        }
        counts = list(next(iter(rows.values())))
        return table("proxy", [Column(count, f"{int(count):,}", decimals) for count in counts], rows)

    return chapter


def _throughput(results: Results) -> str:
    speeds, cpu = _by_streams("concurrency", "speed", 0)(results), _by_streams("concurrency", "cpu", 2)(results)
    return f"Unpaced, tokens/s by streams at once:\n\n{speeds}\nCPU µs per event in the same runs:\n\n{cpu}"


def _streams(results: Results) -> str:
    plan = results["plan"]
    rows = []
    for name, points in results["streams"].items():
        cost = {float(each): float(each) * points[str(each)]["cpu"] for each in plan["streams"]}
        rows.append((name, *_grown(cost)))
    return (
        f"Paced: {plan['rate']:g} tokens/s a stream, or less where there are so many streams that all of them would "
        f"bring more than {plan['most_events']:,.0f} events/s.\n\n{_by_streams('streams', 'cpu', 1)(results)}\n"
        f"How the cost of one event on every stream grows, up to {max(plan['streams']):,} streams:\n\n"
        f"{cells(_GROWTH, rows, right=True)}\n"
        "With few streams events come one at a time, and every one pays for its own wake-up: powers below 1. With "
        "thousands of slow streams the cost of an event rises again, more for proxies with more state a stream. Caches "
        "that no longer hold it are the likely reason; it was not shown."
    )


def _length(results: Results) -> str:
    rows = []
    for name, points in results["length"].items():
        cost = {float(length): seconds for length, seconds in points.items()}
        longest = max(cost)
        rows.append((name, f"{longest:,.0f}", f"{cost[longest] / longest * 1e6:.2f}", *_grown(cost)))
    headings = ("proxy", "longest", "CPU µs/character", *_GROWTH[1:])
    return (
        "One stream, unpaced, responses one after the other; processor time of a response against its characters."
        f"\n\n{cells(headings, rows, right=True)}\n"
        "The power is of the law through the lengths from a hundredth of the longest on; the slope ratio is the cost "
        "of one more character in the upper half of them over that in the lower half. Both are 1 where the cost is "
        "linear, and 2 and more where it is quadratic. The square's share is that of the square term in a parabola "
        "through all lengths, at the longest."
    )


_GROWTH = ("proxy", "power", "slope ratio", "square's share")


def _grown(cost: Mapping[float, float]) -> tuple[str, ...]:
    if len(cost) < _FIT_POINTS:
        return (MISSING,) * 3
    found = growth(cost)
    return f"{found.power:.2f}", f"{found.ratio:.2f}", f"{found.square:+.1%}"


def _memory(results: Results) -> str:
    rows = []
    for kind in ("idle", "busy"):
        for name, sizes in results["memory"][kind].items():
            points = {float(streams): size for streams, size in sizes.items()}
            cell = [f"{size / 1e6:.0f}" for size in points.values()]
            rows.append((f"{name}, {kind}", *cell, f"{slope(points) / 1e3:.1f}"))
    counts = [f"{int(count):,}" for count in next(iter(results["memory"]["idle"].values()))]
    fresh = ", ".join(f"{bundle} {size / 1e6:.0f} MB" for bundle, size in results["memory"]["fresh"].items())
    more = f"\nFresh, policy `balanced`, by bundle: {fresh}.\n" if fresh else ""
    return (
        "Resident, MB by streams, of fresh processes. Idle streams have brought one token and are silent; busy ones "
        f"are paced.\n\n{cells(('proxy', *counts, 'KB a stream'), rows, right=True)}{more}"
    )


def _hold(results: Results) -> str:
    shares = ("50", "90", "99", "100")
    rows = (
        (name, *(str(found[unit][share]) for unit in ("characters", "tokens") for share in shares))
        for name, found in results["hold"].items()
    )
    titles = [f"{unit} {'most' if at == '100' else f'p{at}'}" for unit in ("characters", "tokens") for at in shares]
    return (
        "What is on hold after each token of prose, without a clock: the same on every machine.\n\n"
        f"{cells(('policy', *titles), rows, right=True)}"
    )


def _classifier(results: Results) -> str:
    parts = []
    for bundle, found in results["classifier"].items():
        rows = {}
        for streams, point in found["points"].items():
            rows[f"{streams} streams"] = {
                "judging": point["judging"] / point["seconds"],
                "batch": point["windows"] / point["batches"],
                **{name: point[name] * 1e3 for name in ("wait_mean", "wait50", "wait99")},
                **{name: point[name] for name in ("late50", "late99", "failed")},
            }
        fast = found["unpaced"]
        parts.append(
            f"`{bundle}`, unpaced: {fast['cpu']:.0f} µs of processor time a token, {fast['speed']:,.0f} tokens/s. "
            f"Paced, {results['plan']['rate']:g} tokens/s a stream, one inference thread:\n\n"
            f"{table('load', _CLASSIFIER, rows)}"
        )
    return "\n".join(parts) + "\n[docs/capacity.md](../../docs/capacity.md) simulates this queue."


_CHAPTERS: Sequence[tuple[str, str, Callable[[Results], str]]] = (
    ("Cost of an event", "", _cost),
    ("Cost by dialect", "", _dialects),
    ("Latency", "latency", _latency),
    ("Throughput against concurrency", "throughput", _throughput),
    ("Cost against streams", "cpu", _streams),
    ("Cost against length", "length", _length),
    ("Memory", "memory", _memory),
    ("Hold", "hold", _hold),
    ("Classifier", "queue", _classifier),
)
"""Title, plot and text."""
