"""Validation errors in words: where, what is wrong, what to write instead.

A mistake is told once: a key that is missing because it is misspelt is reported as misspelt, and a list of bad entries
is not called empty too.
"""

from collections.abc import Collection, Mapping, Sequence

import yaml
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from cotguard.policy.document import KnownValuesDocument, PolicyDocument, RequestDocument, RuleDocument
from cotguard.policy.errors import PolicyError, Problem, closest, quoted
from cotguard.policy.source import Path, Source

__all__ = ["explain"]

_MODELS: Mapping[str, type[BaseModel]] = {
    "rules": RuleDocument,
    "known_values": KnownValuesDocument,
    "request": RequestDocument,
}

_EXPECTED = {
    "bool_type": "true or false",
    "finite_number": "a number from 0 to 1",
    "float_type": "a number from 0 to 1",
    "greater_than_equal": "a number from 0 to 1",
    "less_than_equal": "a number from 0 to 1",
    "model_type": "a mapping of keys to values",
    "string_pattern_mismatch": "lower-case letters, digits and dashes, at most 64",
    "string_too_long": "at most {max_length} characters long",
    "string_too_short": "a text that is not empty",
    "string_type": "a text",
    "too_short": "a list with at least one entry",
    "tuple_type": "a list",
}


def explain(errors: Sequence[ErrorDetails], source: Source) -> PolicyError:
    """The error for what pydantic found in ``source``."""
    misspelt = {(*error["loc"][:-1], *_meant(error["loc"])) for error in errors if error["type"] == "extra_forbidden"}
    return PolicyError([_problem(error, source) for error in errors if not _repeats(error, misspelt)])


def _repeats(error: ErrorDetails, misspelt: Collection[Path]) -> bool:
    if error["type"] == "missing":
        return error["loc"] in misspelt
    # pydantic counts only the good entries of a list.
    return error["type"] == "too_short" and bool(error["input"])


def _problem(error: ErrorDetails, source: Source) -> Problem:
    path = error["loc"]
    model, field = _place(path)
    context = error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        # What stands here by mistake may be a known value.
        name = "this" if path[0] == "known_values" else quoted(path[-1])
        meant = _meant(path)
        hint = f'did you mean "{meant[0]}"?' if meant else f"the keys here are: {', '.join(model.model_fields)}"
        return source.problem(path, f"{name} is no key of a policy here", hint, at_key=True)
    if error["type"] == "missing":
        return source.problem(path[:-1], f'the key "{field}" is missing', _example(model, field))
    if "hint" in context:
        return source.problem(path, error["msg"], context["hint"])
    subject = f'"{field}"' if path and path[-1] == field else f'an entry of "{field}"'
    if not path:
        subject = "a policy"
    expected = _EXPECTED[error["type"]].format(**context)
    return source.problem(path, f"{subject} must be {expected}", _hint(error, model, field))


def _hint(error: ErrorDetails, model: type[BaseModel], field: str) -> str:
    if error["type"] == "string_type" and isinstance(error["input"], (int, float)):
        return "put it in quotes"
    if error["type"] == "string_too_long":
        return "shorten it"
    return _example(model, field)


def _place(path: Path) -> tuple[type[BaseModel], str]:
    """The model that owns the last key of ``path``, and that key."""
    words = [step for step in path if isinstance(step, str)]
    if len(words) > 1:
        return _MODELS[words[0]], words[-1]
    return PolicyDocument, words[0] if words else "rules"


def _meant(path: Path) -> list[str]:
    """The key that was probably meant by an unknown key; at most one."""
    model, field = _place(path)
    return closest(field, model.model_fields)[:1]


def _example(model: type[BaseModel], field: str) -> str:
    examples = model.model_fields[field].examples or [""]
    flow = yaml.safe_dump([examples[0]], default_flow_style=True, width=1000).strip()
    return f'write for example "{field}: {flow[1:-1]}"'
