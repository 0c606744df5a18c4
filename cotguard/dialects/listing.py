"""The dialects as people read them: for the command line, and as the table in the README, which a test compares."""

from collections.abc import Iterable, Iterator, Sequence

from cotguard.dialects.contract import Dialect, Route

__all__ = ["lookups", "markdown", "moderated", "plain"]

_SHOWN = 4


def plain(dialects: Iterable[Dialect]) -> str:
    """For a terminal."""
    return "\n".join("\n".join(_paragraph(dialect)) for dialect in dialects)


def _paragraph(dialect: Dialect) -> Iterator[str]:
    yield f"{dialect.title} ({dialect.name})"
    yield f"  spoken by {dialect.servers}"
    for route in moderated(dialect):
        yield f"  {route.method} {route.path}"
    for route in lookups(dialect):
        yield f"  {route.method} {route.path}   structure only"
    for route in dialect.routes:
        if route.refused:
            yield f"  refused: {_method(route)}{route.path}: {route.refused}"
    yield ""


def markdown(dialects: Iterable[Dialect]) -> str:
    """A row for each dialect, with its first paths."""
    lines = ["| dialect | spoken by | moderated | structure only |", "|---|---|---|---|"]
    for dialect in dialects:
        cells = (dialect.title, dialect.servers, _cell(moderated(dialect)), _cell(lookups(dialect)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(routes: Sequence[Route]) -> str:
    shown = [f"`{route.method} {route.path}`" for route in routes[:_SHOWN]]
    return "<br>".join([*shown, f"and {len(routes) - _SHOWN} more"] if len(routes) > _SHOWN else shown)


def moderated(dialect: Dialect) -> list[Route]:
    """Its routes whose answers hold generated text."""
    return [route for route in dialect.routes if not route.refused and not route.lookup]


def lookups(dialect: Dialect) -> list[Route]:
    """Its routes whose answers are structure alone."""
    return [route for route in dialect.routes if route.lookup]


def _method(route: Route) -> str:
    return "" if route.method == "*" else f"{route.method} "
