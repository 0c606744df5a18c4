"""The JSON Schema of policy files, for editors and other tools.

``python -m cotguard.policy.schema`` writes it anew; it is derived from the models and must not be edited. The schema
knows shapes and words; that every rule decides something, and that known values are long enough, it cannot say.
"""

from pathlib import Path
from typing import Any

from cotguard.json_schema import schema_of, text_of
from cotguard.policy.document import PolicyDocument

__all__ = ["SCHEMA_FILE", "render", "schema"]

SCHEMA_FILE = Path(__file__).with_name("schema.json")


def schema() -> dict[str, Any]:
    """The schema (JSON Schema, draft 2020-12)."""
    return schema_of(PolicyDocument, title="cotguard policy")


def render() -> str:
    """The text of ``schema.json``."""
    return text_of(schema())


if __name__ == "__main__":
    SCHEMA_FILE.write_text(render())
