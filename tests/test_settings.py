"""Settings: which source wins, and errors that say what to write."""

from pathlib import Path

import pytest

from cotguard.config.errors import SettingsError
from cotguard.config.sources import load_settings

UPSTREAM = {"upstream": "http://127.0.0.1:8000"}


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    config = tmp_path / "cotguard.yaml"
    config.write_text("upstream: http://file:1\npolicy: strict\nkeep-alive-after: 7\n", encoding="utf-8")
    environment = {"COTGUARD_POLICY": "observe", "COTGUARD_UPSTREAM": "http://environment:1"}
    settings = load_settings({"upstream": "http://flag:1", "policy": None}, environment, str(config))
    assert (settings.upstream, settings.policy, settings.keep_alive_after) == ("http://flag:1", "observe", 7)


def test_the_api_path_may_be_part_of_the_upstream() -> None:
    assert load_settings({"upstream": "https://models.example.com/x/v1/"}, {}, None).upstream == (
        "https://models.example.com/x"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "upstream: missing; write --upstream VALUE or set COTGUARD_UPSTREAM"),
        ({"upstream": "127.0.0.1:8000"}, "upstream: write it as http://HOST:PORT or https://HOST/PREFIX"),
        (UPSTREAM | {"listen": "8080"}, "listen: write it as HOST:PORT, for example 127.0.0.1:8080"),
        (UPSTREAM | {"idle_timeout": "0"}, "idle_timeout: Input should be greater than 0"),
        (UPSTREAM | {"guard_url": "127.0.0.1:8000"}, "guard_url: write it as http://HOST:PORT or https://HOST/PREFIX"),
        (
            UPSTREAM | {"guard_format": "lama-guard"},
            "guard_format: lama-guard: no such format; write a file or one of: "
            "granite-guardian, llama-guard, qwen3guard, shieldgemma",
        ),
        (UPSTREAM | {"polcy": "strict"}, "polcy: no such setting; did you mean policy?"),
    ],
)
def test_errors_say_what_to_write(flags: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(flags, {}, None)
    assert str(raised.value) == message


def test_a_guard_is_in_use_when_it_has_an_address() -> None:
    assert load_settings(UPSTREAM | {"guard_format": "qwen3guard"}, {}, None).guard == ""
    environment = {"COTGUARD_GUARD_URL": "http://guard:8000/v1", "COTGUARD_GUARD_API_KEY": "sk-4711"}
    settings = load_settings(UPSTREAM, environment, None)
    assert (settings.guard, settings.guard_url, settings.guard_api_key) == (
        "llama-guard",
        "http://guard:8000",
        "sk-4711",
    )
    assert "sk-4711" not in repr(settings)


@pytest.mark.parametrize(("text", "message"), [("- a\n", "as `name: value` lines"), ("a: [", "cotguard.yaml")])
def test_a_bad_file(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "cotguard.yaml"
    config.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=message):
        load_settings({}, {}, str(config))
    with pytest.raises(SettingsError, match="nowhere"):
        load_settings({}, {"COTGUARD_CONFIG": str(tmp_path / "nowhere.yaml")}, None)
