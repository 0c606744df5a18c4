"""The dialects as people read them: for the command line, and as the table in the README, which a test compares."""

from collections.abc import Iterable, Iterator, Sequence

from cotguard.dialects.contract import Dialect, Route

__all__ = ["markdown", "plain"]

_SHOWN = 4


def plain(dialects: Iterable[Dialect]) -> str:
    """For a terminal."""
    return "\n".join("\n".join(_paragraph(dialect)) for dialect in dialects)


def _paragraph(dialect: Dialect) -> Iterator[str]:
    yield f"{dialect.title} ({dialect.name})"
    yield f"  spoken by {dialect.servers}"
    for route in _moderated(dialect):
        yield f"  {route.method} {route.path}"
    for route in _lookups(dialect):
        yield f"  {route.method} {route.path}   structure only"
    for route in dialect.routes:
        if route.refused:
            yield f"  refused: {_method(route)}{route.path}: {route.refused}"
    yield ""


def markdown(dialects: Iterable[Dialect]) -> str:
    """A row for each dialect, with its first paths."""
    lines = ["| dialect | spoken by | moderated | structure only |", "|---|---|---|---|"]
    for dialect in dialects:
        moderated, lookups = (_cell(routes) for routes in (_moderated(dialect), _lookups(dialect)))
        lines.append(f"| {dialect.title} | {dialect.servers} | {moderated} | {lookups} |")
    return "\n".join(lines) + "\n"


def _cell(routes: Sequence[Route]) -> str:
    shown = [f"`{route.method} {route.path}`" for route in routes[:_SHOWN]]
    return "<br>".join([*shown, f"and {len(routes) - _SHOWN} more"] if len(routes) > _SHOWN else shown)


def _moderated(dialect: Dialect) -> list[Route]:
    return [route for route in dialect.routes if not route.refused and not route.lookup]


def _lookups(dialect: Dialect) -> list[Route]:
    return [route for route in dialect.routes if route.lookup]


def _method(route: Route) -> str:
    return "" if route.method == "*" else f"{route.method} "
