"""Which rule decides, and what a policy says about itself."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cotguard.policy import Mode, OnError, Policy, PolicyError, parse
from cotguard.policy.compiled import idle_rules
from cotguard.policy.document import PolicyDocument
from cotguard.spans import Action, ChannelKind
from cotguard.taxonomy import ENTITIES, GROUPS

REASONING, OUTPUT = ChannelKind.REASONING, ChannelKind.OUTPUT


def policy(rules: Sequence[dict[str, Any]], **more: Any) -> Policy:
    document = {"version": 1, "name": "x", "rules": list(rules), **more}
    return parse(json.dumps(document), "p.json", None)


def test_the_first_rule_that_fits_decides() -> None:
    ours = policy(
        [
            {"entities": ["SECRET_OTP"], "action": "allow"},
            {"entities": ["SECRET"], "channels": ["reasoning"], "action": "withhold"},
            {"entities": ["SECRET", "PERSON"], "action": "redact"},
            {"entities": ["ALL"], "channels": ["tool_call"], "action": "mask"},
        ],
        default="flag",
    )
    assert ours.decide("SECRET_OTP", REASONING, 1) is Action.ALLOW
    assert ours.decide("SECRET_API_KEY", REASONING, 1) is Action.WITHHOLD
    assert ours.decide("SECRET_API_KEY", OUTPUT, 1) is Action.REDACT
    assert ours.decide("SECRET", OUTPUT, 1) is Action.REDACT
    assert ours.decide("PERSON", ChannelKind.TOOL_CALL, 1) is Action.REDACT
    assert ours.decide("AGE", ChannelKind.TOOL_CALL, 1) is Action.MASK
    assert ours.decide("AGE", OUTPUT, 1) is Action.FLAG


def test_a_score_below_goes_to_the_next_rule() -> None:
    ours = policy(
        [
            {"entities": ["HAZARD"], "min_score": 0.9, "action": "block"},
            {"entities": ["HAZARD"], "min_score": 0.5, "action": "withhold"},
        ]
    )
    decided = [ours.decide("HATE", REASONING, score) for score in (1, 0.9, 0.89, 0.5, 0.49, 0)]
    assert decided == ["block", "block", "withhold", "withhold", "allow", "allow"]


def test_a_score_that_is_no_number_meets_the_first_rule() -> None:
    ours = policy([{"entities": ["PERSON"], "min_score": 0.9, "action": "redact"}])
    assert ours.decide("PERSON", OUTPUT, math.nan) is Action.REDACT


def test_entities_of_other_makers_fall_to_rules_for_all_and_the_default() -> None:
    ours = policy(
        [
            {"entities": sorted(ENTITIES), "channels": ["reasoning"], "action": "block"},
            {"entities": ["ALL"], "channels": ["reasoning"], "action": "mask"},
        ]
    )
    assert ours.decide("ACME_TICKET", REASONING, 0.1) is Action.MASK
    assert ours.decide("ACME_TICKET", OUTPUT, 0.1) is Action.ALLOW
    assert ours.acts("ACME_TICKET")
    assert not policy([{"entities": ["PII"], "action": "mask"}]).acts("ACME_TICKET")
    assert policy([], default="redact").acts("ACME_TICKET")


def test_a_rule_leaves_values_of_its_origins_to_the_next_rules() -> None:
    ours = policy(
        [
            {"entities": ["PERSON"], "unless_origin": ["user", "system"], "min_score": 0.3, "action": "redact"},
            {"entities": ["PERSON"], "unless_origin": ["tool_result"], "action": "mask"},
            {"entities": ["PERSON"], "action": "flag"},
        ]
    )
    user, system, tool = (frozenset({kind}) for kind in (ChannelKind.USER, ChannelKind.SYSTEM, ChannelKind.TOOL_RESULT))
    assert ours.decide("PERSON", OUTPUT, 0.5) is Action.REDACT
    assert ours.decide("PERSON", OUTPUT, 0.5, tool) is Action.REDACT
    assert ours.decide("PERSON", OUTPUT, 0.2) is Action.MASK
    assert ours.decide("PERSON", OUTPUT, 0.5, user) is Action.MASK
    assert ours.decide("PERSON", OUTPUT, 0.5, system | tool) is Action.FLAG
    assert ours.decide("PERSON", OUTPUT, 0.2, tool) is Action.FLAG
    assert ours.needs_origins("PERSON", OUTPUT)
    assert not ours.needs_origins("URL", OUTPUT)
    assert not ours.needs_origins("ACME_TICKET", OUTPUT)


def test_a_rule_is_idle_only_if_every_place_and_score_is_taken() -> None:
    first = {"entities": ["PERSON"], "channels": ["output"], "min_score": 0.5, "action": "redact"}
    policy([first, {**first, "min_score": 0.4}])
    policy([first, {**first, "channels": ["output", "other"]}])
    policy([first, {**first, "entities": ["PII"]}])
    for idle in (first, {**first, "min_score": 0.6}):
        with pytest.raises(PolicyError, match="never decides"):
            policy([first, idle])


def test_known_values_are_fine_where_the_default_acts_on_them() -> None:
    assert policy([], default="flag", known_values={"values": ["abc "]}).known_values == ("abc",)


def test_defaults() -> None:
    ours = policy([])
    assert (ours.mode, ours.on_error, ours.notice) == (Mode.ENFORCE, OnError.CLOSED, "[withheld]")
    assert (ours.uses_classifier, ours.known_values) == (True, ())
    assert ours.acts_on == frozenset()
    assert ours.decide("SECRET", REASONING, 1) is Action.ALLOW


def test_texts_are_texts_as_in_yaml_1_2() -> None:
    text = "version: 1\nname: x\nrules: []\ndefault: mask\nknown_values: {values: [12:30:45, 2024-01-31, 0x1F, yes]}\n"
    assert parse(text, "p.yaml", None).known_values == ("12:30:45", "2024-01-31", "0x1F", "yes")


class TestDigest:
    RULES: Sequence[dict[str, Any]] = ({"entities": ["PROMPT", "URL"], "action": "mask"},)

    def test_names_the_content(self) -> None:
        ours = policy(self.RULES)
        assert len(ours.digest) == 16
        assert int(ours.digest, 16) >= 0
        assert ours.digest == policy(self.RULES, description="Ours.", default="allow", notice="[withheld]").digest

    @pytest.mark.parametrize(
        "change",
        [
            {"name": "y"},
            {"mode": "shadow"},
            {"on_error": "open"},
            {"classifier": False},
            {"notice": "gone"},
            {"default": "flag"},
            {"known_values": {"values": ["Project Bluebird"]}},
            {"rules": [{"entities": ["PROMPT", "URL"], "action": "mask", "min_score": 0.1}]},
        ],
    )
    def test_every_change_shows(self, change: dict[str, Any]) -> None:
        document = {"version": 1, "name": "x", "rules": list(self.RULES), **change}
        assert parse(json.dumps(document), "p.json", None).digest != policy(self.RULES).digest


def test_a_policy_shows_no_known_value_and_cannot_be_changed() -> None:
    ours = policy([], default="flag", known_values={"values": ["Bluebird"]})
    assert "Bluebird" not in repr(ours)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ours.notice = "x"  # type: ignore[misc]  # what is tested


# -- the table against a naive reading of the same rules --

WORDS = ["ALL", *GROUPS, "SECRET_OTP", "PERSON", "URL", "HATE"]
SCORES = [0.0, 0.3, 0.5, 0.7, 1.0]

rules = st.lists(
    st.fixed_dictionaries(
        {
            "entities": st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
            "action": st.sampled_from([action.value for action in Action]),
        },
        optional={
            "channels": st.lists(st.sampled_from([kind.value for kind in ChannelKind]), min_size=1, max_size=4),
            "min_score": st.sampled_from(SCORES),
            "unless_origin": st.sampled_from([["user"], ["system"], ["user", "system"]]),
        },
    ),
    max_size=5,
)


ORIGINS = [
    frozenset(kinds) for kinds in ([], [ChannelKind.USER], [ChannelKind.SYSTEM], [ChannelKind.USER, ChannelKind.SYSTEM])
]


def naive(
    rules: list[dict[str, Any]], default: str, entity: str, kind: ChannelKind, score: float, origins: frozenset[str]
) -> str:
    for rule in rules:
        named = any(word in ("ALL", entity) or entity in GROUPS.get(word, ()) for word in rule["entities"])
        left_alone = not origins.isdisjoint(rule.get("unless_origin", ()))
        placed = kind in rule.get("channels", list(ChannelKind)) and not left_alone
        if named and placed and score >= rule.get("min_score", 0):
            return str(rule["action"])
    return default


@given(rules, st.sampled_from([action.value for action in Action]))
def test_the_table_says_what_the_rules_say(rules: list[dict[str, Any]], default: str) -> None:
    try:
        ours = policy(rules, default=default)
    except PolicyError as error:
        assume("never decides" not in str(error))
        raise
    entities = ["SECRET", "SECRET_OTP", "PERSON", "URL", "HATE", "US_SSN", "KNOWN_VALUE", "ACME_TICKET"]
    for entity in entities:
        acting = set()
        for kind in ChannelKind:
            for score in (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 1.0):
                actions = set()
                for origins in ORIGINS:
                    expected = naive(rules, default, entity, kind, score, origins)
                    assert ours.decide(entity, kind, score, origins) == expected
                    actions.add(expected)
                assert ours.may_act(entity, [kind], score) == (actions != {"allow"})
                assert ours.needs_origins(entity, kind) or len(actions) == 1
                if actions != {"allow"}:
                    acting.add(kind)
        assert ours.acts(entity) == bool(acting)
        if entity in ENTITIES:
            assert (entity in ours.acts_on) == bool(acting)
            assert {kind for kind in ChannelKind if entity in ours.entities_for(kind)} == acting


@given(rules)
def test_without_its_idle_rules_a_policy_decides_the_same(rules: list[dict[str, Any]]) -> None:
    idle = idle_rules(PolicyDocument.model_validate({"version": 1, "name": "x", "rules": rules}))
    left = [rule for index, rule in enumerate(rules) if index not in idle]
    for entity in ("SECRET_OTP", "PERSON", "HATE", "US_SSN", "ACME_TICKET"):
        for kind in ChannelKind:
            for score in (0.0, 0.3, 0.6, 1.0):
                for origins in ORIGINS:
                    place = "allow", entity, kind, score, origins
                    assert naive(left, *place) == naive(rules, *place)
