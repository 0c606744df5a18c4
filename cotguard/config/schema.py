"""The JSON Schema of config files, for editors and other tools.

``python -m cotguard.config.schema`` writes it anew; it is derived from the models and must not be edited. The schema
knows shapes and words; which settings go together, it cannot say.
"""

from pathlib import Path
from typing import Any

from cotguard.config.settings import Settings
from cotguard.json_schema import schema_of, text_of

__all__ = ["SCHEMA_FILE", "render", "schema"]

SCHEMA_FILE = Path(__file__).with_name("schema.json")


def schema() -> dict[str, Any]:
    """The schema (JSON Schema, draft 2020-12)."""
    return schema_of(
        Settings,
        title="cotguard configuration",
        description="Settings of `cotguard serve`. Texts may hold ${NAME}, ${NAME:-default} and ${file:PATH}.",
    )


def render() -> str:
    """The text of ``schema.json``."""
    return text_of(schema())


if __name__ == "__main__":
    SCHEMA_FILE.write_text(render())
