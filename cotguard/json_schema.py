"""JSON Schemas (draft 2020-12) of the files that people write, derived from their models."""

import json
from typing import Any

from pydantic import BaseModel

__all__ = ["schema_of", "text_of"]


def schema_of(model: type[BaseModel], **told: str) -> dict[str, Any]:
    """The schema of ``model``; ``told`` is its title, and its description if it has one."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema(), **told}


def text_of(schema: dict[str, Any]) -> str:
    """The text of a schema's file."""
    return json.dumps(schema, indent=2) + "\n"
