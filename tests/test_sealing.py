"""Seals: what is sealed opens again, for whom and with what it was sealed, and nothing else does."""

import base64
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotguard.config.errors import SettingsError
from cotguard.config.settings import Settings
from cotguard.config.sources import load_settings
from cotguard.gateway.sealing import key_ring
from cotguard.sealing.keyring import KeyRing, Unsealable
from cotguard.sealing.seals import MARK, Seals, is_token

KEY = b"k" * 32
SEALS = Seals(KeyRing({"a": KEY}), "caller", lambda _model: "https://models.example", 1_000_000, 3600)
ORIGINAL = {"thinking": "Her mail is ann.lee@example.com.", "signature": "c2lnbmF0dXJl"}
ISSUED = "Her mail is [EMAIL_ADDRESS]."
ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=. \n"


def opened(token: str, seals: Seals = SEALS, kind: str = "k", model: str = "m", issued: str = ISSUED) -> dict[str, Any]:
    return seals.open(kind, token, model, issued)


def sealed(original: Mapping[str, Any] = ORIGINAL, seals: Seals = SEALS) -> str:
    return seals.seal("k", original, "m", ISSUED)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.text(), st.text())
def test_what_is_sealed_opens_again(original: dict[str, Any], issued: str, model: str) -> None:
    token = SEALS.seal("k", original, model, issued)
    assert SEALS.open("k", token, model, issued) == original
    assert is_token(token)
    assert len(token) % 4 == 0
    assert base64.urlsafe_b64decode(token)


@given(st.text(st.characters()), st.text(st.characters()))
def test_text_in_any_encoding_opens_again(text: str, issued: str) -> None:
    def joined(value: str) -> str:
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")

    token = SEALS.seal("k", {"thinking": text}, "m", issued)
    assert joined(SEALS.open("k", token, "m", joined(issued))["thinking"]) == joined(text)


def test_a_text_that_is_not_changed_is_not_in_the_token() -> None:
    text = secrets.token_hex(20_000)
    assert len(SEALS.seal("k", {"thinking": text, "signature": "s"}, "m", text)) < 200
    assert len(SEALS.seal("k", {"thinking": text, "signature": "s"}, "m", "")) > 20_000


def test_every_character_of_a_token_counts() -> None:
    token = sealed().encode()
    for at in range(len(token)):
        for each in ALPHABET:
            if each != token[at]:
                spoiled = (token[:at] + bytes([each]) + token[at + 1 :]).decode()
                assert is_token(spoiled)
                with pytest.raises(Unsealable) as caught:
                    opened(spoiled)
                assert not caught.value.expired
    for cut in range(len(MARK), len(token)):
        for spoiled in (token[:cut].decode(), token[-cut:].decode(), (token + token[:cut]).decode()):
            assert is_token(spoiled)
            with pytest.raises(Unsealable):
                opened(spoiled)


@given(st.text(st.sampled_from(ALPHABET.decode())))
def test_nothing_made_up_opens(text: str) -> None:
    for each in (MARK + text, text + MARK, MARK + text + MARK, MARK):
        with pytest.raises(Unsealable):
            opened(each)


def test_every_bound_thing_counts() -> None:
    token = sealed()
    assert opened(token) == ORIGINAL
    other = {
        "caller": replace(SEALS, caller="another"),
        "upstream": replace(SEALS, upstream=lambda _model: "https://other.example"),
        "key": replace(SEALS, keys=KeyRing({"a": b"o" * 32})),
        "key's name": replace(SEALS, keys=KeyRing({"b": KEY})),
    }
    for seals in other.values():
        with pytest.raises(Unsealable, match="not valid"):
            opened(token, seals)
    for changed in ({"kind": "l"}, {"model": "n"}, {"issued": ISSUED + " "}):
        with pytest.raises(Unsealable, match="not valid"):
            opened(token, **changed)  # type: ignore[arg-type]


def test_a_seal_expires_and_only_its_owner_learns_it() -> None:
    token = sealed()
    late = replace(SEALS, now=SEALS.now + 3601)
    assert opened(token, replace(SEALS, now=SEALS.now + 3600)) == ORIGINAL
    with pytest.raises(Unsealable) as caught:
        opened(token, late)
    assert caught.value.expired
    with pytest.raises(Unsealable) as caught:
        opened(token, replace(late, caller="another"))
    assert not caught.value.expired


def test_keys_are_rotated() -> None:
    token = sealed()
    rotated = replace(SEALS, keys=KeyRing({"b": b"n" * 32, "a": KEY}))
    assert opened(token, rotated) == ORIGINAL
    with pytest.raises(Unsealable):
        opened(sealed(seals=rotated))
    with pytest.raises(Unsealable):
        opened(token, replace(SEALS, keys=KeyRing({"b": b"n" * 32})))


def test_seals_of_the_same_thing_differ_and_show_nothing() -> None:
    tokens = {sealed() for _ in range(100)}
    assert len({token[20:-8] for token in tokens}) == 100
    for token in tokens:
        data = base64.urlsafe_b64decode(token)
        assert b"ann.lee" not in data
    assert "signature" not in repr(SEALS)
    assert "kkkk" not in repr(SEALS)


SOME = "A" * 43 + "="


@pytest.mark.parametrize(
    "text", ["", "a", "a:", "a:AAAA", f"a:{'A' * 42}", f"a b:{SOME}", f":{SOME}", f"a:{SOME},a:{SOME}", f"a:{SOME},"]
)
def test_keys_that_are_none_are_refused_and_not_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"write NAME:KEY|same name") as caught:
        KeyRing.parse(text)
    assert "AAAA" not in str(caught.value)


def test_keys_are_settings() -> None:
    keys = f"a:{base64.b64encode(KEY).decode()},b:{base64.urlsafe_b64encode(bytes(range(224, 256))).decode()}"
    settings = load_settings({}, {"COTGUARD_UPSTREAM": "http://x", "COTGUARD_SEAL_KEYS": keys}, None)
    ring = key_ring(settings)
    assert ring is not None
    assert opened(sealed(), replace(SEALS, keys=ring)) == ORIGINAL
    assert base64.b64encode(KEY).decode() not in repr(settings)
    for name, value in {"SEAL_KEYS": "a:secret", "SEAL_STORE": "http://secret"}.items():
        with pytest.raises(SettingsError, match=r"write") as caught:
            load_settings({}, {"COTGUARD_UPSTREAM": "http://x", f"COTGUARD_{name}": value}, None)
        assert "secret" not in str(caught.value)
    off = load_settings({"seal": "off"}, {"COTGUARD_UPSTREAM": "http://x"}, None)
    assert key_ring(off) is None


def test_without_keys_a_random_one_seals() -> None:
    settings = Settings(upstream="http://x")
    first, second = key_ring(settings), key_ring(settings)
    assert first is not None
    assert second is not None
    token = sealed(seals=replace(SEALS, keys=first))
    with pytest.raises(Unsealable):
        opened(token, replace(SEALS, keys=second))
