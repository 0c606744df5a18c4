"""What may stand in the section ``upstreams``."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError
from upstreams_kit import certified

from cotguard.upstreams.document import PoolDocument, PoolName


def pool(**document: object) -> PoolDocument:
    return PoolDocument.model_validate({"servers": ["http://a:8000"], **document})


@pytest.mark.parametrize(
    ("url", "base", "label"),
    [
        ("http://a:8000", "http://a:8000", "a:8000"),
        ("http://A.Example/v1/", "http://A.Example", "a.example"),
        ("https://a/openai/v1", "https://a/openai", "a"),
        ("http://[::1]:8000", "http://[::1]:8000", "[::1]:8000"),
        ("unix:///run/vllm.sock", "http://localhost", "unix:/run/vllm.sock"),
        ("unix:///run/vllm.sock:/openai/v1", "http://localhost/openai", "unix:/run/vllm.sock"),
    ],
)
def test_servers(url: str, base: str, label: str) -> None:
    (server,) = pool(servers=[{"url": url, "weight": 2}]).servers
    assert (server.base, server.label, server.weight) == (base, label, 2)
    assert pool(servers=[url]).servers[0].weight == 1


@pytest.mark.parametrize(
    "url",
    [
        "a:8000",
        "ftp://a",
        "http://",
        "http://a:port",
        "http://a:0",
        "http://a:70000",
        "http://user:secret@a",
        "http://@a",
        "http://a/?q=1",
        "http://a/#f",
        "http://a b",
        "http://a\r\nHost: b",
        "unix://run/vllm.sock",
        "unix:///run/vllm.sock?x",
        "unix://",
        "",
    ],
)
def test_what_is_no_server(url: str) -> None:
    with pytest.raises(ValidationError, match=r"write http://HOST:PORT, https://HOST/PREFIX, unix:///PATH/OF/SOCKET"):
        pool(servers=[url])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"servers": []}, "name one at least: http://HOST:PORT"),
        ({"servers": ["http://a", "http://A/prefix"]}, "a is named twice; give it a weight instead"),
        ({"servers": [{"url": "http://a", "weight": 0}]}, "greater than or equal to 1"),
        ({"servers": [{"url": "http://a", "height": 1}]}, "Extra inputs"),
        ({"retries": 3}, "less than or equal to 2"),
        ({"concurrency": 0}, "greater than or equal to 1"),
        ({"connect_timeout": 0}, "greater than 0"),
        ({"idle_timeout": float("inf")}, "finite number"),
        ({"health": {"path": "health"}}, "should match pattern"),
        ({"health": {"path": "/health\r\nx: y"}}, "should match pattern"),
        ({"breaker": {"failures": 0}}, "greater than or equal to 1"),
        ({"key": "two words"}, "this cannot stand in a header"),
        ({"key_header": "x:y"}, "this cannot stand in a header"),
        ({"fast": True}, "Extra inputs"),
    ],
)
def test_what_is_no_pool(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        pool(**wrong)


def test_names_of_pools() -> None:
    names = TypeAdapter(PoolName)
    for right in ("default", "gpu-0", "0"):
        assert names.validate_python(right) == right
    for wrong in ("", "-a", "A", "a_b", "a" * 65, "a\n"):
        with pytest.raises(ValidationError):
            names.validate_python(wrong)


def test_files_of_tls_are_checked_when_they_are_named(tmp_path: Path) -> None:
    ours, others = certified(tmp_path, "ours"), certified(tmp_path, "others")
    secure = ["https://a"]
    assert pool(servers=secure, tls={"ca": ours.ca, "cert": ours.cert, "key": ours.key}).tls
    for tls, told in (
        ({"ca": str(tmp_path / "no.pem")}, "no.pem: No such file or directory; write paths of PEM files"),
        ({"ca": __file__}, "write paths of PEM files that fit together"),
        ({"cert": ours.cert, "key": others.key}, "write paths of PEM files that fit together"),
        ({"key": ours.key}, "key: name its certificate too, in cert"),
    ):
        with pytest.raises(ValidationError, match=told):
            pool(servers=secure, tls=tls)
    with pytest.raises(ValidationError, match="certificates are of use with https:// only"):
        pool(tls={"ca": ours.ca})


def test_a_key_is_not_shown() -> None:
    assert "hush" not in repr(pool(key="hush"))


def test_settings_hold_where_the_pool_says_nothing() -> None:
    document = pool(idle_timeout=7).inheriting(idle_timeout=30.0, first_byte_timeout=20.0)
    assert (document.idle_timeout, document.first_byte_timeout, document.connect_timeout) == (7, 20, 10)


def test_a_certificate_that_was_rotated_is_another_connection(tmp_path: Path) -> None:
    ours = certified(tmp_path, "ours")
    document = pool(servers=["https://a"], tls={"ca": ours.ca, "cert": ours.cert, "key": ours.key})
    before = document.connecting()
    assert document.connecting() == before
    certified(tmp_path, "ours")
    assert document.connecting() != before
    Path(ours.ca).unlink()
    with pytest.raises(FileNotFoundError):
        document.connecting()


def test_every_key_is_described() -> None:
    schema = PoolDocument.model_json_schema()
    for model in (schema, *schema["$defs"].values()):
        assert all("description" in field for field in model["properties"].values()), model["title"]
