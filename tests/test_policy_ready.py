"""The policies and the schema that come with cotguard."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cotguard.policy import Media, Mode, OnError, Policy, RequestTexts, load, ready_policies
from cotguard.policy.schema import SCHEMA_FILE, render
from cotguard.spans import Action, ChannelKind
from cotguard.taxonomy import ENTITIES, GROUPS

NAMES = ["balanced", "contextual", "egress", "observe", "patterns-only", "secrets-only", "strict"]
MODEL_KINDS = {
    ChannelKind.REASONING,
    ChannelKind.OUTPUT,
    ChannelKind.TOOL_CALL,
    ChannelKind.REFUSAL,
    ChannelKind.OTHER,
}
ROOT = Path(__file__).resolve().parents[1]
READY = ROOT / "cotguard" / "policy" / "ready"


def decisions(policy: Policy) -> dict[tuple[str, ChannelKind, float], Action]:
    return {
        (entity, kind, score / 10): policy.decide(entity, kind, score / 10)
        for entity in (*ENTITIES, "ACME_TICKET")
        for kind in ChannelKind
        for score in range(11)
    }


def test_all_are_there_and_called_what_their_files_are_called() -> None:
    assert ready_policies() == NAMES
    assert [load(name).name for name in NAMES] == NAMES
    assert len({load(name).digest for name in NAMES}) == len(NAMES)


def test_they_are_found_at_the_top_of_the_repository_too() -> None:
    assert (ROOT / "policies").resolve() == READY


@pytest.mark.parametrize("name", NAMES)
def test_each_says_to_people_when_to_choose_it_what_it_does_and_what_it_costs(name: str) -> None:
    head = (READY / f"{name}.yaml").read_text().split("\nversion: 1\n")[0]
    assert head.startswith(f"# {name}: ")
    for word in ("# Choose it ", "# It does ", "# It costs "):
        assert head.count(word) == 1


@pytest.mark.parametrize("name", NAMES)
def test_enforcing_policies_fail_closed(name: str) -> None:
    policy = load(name)
    observing = name == "observe"
    assert policy.mode is (Mode.SHADOW if observing else Mode.ENFORCE)
    assert policy.on_error is (OnError.OPEN if observing else OnError.CLOSED)


def test_the_classifier_is_used_where_its_entities_are_wanted() -> None:
    used = [name for name in NAMES if load(name).uses_classifier]
    assert used == ["balanced", "contextual", "egress", "observe", "strict"]


@pytest.mark.parametrize("name", ["observe", "patterns-only"])
def test_variants_of_balanced_decide_as_balanced_does(name: str) -> None:
    assert decisions(load(name)) == decisions(load("balanced"))


@pytest.mark.parametrize("name", NAMES)
def test_credentials_and_known_values_never_pass_in_any_channel(name: str) -> None:
    policy = load(name)
    for entity in (*GROUPS["SECRET"], "KNOWN_VALUE", "CANARY"):
        for kind in ChannelKind:
            assert policy.decide(entity, kind, 0.01).rewrites


def test_balanced_redacts_what_identifies_and_lets_general_facts_pass() -> None:
    policy = load("balanced")
    for entity in [
        *("EMAIL_ADDRESS", "PHONE_NUMBER", "DATE_OF_BIRTH", "SYSTEM_PROMPT", "MEDICAL_ID", "MEDICAL_LICENSE", "US_NPI"),
        *(entity for group in ("SECRET", "FINANCIAL", "GOVERNMENT", "NETWORK", "ASSET") for entity in GROUPS[group]),
    ]:
        for kind in ChannelKind:
            assert policy.decide(entity, kind, 0.01) is Action.REDACT
    allowed = {"AGE", "LOCATION", "MEDICAL_CONDITION", "NRP", "ORGANIZATION", "URL"}
    assert policy.acts_on == ENTITIES - allowed
    last = (READY / "balanced.yaml").read_text().split("# Left over, and allowed: ")[1].split(".")[0]
    assert set(last.split(", ")) == allowed
    for hazard in GROUPS["HAZARD"]:
        assert policy.decide(hazard, ChannelKind.OUTPUT, 1) is Action.FLAG


def test_contextual_is_nowhere_milder_than_balanced_but_for_the_users_own() -> None:
    policy = load("contextual")
    ours, balanced = decisions(policy), decisions(load("balanced"))
    mild = {place for place, action in ours.items() if action.severity < balanced[place].severity}
    assert not mild
    assert policy.acts_on == load("balanced").acts_on
    always = {"SYSTEM_PROMPT", "CANARY", "KNOWN_VALUE", "SECRET_OTP"}
    for entity in policy.acts_on - {*GROUPS["HAZARD"], *GROUPS["TOOL"]}:
        for kind in ChannelKind:
            own = policy.decide(entity, kind, 1, frozenset({ChannelKind.USER}))
            assert own is (Action.REDACT if entity in always else Action.ALLOW)
            assert policy.decide(entity, kind, 0.01, frozenset({ChannelKind.TOOL_RESULT})) is Action.REDACT


def test_strict_is_nowhere_milder_than_balanced_and_acts_on_everything() -> None:
    strict, balanced = decisions(load("strict")), decisions(load("balanced"))
    assert not [place for place, action in strict.items() if action.severity < balanced[place].severity]
    assert load("strict").acts_on == ENTITIES
    assert load("strict").acts("ACME_TICKET")
    assert load("strict").decide("SECRET_API_KEY", ChannelKind.REASONING, 0.1) is Action.WITHHOLD


def test_egress_hides_from_the_model_what_balanced_redacts_and_redacts_it_in_what_the_model_writes() -> None:
    egress, balanced = load("egress"), load("balanced")
    assert (egress.request.texts, egress.request.media) == (RequestTexts.MODERATE, Media.REFUSE)
    assert egress.pseudonymizes
    for entity in ENTITIES:
        rewritten = balanced.decide(entity, ChannelKind.REASONING, 0.01).rewrites
        for kind in MODEL_KINDS:
            assert (egress.decide(entity, kind, 0.01) is Action.REDACT) is rewritten
        for kind in set(ChannelKind) - MODEL_KINDS:
            hidden = rewritten and entity != "SYSTEM_PROMPT"
            assert (egress.decide(entity, kind, 0.01) is Action.PSEUDONYMIZE) is hidden
    assert egress.acts_on == balanced.acts_on


def test_secrets_only_acts_on_nothing_else() -> None:
    assert load("secrets-only").acts_on == {*GROUPS["SECRET"], "CANARY", "KNOWN_VALUE"}


def test_the_shipped_schema_is_that_of_the_models() -> None:
    assert SCHEMA_FILE.read_text() == render(), "run: python -m cotguard.policy.schema"


def test_the_schema_knows_every_word_and_closes_every_object() -> None:
    schema: dict[str, Any] = json.loads(SCHEMA_FILE.read_text())
    defs: dict[str, Any] = schema["$defs"]
    rule = defs["RuleDocument"]["properties"]
    assert set(rule["entities"]["items"]["enum"]) == {"ALL", *GROUPS, *ENTITIES}
    assert defs["Action"]["enum"] == [action.value for action in Action]
    assert schema["required"] == ["version", "name", "rules"]
    for shape in (schema, defs["RuleDocument"], defs["KnownValuesDocument"]):
        assert shape["additionalProperties"] is False
        assert all(value.get("description") for value in shape["properties"].values())
    for name in NAMES:
        assert set(yaml.safe_load((READY / f"{name}.yaml").read_text())) <= set(schema["properties"])


def test_the_policy_language_stands_on_its_own() -> None:
    code = (
        "import sys, cotguard.policy;"
        "bad = [m for m in sys.modules if m.startswith(('aiohttp', 'cotguard.gateway', 'cotguard.detectors',"
        "'cotguard.moderation', 'cotguard.dialects', 'hyperscan'))];"
        "sys.exit(', '.join(bad) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
