"""Which dialect a request is for: found from method and path, by the tables' routes.

A path is matched segment by segment, each decoded once, so that an escaped slash stays within its segment; empty and
last slashes are dropped, dot segments match nothing, letters of either case are the same. What goes upstream is the
route's own path with the parameters in it, encoded anew, never the client's spelling.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from cotguard.dialects.contract import Dialect, ErrorKind, Refused, Route

__all__ = ["Match", "RefusedRoute", "Router", "query_of"]

_NAMED = re.compile(r"\{(\w+)\}")
_PARAMETER = r"[A-Za-z0-9][A-Za-z0-9._:@~+/ -]{0,255}?"
_REST = "**"
_BETWEEN = "\0"
_UNKNOWN = "This path is not served. `cotguard dialects` lists those that are moderated."
_QUERY_VALUE = re.compile(r"[\w.,:=~+/-]{0,256}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Match:
    """A route, its dialect, and what its braces matched."""

    dialect: Dialect
    route: Route
    parameters: Mapping[str, str]

    @property
    def path(self) -> str:
        """The path as the table spells it, with what its braces matched."""
        return _NAMED.sub(lambda found: self.parameters[found[1]], self.route.path)

    @property
    def upstream(self) -> str:
        """The path that goes upstream."""
        safe = "~" if self.route.signed else "@:~+"  # a signature covers the path: escaped as AWS's own clients do
        return _NAMED.sub(
            lambda found: quote(self.parameters[found[1]], safe=safe), self.route.upstream or self.route.path
        )


class RefusedRoute(Refused):
    """A path that a dialect refuses, with a reason that is told in its shape."""

    def __init__(self, dialect: Dialect, reason: str) -> None:
        super().__init__(404, ErrorKind.UNSUPPORTED, reason)
        self.dialect = dialect


class Router:
    """All dialects' routes: what one serves is not refused for another, else they are tried in their order."""

    def __init__(self, dialects: Iterable[Dialect]) -> None:
        found = [(_pattern(route.path), dialect, route) for dialect in dialects for route in dialect.routes]
        self._routes = sorted(found, key=lambda each: bool(each[2].refused))

    def find(self, method: str, raw_path: str) -> Match:
        """Raises :class:`Refused`: with the route's own reason, 405 for another method, 404 for an unknown path."""
        segments = [unquote(segment) for segment in raw_path.split("/") if segment]
        if any(_BETWEEN in segment for segment in segments):
            raise Refused(404, ErrorKind.NOT_FOUND, _UNKNOWN)
        path = _BETWEEN.join(segments)
        methods = set()
        for pattern, dialect, route in self._routes:
            found = pattern.fullmatch(path)
            if found is None or any(".." in value for value in found.groupdict().values()):
                continue
            if route.method not in (method, "*"):
                methods.add(route.method)
            elif route.refused:
                raise RefusedRoute(dialect, route.refused)
            else:
                return Match(dialect, route, found.groupdict())
        if methods:
            raise Refused(405, ErrorKind.NOT_FOUND, f"Use {' or '.join(sorted(methods))} on this path.")
        raise Refused(404, ErrorKind.NOT_FOUND, _UNKNOWN)


def query_of(route: Route, query: Mapping[str, str]) -> dict[str, str]:
    """The parameters to pass on. Raises :class:`Refused` for those that the route does not have or that come twice."""
    passed: dict[str, str] = {}
    for name, value in query.items():
        if name not in route.query:
            known = ", ".join(sorted(route.query))
            raise Refused(
                400,
                ErrorKind.BAD_REQUEST,
                f"Query parameters accepted on this path: {known}."
                if known
                else "This path takes no query parameters.",
            )
        if name in passed or _QUERY_VALUE.fullmatch(value) is None:
            raise Refused(400, ErrorKind.BAD_REQUEST, f"The query parameter '{name}' is not one that is accepted.")
        passed[name] = value
    return passed


def _pattern(path: str) -> re.Pattern[str]:
    """A pattern for decoded segments with NUL between them, which no parameter matches."""
    parts = []
    for segment in path.strip("/").split("/"):
        if segment == _REST:
            parts.append(".*")
            continue
        pieces = _NAMED.split(segment)  # texts and names in turn
        parts.append(
            "".join(f"(?P<{piece}>{_PARAMETER})" if at % 2 else re.escape(piece) for at, piece in enumerate(pieces))
        )
    return re.compile(_BETWEEN.join(parts), re.ASCII | re.IGNORECASE | re.DOTALL)
