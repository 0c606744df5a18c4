"""The report's plots, as PNG files. Needs matplotlib, which the extra ``report`` brings."""

from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.contenders import DIRECT, NGINX, REFERENCE, cotguard
from loadtest.report.results import Results

__all__ = ["PLOTS", "draw"]

Curves = Mapping[str, Mapping[float, float]]
"""Points by the name of a line."""

_SIZE = (7.2, 4.0)
_DPI = 130
_FIRST = 25
_COLORS = {
    DIRECT: "#999999",
    NGINX: "#2a9d4b",
    REFERENCE: "#1f77b4",
    "parse-and-write": "#17becf",
    cotguard("nothing"): "#e9b949",
    cotguard("secrets-only"): "#ff7f0e",
    cotguard("patterns-only"): "#d62728",
}
_OTHERS = ("#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")
_STYLES = ("-", "--", ":")


def draw(results: Results, folder: Path) -> list[str]:
    """Draw what was measured; the names of the plots drawn."""
    drawn = []
    for name, plot in PLOTS.items():
        figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
        try:
            plot(results, figure)
        except LookupError:
            continue
        figure.savefig(folder / f"{name}.png", metadata={"Software": ""})
        drawn.append(name)
    return drawn


def _lines(axes: Axes, curves: Curves, *, style: str = "-", label: str = "{}") -> None:
    others = [name for name in curves if name not in _COLORS]
    for name, points in curves.items():
        color = _COLORS.get(name) or _OTHERS[others.index(name) % len(_OTHERS)]
        ordered = dict(sorted(points.items()))
        axes.plot(
            list(ordered),
            list(ordered.values()),
            style,
            marker="o",
            markersize=3,
            color=color,
            label=label.format(name),
        )


def _finish(axes: Axes, x: str, y: str, *, log_x: bool = True, log_y: bool = True, legend: bool = True) -> None:
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(fontsize="small", frameon=False)


def _ticks(axes: Axes, values: list[float]) -> None:
    axes.set_xticks(values, [f"{value:,.0f}" for value in values])
    axes.minorticks_off()


def _by_streams(section: str, measured: str, x: str, y: str) -> Callable[[Results, Figure], None]:
    """Draws what was ``measured`` in ``section`` against the number of streams."""

    def draw(results: Results, figure: Figure) -> None:
        axes = figure.subplots()
        curves = {
            name: {float(streams): figures[measured] for streams, figures in points.items()}
            for name, points in results[section].items()
        }
        _lines(axes, curves)
        _finish(axes, x, y, log_y=False)
        _ticks(axes, sorted(next(iter(curves.values()))))

    return draw


def _latency(results: Results, figure: Figure) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    found = results["latency"]
    for axes, kind, title in ((left, "first", "first text"), (right, "character", "each character")):
        curves = {
            name: {
                100 / max(100 - float(at), 0.01): each
                for at, each in latency[kind].items()
                if _FIRST <= float(at) < 100
            }
            for name, latency in found.items()
        }
        _lines(axes, curves)
        _finish(axes, "percentile", "delay, ms" if axes is left else "", legend=False)
        axes.set_title(title, fontsize="medium")
        axes.set_xticks([2, 10, 100, 1000], ["50", "90", "99", "99.9"])
        axes.minorticks_off()
    figure.legend(
        *right.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small", frameon=False
    )


def _length(results: Results, figure: Figure) -> None:
    axes = figure.subplots()
    curves = {
        name: {float(length): seconds * 1e3 for length, seconds in points.items()}
        for name, points in results["length"].items()
    }
    _lines(axes, curves)
    _finish(axes, "characters of a response, unpaced", "CPU ms per response")


def _memory(results: Results, figure: Figure) -> None:
    axes = figure.subplots()
    for kind, style in zip(("idle", "busy"), _STYLES, strict=False):
        curves = {
            name: {float(streams): size / 2**20 for streams, size in sizes.items()}
            for name, sizes in results["memory"][kind].items()
        }
        _lines(axes, curves, style=style, label=f"{{}}, {kind}")
    _finish(axes, "streams at once", "resident memory, MiB", log_x=False, log_y=False)


def _hold(results: Results, figure: Figure) -> None:
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, unit in ((left, "characters"), (right, "tokens")):
        curves = {
            name: {shares[unit][at]: float(at) for at in shares[unit]} for name, shares in results["hold"].items()
        }
        _lines(axes, curves)
        _finish(axes, f"{unit} on hold", "% of the time" if axes is left else "", log_x=False, log_y=False)
        axes.get_legend().set_visible(axes is right)


def _queue(results: Results, figure: Figure) -> None:
    axes = figure.subplots()
    for style, (at, title) in zip(_STYLES, (("wait50", "median"), ("wait99", "99th")), strict=False):
        curves = {
            bundle: {float(streams): point[at] * 1e3 for streams, point in found["points"].items()}
            for bundle, found in results["classifier"].items()
        }
        _lines(axes, curves, style=style, label=f"{{}}, {title}")
    _finish(axes, "streams at once, 50 tokens/s each", "time of a window in the queue, ms", log_x=False)


PLOTS: Mapping[str, Callable[[Results, Figure], None]] = {
    "throughput": _by_streams("concurrency", "speed", "streams at once, unpaced", "tokens/s"),
    "latency": _latency,
    "cpu": _by_streams("streams", "cpu", "streams at once, paced", "CPU µs per event"),
    "length": _length,
    "memory": _memory,
    "hold": _hold,
    "queue": _queue,
}
"""By the name of the file."""
