"""The callers file and the settings around it: what is refused, and what is said about it."""

from pathlib import Path

import pytest
from callers_kit import callers_file

from cotguard.callers.caller import Reasoning, Scope, models_of
from cotguard.callers.denied import Denied, Reason
from cotguard.callers.document import CallersError, KeyScope, load_callers
from cotguard.config.errors import SettingsError
from cotguard.config.sources import load_settings
from cotguard.spans import ChannelKind

OIDC = "oidc: {issuer: https://login.example.com, audience: cotguard, roles: {staff: reader}}\n"
UPSTREAM = {"upstream": "http://127.0.0.1:8000"}


def write(folder: Path, text: str) -> str:
    path = folder / "callers.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_with_everything(tmp_path: Path) -> None:
    text = (
        "roles:\n  reader: {}\n  batch:\n    routes: [/v1/chat/*]\n    models: [gpt-4o-mini, 'llama-*']\n"
        "    dialects: [chat_completions]\n    policy: strict\n    requests_per_minute: 60\n    concurrency: 4\n"
        "    tokens_per_day: 100000\n    reasoning: hidden\n"
    )
    document = load_callers(write(tmp_path, text + OIDC))
    assert document.policies == ["strict"]
    assert document.roles["reader"].scope() == Scope()
    scope = document.roles["batch"].scope()
    assert scope == Scope(
        (("/v1/chat/*",),),
        (("gpt-4o-mini", "llama-*"),),
        (("chat_completions",),),
        "strict",
        60,
        4,
        100_000,
        Reasoning.HIDDEN,
    )
    assert scope.hidden == {ChannelKind.REASONING}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'there is nothing in this file; write for example "roles: '),
        ("roles: {reader: {model: [m]}}", ':1:18: "model" is no key here; did you mean "models"?'),
        ("rolls: {reader: {}}", ':1:1: "rolls" is no key here; did you mean "roles"?'),
        ("roles: {reader: {models: m}}", ":1:26: Input should be a valid tuple; write for example"),
        ("roles: {reader: {models: []}}", ":1:26: Tuple should have at least 1 item"),
        ("roles: {reader: {concurrency: 0}}", ":1:31: Input should be greater than or equal to 1"),
        ("roles: {reader: {concurrency: true}}", ":1:31: Input should be a valid integer"),
        ("roles: {reader: {reasoning: no}}", "Input should be 'visible' or 'hidden'"),
        ("roles: {reader: {dialects: [chat]}}", ":1:28: chat: no such dialect; write some of: chat_completions"),
        ("roles: {Reader: {}}", ":1:9: this is no role's name; write lower-case letters, digits and dashes"),
        ("roles: {}", "at least 1 item"),
        ("roles: {reader: {}}\nroles: {reader: {}}", ":2:1: this key stands here a second time"),
        ("roles: {a: &x {}, b: *x}", "anchors and aliases are not used here"),
        ("roles: {reader: {}}\noidc: {audience: a, roles: {s: reader}}", ':2:7: the key "issuer" is missing'),
        ("roles: {other: {}}\n" + OIDC, 'there is no role "reader"; name one of: other'),
        (
            "roles: {reader: {}}\n" + OIDC.replace("https", "http"),
            ":2:16: keys that are fetched without TLS can be anybody's; write https://HOST/PATH",
        ),
        ("roles: {reader: {}}\n" + OIDC.replace("}}", "}, algorithms: [HS256]}"), "Input should be 'RS256'"),
        ("roles: {reader: {}}\n" + OIDC.replace("}}", "}, algorithms: [none]}"), "Input should be 'RS256'"),
        ("roles: {reader: {}}\n" + OIDC.replace("}}", "}, audiences: b}"), 'did you mean "audience"?'),
    ],
)
def test_errors_say_where_and_what_to_write(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(CallersError) as raised:
        load_callers(path)
    assert all(line.startswith(path) for line in str(raised.value).splitlines())
    assert message in str(raised.value)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(CallersError) as raised:
        load_callers(write(tmp_path, "roles:\n  a: {concurrency: 0}\n  b: {modles: [m]}\n"))
    assert len(str(raised.value).splitlines()) == 2


def test_a_key_narrows_its_role_and_never_widens_it() -> None:
    role = Scope(models=(("llama-*",),), policy="strict", requests_per_minute=60, concurrency=2)
    key = KeyScope.model_validate({"models": ["*-mini"], "requests_per_minute": 100, "tokens_per_day": 5})
    both = role.narrowed(key.scope())
    assert (both.requests_per_minute, both.concurrency, both.tokens_per_day, both.policy) == (60, 2, 5, "strict")
    both.check_models(["llama-mini"])
    for name in ("llama-big", "gpt-mini", ""):
        with pytest.raises(Denied):
            both.check_models(["llama-mini", name])
    hidden = Scope(reasoning=Reasoning.HIDDEN)
    assert hidden.narrowed(Scope()).hidden == Scope().narrowed(hidden).hidden == {ChannelKind.REASONING}


def test_routes_and_dialects() -> None:
    scope = Scope(routes=(("/v1/chat/*", "/v1/models"),), dialects=(("chat_*",),))
    scope.check_route("/v1/chat/completions", "chat_completions")
    for path, dialect, reason in (
        ("/v1/messages", "chat_completions", Reason.ROUTE),
        ("/V1/models", "chat_completions", Reason.ROUTE),
        ("/v1/models", "anthropic", Reason.DIALECT),
    ):
        with pytest.raises(Denied) as raised:
            scope.check_route(path, dialect)
        assert raised.value.reason is reason


@pytest.mark.parametrize(
    ("parameters", "document", "named"),
    [
        ({}, {"model": "a"}, {"a"}),
        ({"model": "a", "project": "p"}, {}, {"a"}),
        ({"deployment": "a"}, {"model": "b"}, {"a", "b"}),
        ({}, {"model": "a", "models": ["b", 1], "fallbacks": [{"model": "c"}, "d"]}, {"a", "b", "c", "d"}),
        ({}, {"model": "a", "tools": [{"type": "advisor", "model": "b"}, {"type": "function"}]}, {"a", "b"}),
        ({}, {"model": ["a"], "models": "b", "tools": None}, set()),
    ],
)
def test_every_model_that_a_request_names(
    parameters: dict[str, str], document: dict[str, object], named: set[str]
) -> None:
    assert models_of(parameters, document) == named


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "192.168.0.5:8080", "gateway:8080"])
def test_an_address_that_others_reach_needs_authentication(tmp_path: Path, listen: str) -> None:
    flags = UPSTREAM | {"listen": listen}
    with pytest.raises(SettingsError, match=r"(?s)open to other machines.*allow_anonymous: true"):
        load_settings(flags, {}, None)
    assert load_settings(flags | {"allow_anonymous": "true"}, {}, None).listen == listen
    roles = callers_file(tmp_path, {"reader": {}})
    settings = load_settings(flags | {"keys": "keys.db", "callers_file": roles}, {}, None)
    assert settings.authenticates


@pytest.mark.parametrize("listen", ["127.0.0.1:8080", "[::1]:8080", "localhost:8080", "127.8.9.1:1"])
def test_a_loopback_address_needs_none(listen: str) -> None:
    assert not load_settings(UPSTREAM | {"listen": listen}, {}, None).authenticates


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"keys": "keys.db"}, "keys: name the roles of keys too, in callers_file"),
        ({"callers_file": "nowhere.yaml"}, "nowhere.yaml: No such file or directory; name a callers file"),
        ({"limits_url": "http://127.0.0.1"}, "limits_url: write it as redis"),
        ({"upstream_key": "sk 4711"}, "upstream_key: this cannot stand in a header"),
        ({"upstream_key_header": "x:y"}, "upstream_key_header: this cannot stand in a header"),
    ],
)
def test_settings_that_do_not_go_together(flags: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(UPSTREAM | flags, {}, None)
    assert message in str(raised.value)
    assert "4711" not in str(raised.value)


def test_roles_that_nobody_has(tmp_path: Path) -> None:
    roles = callers_file(tmp_path, {"reader": {}})
    with pytest.raises(SettingsError, match="callers_file: its roles are nobody's"):
        load_settings(UPSTREAM | {"callers_file": roles}, {}, None)


def test_secrets_are_in_no_repr() -> None:
    secrets = {"upstream_key": "sk-4711", "limits_url": "redis://:hunter2@127.0.0.1"}
    shown = repr(load_settings(UPSTREAM | secrets, {}, None))
    assert "4711" not in shown
    assert "hunter2" not in shown
