"""Routes: which requests go to which upstream, under which policy.

The first route that fits decides; one that names nothing fits every request. Where none fits, the request goes to the
gateway's own ``upstream``, and is refused where there is none. A caller's role may name a policy: it goes before the
route's, and that before the gateway's.
"""

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cotguard.dialects.contract import ErrorKind, Refused

__all__ = ["RouteDocument", "Routes"]

_Glob = Annotated[str, Field(min_length=1, max_length=256)]
_Globs = Annotated[tuple[_Glob, ...], Field(min_length=1)]

_NO_ROUTE = "No route of this gateway fits the request."


class RouteDocument(BaseModel):
    """One route. What it names must all fit; in globs ``*`` stands for any text, slashes included."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9][a-z0-9-]{0,63}$",
            description="Name, as the audit trail and traces show it.",
            examples=["support"],
        ),
    ] = ""
    hosts: Annotated[
        _Globs | None,
        Field(description="Host header, without the port, in lower case.", examples=[["llm.example.com"]]),
    ] = None
    paths: Annotated[
        _Globs | None,
        Field(description="Path, as `cotguard dialects` spells it.", examples=[["/v1/messages*"]]),
    ] = None
    models: Annotated[
        _Globs | None,
        Field(
            description="Model. All that a request names must fit; one that names none fits no such route.",
            examples=[["gpt-*"]],
        ),
    ] = None
    headers: Annotated[
        Mapping[str, _Glob],
        Field(description="Headers that must be there, by name.", examples=[{"x-team": "blue*"}]),
    ] = {}
    upstream: Annotated[
        str, Field(description="One of the upstreams; the gateway's own when left out.", examples=["local"])
    ] = ""
    policy: Annotated[
        str,
        Field(
            max_length=1024,
            description="A ready policy's name or a policy file; the gateway's own when left out.",
            examples=["strict"],
        ),
    ] = ""

    @field_validator("headers")
    @classmethod
    def _lower(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        return {name.lower(): glob for name, glob in value.items()}

    def fits(self, host: str, path: str, models: Collection[str], headers: Mapping[str, str]) -> bool:
        """Whether a request is this route's; names of ``headers`` are in lower case."""
        return (
            (self.hosts is None or _any(self.hosts, host))
            and (self.paths is None or _any(self.paths, path))
            and (self.models is None or (bool(models) and all(_any(self.models, model) for model in models)))
            and all(fnmatchcase(headers.get(name, ""), glob) for name, glob in self.headers.items())
        )


class Routes:
    """All routes, in order; ``default`` is the upstream's name where they name none, empty if there is none."""

    def __init__(self, documents: Collection[RouteDocument], default: str) -> None:
        named = (
            route.model_copy(update={"name": route.name or f"route-{number}", "upstream": route.upstream or default})
            for number, route in enumerate(documents, start=1)
        )
        self._routes = (*named, *([RouteDocument(name="default", upstream=default)] if default else []))

    def find(self, host: str, path: str, models: Collection[str], headers: Mapping[str, str]) -> RouteDocument:
        """The route of a request. Raises :class:`Refused`."""
        host = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        host = host.lower().rstrip(".")
        for route in self._routes:
            if route.fits(host, path, models, headers):
                return route
        raise Refused(404, ErrorKind.NOT_FOUND, _NO_ROUTE)


def _any(globs: Collection[str], text: str) -> bool:
    return any(fnmatchcase(text, glob) for glob in globs)
