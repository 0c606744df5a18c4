"""Routes: how paths are matched, what goes upstream, and that no dialect hides another's."""

import re

import pytest

from cotguard.dialects.catalogue import dialects
from cotguard.dialects.contract import Refused, Route
from cotguard.dialects.routes import Router, query_of

ROUTER = Router(dialects())
SHARED = {("GET", "/v1/models")}
"""Whom a path is for that several dialects have: the first one's."""


def found(method: str, path: str) -> tuple[str, str, str]:
    match = ROUTER.find(method, path)
    return match.dialect.name, match.route.action, match.upstream


@pytest.mark.parametrize(
    ("path", "name", "upstream"),
    [
        ("/v1/chat/completions", "chat_completions", "/v1/chat/completions"),
        ("/chat/completions", "chat_completions", "/v1/chat/completions"),
        ("//V1//Chat/completions/", "chat_completions", "/v1/chat/completions"),
        ("/v1/chat%2Fcompletions", None, None),
        ("/v1/chat/c%6Fmpletions", "chat_completions", "/v1/chat/completions"),
        ("/v1/chat/%63ompletions%00", None, None),
        ("/v1/./chat/completions", None, None),
        ("/v1/x/../chat/completions", None, None),
        (
            "/openai/deployments/gpt-5/chat/completions",
            "chat_completions",
            "/openai/deployments/gpt-5/chat/completions",
        ),
        ("/openai/deployments/../chat/completions", None, None),
        ("/openai/deployments/a%2F..%2Fb/chat/completions", None, None),
        ("/openai/deployments/a%3Fb/chat/completions", None, None),
        ("/v1beta/models/gemini-3:generateContent", "gemini", "/v1beta/models/gemini-3:generateContent"),
        ("/v1beta/models/gemini-3%3AgenerateContent", "gemini", "/v1beta/models/gemini-3:generateContent"),
        ("/model/us.anthropic.claude-4%3A0/converse", "bedrock", "/model/us.anthropic.claude-4%3A0/converse"),
        (
            "/model/arn%3Aaws%3Abedrock%3A%3A1%3Ax%2Fy/converse",
            "bedrock",
            "/model/arn%3Aaws%3Abedrock%3A%3A1%3Ax%2Fy/converse",
        ),
        ("/v1/conversations", "mistral_conversations", "/v1/conversations"),
        ("/v1/embeddings", None, None),
    ],
)
def test_a_path_is_for_one_dialect(path: str, name: str | None, upstream: str | None) -> None:
    if name is None:
        with pytest.raises(Refused):
            ROUTER.find("POST", path)
    else:
        match = ROUTER.find("POST", path)
        assert (match.dialect.name, match.upstream) == (name, upstream)


@pytest.mark.parametrize(
    ("dialect", "route"),
    [
        pytest.param(dialect.name, route, id=f"{dialect.name} {route.method} {route.path}")
        for dialect in dialects()
        for route in dialect.routes
        if not route.refused
    ],
)
def test_no_dialect_hides_another(dialect: str, route: Route) -> None:
    if (route.method, route.path) in SHARED:
        return
    path = re.sub(r"\{\w+\}", "x1", route.path)
    assert found(route.method, path)[:2] == (dialect, route.action)


def test_a_refused_path_has_a_reason() -> None:
    for dialect in dialects():
        for route in dialect.routes:
            if route.refused:
                path = re.sub(r"\{\w+\}", "x1", route.path).replace("**", "y/z")
                method = "DELETE" if route.method == "*" else route.method
                with pytest.raises(Refused) as refused:
                    ROUTER.find(method, path)
                assert refused.value.status in (404, 405)
                assert len(refused.value.message) > 20


def test_query_parameters_are_an_allow_list() -> None:
    route = next(route for route in dialects()[0].routes if route.query)
    assert query_of(route, {"api-version": "2026-01-01"}) == {"api-version": "2026-01-01"}
    for query in ({"x": "1"}, {"api-version": "a b"}, {"api-version": "a&b=c"}, {"api-version": "é"}):
        with pytest.raises(Refused):
            query_of(route, query)
