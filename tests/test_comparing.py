"""A draft beside the policy in force: the same results as a moderator has under either, and nothing left behind."""

import json
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from log_kit import lines
from test_trial import metrics

from cotguard import policy as policy_package
from cotguard.config.settings import Settings
from cotguard.console import comparing
from cotguard.console.checking import checked
from cotguard.console.comparing import compared
from cotguard.console.traces import Sample, samples
from cotguard.detectors.patterns import PatternDetector
from cotguard.gateway.app import Gateway
from cotguard.gateway.moderations import OWN
from cotguard.gateway.trial import counted
from cotguard.moderator import ModeratedExchange, Moderator
from cotguard.policy import PolicyError, load, sentences
from cotguard.telemetry.metrics import Metrics

READY = Path(policy_package.__file__).parent / "ready"
DRAFT = "version: 1\nname: draft\nclassifier: false\n"
KEY = "AKIAIOSFODNN7EXAMPLE"
TRACES = {each.title: each for each in samples()}
CLEAN = ("Ordinary prose", "Nothing to find", "Names and addresses", "Dangerous content")
"""Samples in which patterns find nothing."""


@cache
def gateway(policy: str) -> Gateway:
    settings = Settings.model_validate({"upstream": "http://127.0.0.1:1", "policy": policy, "bundle": "none"})
    return Gateway(settings, metrics=Metrics())


@cache
def moderator(policy: str) -> Moderator:
    return Moderator(policy, bundle="none")


def text_of(policy: str) -> str:
    return (READY / f"{policy}.yaml").read_text()


async def beside(active: str, draft: str, **about: Any) -> dict[str, Any]:
    answer = await compared(gateway(active), {"policy": active, "draft": draft, **about})
    assert json.loads(json.dumps(answer)) == answer
    return answer


def alone(policy: str, sample: Sample) -> tuple[dict[str, str], ModeratedExchange]:
    """What a moderator lets out of a sample's answer."""
    exchange = moderator(policy).exchange(sample.request)
    pieces = [piece for kind, text in sample.response for piece in exchange.feed(kind, text)]
    written = dict.fromkeys((kind.value for kind, _ in sample.response), "")
    for piece in (*pieces, *exchange.finish()):
        written[piece.channel] += piece.text
    return written, exchange


@pytest.mark.parametrize(("active", "draft"), [("patterns-only", "secrets-only"), ("contextual", "patterns-only")])
async def test_both_sides_are_what_a_moderator_has(active: str, draft: str) -> None:
    answer = await beside(active, text_of(draft), samples=True)
    rows = iter(answer["rows"])
    totals: dict[str, Counter[Any]] = {"active": Counter(), "draft": Counter()}
    for sample in samples():
        expected = {"active": alone(active, sample), "draft": alone(draft, sample)}
        for side, (_, exchange) in expected.items():
            totals[side] += Counter(exchange.verdicts)
        for kind, _ in sample.response:
            row = next(rows)
            assert (row["label"], row["channel"]) == (sample.title, kind)
            for side, (written, exchange) in expected.items():
                assert (row[side]["delivered"], row[side]["blocked"]) == (written[kind], exchange.blocked)
                assert row[side]["fault"] == ""
            assert row["same"] <= (row["active"]["delivered"] == row["draft"]["delivered"])
    assert next(rows, None) is None
    assert answer["totals"] == {side: counted(tally) for side, tally in totals.items()}


async def test_spans_are_those_of_the_raw_text() -> None:
    texts = [
        {"channel": "reasoning", "text": f"The key is {KEY} and she is ann.lee@example.com , they say."},
        {"channel": "tool_call", "text": '{"to": "ann.lee\\u0040example.com"}'},
    ]
    answer = await beside("patterns-only", text_of("secrets-only"), texts=texts)
    prose, call = answer["rows"]
    assert (prose["label"], call["label"], call["raw"]) == ("text 1", "text 2", '{"to": "ann.lee@example.com"}')
    assert call["active"]["delivered"] == '{"to": "[EMAIL_ADDRESS]"}'
    found = [(prose["raw"][each["start"] : each["end"]], each["entity"]) for each in prose["active"]["spans"]]
    assert found == [(KEY, "SECRET_API_KEY"), ("ann.lee@example.com", "EMAIL_ADDRESS")]
    (key,) = prose["draft"]["spans"]
    assert (key["action"], key["outcome"], key["rule"]) == ("redact", "redacted", 0)
    assert key["rule_text"].startswith("Values of SECRET (a group of 9 entities), CANARY or KNOWN_VALUE")
    (address,) = call["active"]["spans"]
    assert call["raw"][address["start"] : address["end"]] == "ann.lee@example.com"
    assert (prose["same"], call["same"]) == (False, False)


async def test_the_same_policy_is_the_same_everywhere() -> None:
    """Labels and hashes too, whose keys are those of both sides."""
    draft = DRAFT + "rules:\n  - {entities: [EMAIL_ADDRESS], action: pseudonymize}\n"
    texts = [{"channel": "output", "text": "mail ann.lee@example.com now"}]
    answer = await beside("patterns-only", text_of("patterns-only"), samples=True, texts=texts)
    assert all(row["same"] for row in answer["rows"])
    (row,) = (await beside("patterns-only", draft, texts=texts))["rows"]
    assert row["draft"]["delivered"].startswith("mail [EMAIL_ADDRESS_")
    assert row["same"] is False


async def test_blocks_withheld_texts_and_requests_are_told() -> None:
    draft = DRAFT + (
        "request: {texts: moderate}\nrules:\n"
        "  - {entities: [SECRET_PRIVATE_KEY], action: block}\n"
        "  - {entities: [SECRET], channels: [reasoning], action: withhold}\n"
        "  - {entities: [EMAIL_ADDRESS], channels: [user], action: block}\n"
        "  - {entities: [EMAIL_ADDRESS, IBAN_CODE], channels: [system, tool_result], action: redact}\n"
    )
    rows = (await beside("patterns-only", draft, samples=True))["rows"]
    by_place = {(row["label"], row["channel"]): row["draft"] for row in rows}
    assert by_place["A private key in a tool call", "tool_call"]["blocked"]
    assert not by_place["Credentials in the reasoning", "reasoning"]["blocked"]
    assert "[withheld]" in by_place["Credentials in the reasoning", "reasoning"]["delivered"]
    assert by_place["Values in disguise", "system"]["delivered"].startswith(
        "The account of the customer is [IBAN_CODE]"
    )
    whose = [by_place["The user's own data and another's", kind] for kind in ("user", "tool_result", "output")]
    assert all(side["blocked"] and side["delivered"] == "" for side in whose)
    assert [row["channel"] for row in rows if row["label"] == "Ordinary prose"] == ["reasoning", "output"]


class _Failing:
    def advance(self, text: str, final: bool) -> None:
        raise RuntimeError(text)


async def test_a_fault_is_told_and_says_nothing_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PatternDetector, "open", lambda *_: _Failing())
    texts = [{"channel": "output", "text": f"it is {KEY} now"}]
    answer = await beside("secrets-only", text_of("secrets-only"), texts=texts)
    (row,) = answer["rows"]
    assert row["active"] == {"delivered": "", "spans": [], "blocked": False, "fault": "moderating failed"}
    assert answer["totals"]["draft"] == [["", "output", "block", "failed_closed", 1]]


async def test_nothing_is_left_of_it(caplog: pytest.LogCaptureFixture) -> None:
    made = gateway("patterns-only")
    before = metrics(made)
    with caplog.at_level("DEBUG"):
        await beside("patterns-only", text_of("secrets-only"), samples=True)
    assert metrics(made) == before
    assert not made.active.moderations[OWN].findings._memory
    assert KEY not in lines(caplog)


async def test_a_draft_reads_no_files() -> None:
    draft = DRAFT + "rules: [{entities: [KNOWN_VALUE], action: mask}]\nknown_values:\n  file: /etc/hostname\n"
    with pytest.raises(PolicyError, match="draft:6:9: a draft reads no other file"):
        await beside("patterns-only", draft, samples=True)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, "texts: write some"),
        ({"texts": [], "samples": False}, "texts: write some"),
        ({"texts": "sk-quoted"}, "texts: write a list"),
        ({"texts": [{"channel": "output", "text": "a"}] * (comparing.MAX_TEXTS + 1)}, "texts: write a list of at most"),
        ({"texts": ["sk-quoted"]}, "texts: text 1: write its text"),
        ({"texts": [{"channel": "sk-quoted", "text": "a"}]}, "texts: text 1: write its text"),
        ({"texts": [{"channel": ["output"], "text": "a"}]}, "texts: text 1: write its text"),
        ({"texts": [{"channel": "output", "text": "a" * (comparing.MAX_CHARS + 1)}]}, "texts: write at most"),
    ],
)
async def test_what_cannot_be_compared_is_told(about: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        await beside("secrets-only", text_of("secrets-only"), **about)
    assert "sk-quoted" not in str(raised.value)


def test_samples_hold_what_they_say() -> None:
    assert len(TRACES) >= 12
    for sample in samples():
        _, exchange = alone("patterns-only", sample)
        found = {verdict.entity for verdict in exchange.verdicts}
        assert found >= set(sample.finds), sample.title
        assert bool(found) == bool(sample.finds) == (sample.title not in CLEAN), sample.title


def test_ready_policies_differ_on_the_samples() -> None:
    def differs(one: str, other: str) -> set[str]:
        return {sample.title for sample in samples() if alone(one, sample)[0] != alone(other, sample)[0]}

    personal = {title for title in TRACES if title.startswith("Personal data from")}
    secret = {"Credentials in the reasoning", "A private key in a tool call"}
    assert personal | {"The system prompt, recalled"} <= differs("patterns-only", "secrets-only")
    assert not secret & differs("patterns-only", "secrets-only")
    assert secret - {"A private key in a tool call"} <= differs("strict", "balanced")
    assert "The user's own data and another's" in differs("contextual", "patterns-only")
    assert differs("observe", "balanced") == set(TRACES) - set(CLEAN)
    for policy in ("observe", "balanced", "strict"):
        for title in CLEAN:
            written, _ = alone(policy, TRACES[title])
            assert list(written.values()) == [text for _, text in TRACES[title].response]


async def test_a_draft_is_checked() -> None:
    made = gateway("secrets-only")
    good = await checked(made, {"policy": "secrets-only", "draft": text_of("strict")})
    strict = load("strict")
    assert good == {"problems": [], "sentences": sentences(strict), "name": "strict", "digest": strict.digest}
    bad = await checked(made, {"policy": "secrets-only", "draft": DRAFT + "rules: [{entities: [SECRETS]}]\nmood: x\n"})
    assert [(each["line"], each["column"]) for each in bad["problems"]] == [(4, 9), (4, 21), (5, 1)]
    assert all(each["reason"] and each["hint"] for each in bad["problems"])
    assert (bad["sentences"], bad["name"], bad["digest"]) == ([], "", "")
    with pytest.raises(ValueError, match="policy: none of this name"):
        await checked(made, {"policy": "none", "draft": DRAFT})
