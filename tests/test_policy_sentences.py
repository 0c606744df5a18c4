"""A policy in sentences: everything in it is told, known values are only counted."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotguard.cli import main
from cotguard.policy import (
    Links,
    Media,
    Mode,
    OnError,
    Policy,
    RequestTexts,
    load,
    parse,
    ready_policies,
    rule_sentence,
    sentences,
)
from cotguard.policy.compiled import compile_policy
from cotguard.policy.document import EVERYTHING, PolicyDocument
from cotguard.spans import INBOUND, Action, ChannelKind
from cotguard.taxonomy import ENTITIES, GROUPS

RULES = st.fixed_dictionaries(
    {
        "entities": st.lists(st.sampled_from([EVERYTHING, *GROUPS, *sorted(ENTITIES)]), min_size=1, max_size=4),
        "action": st.sampled_from(Action),
    },
    optional={
        "channels": st.lists(st.sampled_from(ChannelKind), min_size=1, max_size=4),
        "min_score": st.floats(0, 1),
        "unless_origin": st.lists(st.sampled_from(sorted(INBOUND)), min_size=1, max_size=3),
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {"version": st.just(1), "name": st.just("t"), "rules": st.lists(RULES, max_size=4)},
    optional={
        "mode": st.sampled_from(Mode),
        "on_error": st.sampled_from(OnError),
        "on_audit_error": st.sampled_from(OnError),
        "classifier": st.booleans(),
        "notice": st.text(st.characters(exclude_characters="ŵ"), min_size=1, max_size=20),
        "links": st.sampled_from(Links),
        "request": st.fixed_dictionaries(
            {}, optional={"texts": st.sampled_from(RequestTexts), "media": st.sampled_from(Media)}
        ),
        "default": st.sampled_from(Action),
    },
)
KNOWN = st.lists(st.text("ŵ0123456789", min_size=3, max_size=9).map("ŵ{}ŵ".format), max_size=5, unique=True)
DONE = {
    Action.ALLOW: r"\bpass\b",
    Action.FLAG: "counted",
    Action.MASK: "masked",
    Action.PSEUDONYMIZE: "pseudonymized",
    Action.HASH: "hashed",
    Action.REDACT: "redacted",
    Action.WITHHOLD: "withheld",
    Action.BLOCK: "end the exchange",
}


def policy_of(document: dict[str, Any], known: list[str]) -> Policy:
    values = {"known_values": {"values": known}} if known else {}
    return compile_policy(PolicyDocument.model_validate({**document, **values}), tuple(known))


def check_rule(told: str, rule: dict[str, Any], policy: Policy) -> None:
    words = set(rule["entities"])
    for word in {EVERYTHING} if EVERYTHING in words else words:
        assert re.search(rf"\b{word}\b", told)
    channels = set(rule.get("channels", ChannelKind))
    for channel in channels if channels != set(ChannelKind) else {"every channel"}:
        assert re.search(rf"\b{channel}\b", told)
    if rule.get("min_score"):
        assert f"at least {rule['min_score']}" in told
    for origin in rule.get("unless_origin", ()):
        assert re.search(rf"unless .*\b{origin}\b.* texts", told)
    check_action(told, rule["action"], policy)


def check_action(told: str, action: Action, policy: Policy) -> None:
    assert re.search(DONE[action], told)
    shadow = policy.mode is Mode.SHADOW
    assert ("would" in told) == (shadow and action not in {Action.ALLOW, Action.FLAG})
    if action is Action.WITHHOLD and not shadow:
        assert f'"{policy.notice}"' in told
    if shadow:
        assert told.endswith("sees them as they stand.")


@settings(max_examples=60)
@given(DOCUMENTS, KNOWN)
def test_every_field_is_told_in_its_place(document: dict[str, Any], known: list[str]) -> None:
    policy = policy_of(document, known)
    told = sentences(policy)
    rules = document["rules"]
    mode, *of_rules = told[: 1 + len(rules)]
    default, texts, models, media, values, fault, unrecorded, classifier, notice, links = told[1 + len(rules) :]
    assert mode.endswith(f"({policy.mode}).")
    for index, (sentence, rule) in enumerate(zip(of_rules, rules, strict=True)):
        assert sentence == f"Rule {index + 1}: {rule_sentence(policy, index)}"
        check_rule(sentence, rule, policy)
    assert default == rule_sentence(policy, -1)
    check_action(default, policy.default, policy)
    assert f"({policy.request.texts})" in texts
    assert "do not read" in models
    assert f"({policy.request.media})." in media
    assert re.match(rf"{len(known)} known value" if known else "There are no known values", values)
    assert f"({policy.on_error})." in fault
    assert f"({policy.on_audit_error})." in unrecorded
    assert ("not used" in classifier) is not policy.uses_classifier
    assert f'"{policy.notice}"' in notice
    assert f"({policy.links})." in links
    assert "ŵ" not in "".join(told)  # which every known value has


def test_what_a_reader_sees_depends_on_who_reads() -> None:
    rules = (
        "  - {entities: [PERSON], action: pseudonymize}\n"
        "  - {entities: [CANARY], channels: [user], action: redact}\n"
        "  - {entities: [SECRET], channels: [user, system], action: pseudonymize}\n"
    )
    policy = parse(f"version: 1\nname: t\nrequest: {{texts: moderate, classifier: true}}\nrules:\n{rules}", "t", None)
    told = sentences(policy)
    assert "[PERSON_XXXXX]" in told[1]
    assert "[PERSON_1]" in told[1]
    assert "the model sees the name of each, such as [CANARY]" in told[2]
    assert "[SECRET_API_KEY_1]" in told[3]
    assert "XXXXX" not in told[3]
    assert "read requests too" in told[6]


@pytest.mark.parametrize("name", ready_policies())
def test_ready_policies_are_told_by_the_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--explain", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{name}: ok (")
    assert [line.removeprefix("  ") for line in lines[1:]] == sentences(load(name))


def test_values_of_a_file_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "names.txt").write_text("Project Bluebird\nProject Wren\n")
    policy = tmp_path / "t.yaml"
    policy.write_text(
        "version: 1\nname: t\nrules: [{entities: [ALL], action: mask}]\n"
        "known_values: {file: names.txt, values: [Harbour Light]}\n"
    )
    assert main(["check", "--explain", str(policy)]) == 0
    out = capsys.readouterr().out
    assert "3 known values" in out
    assert not any(word in out for word in ("Bluebird", "Wren", "Harbour", "names.txt"))
    assert main(["check", str(policy)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
