"""The config file: references, places of mistakes, routes, what is shown, and its schema."""

import json
from pathlib import Path

import pytest
import yaml

from cotguard.cli import main
from cotguard.config.errors import SettingsError
from cotguard.config.routes import RouteDocument, Routes
from cotguard.config.schema import SCHEMA_FILE, render
from cotguard.config.settings import SECTIONS, Settings
from cotguard.config.sources import Loaded, Sources
from cotguard.dialects.contract import Refused

WHOLE = """\
listen: 127.0.0.1:0
upstream: local
policy: balanced
hash_key: ${HASH_KEY}
upstreams:
  local: {servers: [http://127.0.0.1:8000, {url: http://127.0.0.1:8001, weight: 2}], concurrency: 8}
  hosted: {servers: [https://models.example.com/v1], key: "${file:KEYFILE}"}
routes:
  - {name: team, hosts: ["*.example.org"], headers: {X-Team: "blue*"}, upstream: hosted}
  - {models: ["gpt-*"], upstream: hosted, policy: strict}
  - {paths: ["/v1/messages*"], policy: secrets-only}
"""


def write(folder: Path, text: str) -> str:
    key = folder / "key"
    key.write_text("sk-secret\n")
    file = folder / "cotguard.yaml"
    file.write_text(text.replace("KEYFILE", str(key)))
    return str(file)


def loaded(folder: Path, text: str, **environment: str) -> Loaded:
    return Sources({}, environment, write(folder, text)).load()


def test_a_whole_file(tmp_path: Path) -> None:
    found = loaded(tmp_path, WHOLE, HASH_KEY="k" * 20)
    settings = found.settings
    assert list(settings.pools) == ["local", "hosted"]
    assert settings.pools["hosted"].key == "sk-secret"
    assert settings.pools["local"].idle_timeout == settings.idle_timeout
    assert settings.policies == ["balanced", "strict", "secrets-only"]
    assert found.files == (tmp_path / "cotguard.yaml", tmp_path / "key")
    assert found.origins["hash_key"] == f"{tmp_path}/cotguard.yaml:4"
    assert "sk-secret" not in repr(found)
    assert "kkkk" not in repr(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("upstream: http://x\nlsten: 1\n", "cotguard.yaml:2:1: lsten: no such setting; did you mean listen?"),
        ("upstream: http://x\nlisten: 8080\n", "cotguard.yaml:2:9: listen: Input should be a valid string"),
        (
            "upstream: http://x\nupstreams:\n  local:\n    servrs: []\n",
            'cotguard.yaml:4:5: upstreams.local.servrs: "servrs" is no key here; did you mean servers?',
        ),
        (
            "upstream: http://x\nupstreams:\n  local: {servers: [ftp://x]}\n",
            "3:21: upstreams.local.servers.0.url: write http",
        ),
        ("upstreams: {a: {servers: [http://x]}}\nroutes:\n  - {upstream: b}\n", "route 1: there is no upstream"),
        ("upstreams: {a: {servers: [http://x]}}\nroutes:\n  - {policy: strict}\n", "route 1: name its upstream"),
        ("upstream: b\nupstreams: {a: {servers: [http://x]}}\n", "there is no upstream of this name; write http"),
        ("upstream: http://x\nupstreams: {default: {servers: [http://y]}}\n", "give it another name"),
        ("upstream: http://x\nupstream: http://y\n", "cotguard.yaml:2:1: this key stands here a second time"),
        ("upstream: ${NOWHERE}\n", "cotguard.yaml:1:11: NOWHERE is not set in the environment; set it, or write"),
        ("upstream: ${file:/nowhere}\n", "cotguard.yaml:1:11: /nowhere cannot be read: No such file"),
        ("upstream: ${a b}\n", "cotguard.yaml:1:11: this is no reference; write ${NAME}"),
        ("upstream: http://x\nadmin_listen: 0.0.0.0:9090\n", "admin_listen: 0.0.0.0:9090 is open to other machines"),
        ("upstream: http://x\nadmin_token: short\n", "cotguard.yaml:2:14: admin_token: write at least 16"),
        ("upstream: http://x\naudit_stdout: true\n", "audit_key: set it where there is no audit_dir"),
        ("", "there is nothing in this file"),
        ("- a\n", "write settings as `name: value` lines"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        loaded(tmp_path, text)
    assert message in str(raised.value)


def test_all_mistakes_at_once_in_their_order(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        loaded(tmp_path, "idle_timeout: 0\nupstream: http://x\nmax_exchanges: many\npolcy: strict\n")
    lines = str(raised.value).splitlines()
    assert [line.split(":")[1] for line in lines] == ["1", "3", "4"]


def test_values_are_never_quoted(tmp_path: Path) -> None:
    text = "upstream: http://x\nupstream_key: sk-secret-word é\nhash_key: [sk-secret-word]\nseal_keys: sk-secret-word\n"
    with pytest.raises(SettingsError) as raised:
        loaded(tmp_path, text)
    assert len(str(raised.value).splitlines()) == 3
    assert "secret-word" not in str(raised.value)


def test_references(tmp_path: Path) -> None:
    text = 'upstream: "http://${HOST:-a}:${PORT}"\nhash_key: "$${PORT}${EMPTY}"\nmax_exchanges: ${MOST:-7}\n'
    settings = loaded(tmp_path, text, PORT="1", EMPTY="").settings
    assert (settings.upstream, settings.hash_key, settings.max_exchanges) == ("http://a:1", "${PORT}", 7)


ROUTES = Routes(
    (
        RouteDocument(name="team", hosts=("*.example.org",), headers={"X-Team": "blue*"}, upstream="a"),
        RouteDocument(models=("gpt-*",), upstream="b"),
        RouteDocument(paths=("/v1/messages*",), hosts=("*.example.org", "::1*", "[[]::1]")),
    ),
    "own",
)


@pytest.mark.parametrize(
    ("host", "path", "models", "headers", "route", "upstream"),
    [
        ("x.example.org:8080", "/v1/responses", {"m"}, {"x-team": "blue-1"}, "team", "a"),
        ("X.Example.ORG.", "/v1/responses", {"m"}, {"x-team": "blue"}, "team", "a"),
        ("x.example.org", "/v1/responses", {"m"}, {"x-team": "red"}, "default", "own"),
        ("y", "/v1/responses", {"gpt-5"}, {}, "route-2", "b"),
        ("y", "/v1/responses", {"gpt-5", "other"}, {}, "default", "own"),
        ("y", "/v1/models", set(), {}, "default", "own"),
        ("[::1]:8080", "/v1/messages/count_tokens", set(), {}, "route-3", "own"),
    ],
)
def test_the_first_route_that_fits(
    host: str, path: str, models: set[str], headers: dict[str, str], route: str, upstream: str
) -> None:
    found = ROUTES.find(host, path, models, headers)
    assert (found.name, found.upstream) == (route, upstream)


def test_without_a_default_what_fits_nowhere_is_refused() -> None:
    with pytest.raises(Refused) as raised:
        Routes((RouteDocument(models=("a",), upstream="x"),), "").find("h", "/v1/responses", {"b"}, {})
    assert raised.value.status == 404


def test_what_is_shown_can_be_loaded_and_masks_secrets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = WHOLE.replace("${HASH_KEY}", "k" * 20)
    path = write(tmp_path, text)
    assert main(["config", "show", "--config", path, "--policy", "strict"]) == 0
    shown = capsys.readouterr().out
    assert "policy: strict  # --policy" in shown
    assert f"upstream: local  # {path}:2" in shown
    assert "idle_timeout: 300  # default" in shown
    assert "sk-secret" not in shown
    assert "kkkk" not in shown
    again = yaml.safe_load(shown)
    assert again.pop("hash_key") == "***"
    assert again["upstreams"]["hosted"]["key"] == "***"
    settings = loaded(tmp_path, yaml.safe_dump(again)).settings
    assert settings.pools["local"] == loaded(tmp_path, text).settings.pools["local"]
    assert settings.routes == loaded(tmp_path, text).settings.routes


def test_the_schema_is_current_and_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert SCHEMA_FILE.read_text() == render()
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"].keys() == Settings.model_fields.keys()


def test_every_group_tells_its_settings() -> None:
    names = [name for section in SECTIONS for name in section.model_fields]
    assert sorted([*names, "routes", "upstreams"]) == sorted(Settings.model_fields)
    assert all(section.subject for section in SECTIONS)
    assert all(field.description for field in Settings.model_fields.values())


def test_check_reads_all_that_a_config_file_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write(tmp_path, "upstream: http://x\npolicy: strict\n")
    assert main(["check", "balanced", "--config", good]) == 0
    assert "upstreams: default; policies: strict" in capsys.readouterr().out
    bad = write(tmp_path, "upstream: http://x\nroutes: [{policy: strct}]\n")
    assert main(["check", "--config", bad]) == 2
    assert "did you mean strict?" in capsys.readouterr().err
    assert main(["check"]) == 2
