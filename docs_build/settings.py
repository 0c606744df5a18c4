"""The reference of settings, from their models."""

from cotguard.config.schema import schema
from cotguard.config.sections import Section
from cotguard.config.settings import SECTIONS, is_secret, needs_restart
from cotguard.config.sources import variable
from docs_build.tables import keys, table, takes, text

__all__ = ["reference", "routes", "upstreams"]

_HEADS = ("setting", "flag, variable", "takes", "default", "", "a change")


def reference() -> str:
    """Every setting that is a flag, by subject."""
    return "\n".join(f"### {_title(section.subject)}\n\n{_table(section)}" for section in SECTIONS)


def _title(subject: str) -> str:
    return subject[:1].upper() + subject[1:]


def _table(section: type[Section]) -> str:
    whole = schema()
    return table(
        _HEADS,
        (
            (
                f"`{name}`",
                f"`--{name.replace('_', '-')}`<br>`{variable(name)}`",
                takes(value, whole) + (", secret" if is_secret(name) else ""),
                _default(value["default"]),
                text(value),
                "needs a restart" if needs_restart(name) else "at once",
            )
            for name in section.model_fields
            for value in (whole["properties"][name],)
        ),
    )


def _default(value: object) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value != "" else ""


def upstreams() -> str:
    """The keys of an upstream, and of what is in it."""
    parts = {
        "An upstream": "PoolDocument",
        "A server": "ServerDocument",
        "`health`": "HealthDocument",
        "`breaker`": "BreakerDocument",
        "`tls`": "TlsDocument",
    }
    return "\n".join(f"**{title}**\n\n{keys(schema(), name)}" for title, name in parts.items())


def routes() -> str:
    """The keys of a route."""
    return keys(schema(), "RouteDocument")
