"""Drafts of policies: made ready like those in force, and no way to read files."""

from pathlib import Path
from typing import Any

import pytest

from cotguard import policy as policy_package
from cotguard.config.settings import Settings
from cotguard.detectors.contract import Detector
from cotguard.detectors.registry import build
from cotguard.gateway.app import Gateway
from cotguard.gateway.drafting import KEPT, MAX_DRAFT_CHARS
from cotguard.gateway.moderations import OWN
from cotguard.policy import Policy, PolicyError
from cotguard.telemetry.metrics import Metrics

DRAFT = "version: 1\nname: {name}\nclassifier: false\nrules:\n  - entities: [{entity}]\n    action: redact\n"
READY = Path(policy_package.__file__).parent / "ready" / "secrets-only.yaml"
LISTED = DRAFT.format(name="t", entity="KNOWN_VALUE") + "known_values:\n  file: {file}\n"


def gateway_of(policy: str | Path) -> Gateway:
    settings = Settings.model_validate({"upstream": "http://127.0.0.1:1", "policy": str(policy), "bundle": "none"})
    return Gateway(settings, metrics=Metrics())


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    (tmp_path / "names.txt").write_text("Project Bluebird\n")
    (tmp_path / "other.txt").write_text("short\nno\n")
    policy = tmp_path / "support.yaml"
    policy.write_text(LISTED.format(file="names.txt"))
    return policy


async def test_a_draft_is_made_ready_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = gateway_of("secrets-only")
    built: list[str] = []

    def noted(policy: Policy, *rest: Any) -> tuple[Detector, ...]:
        built.append(policy.name)
        return build(policy, *rest)

    monkeypatch.setattr("cotguard.gateway.drafting.build", noted)
    texts = [DRAFT.format(name=f"d{number}", entity="CANARY") for number in range(KEPT + 1)]
    first = await gateway.drafts.moderation("secrets-only", texts[0])
    again = await gateway.drafts.moderation("secrets-only", texts[0] + "description: words do not matter\n")
    assert built == ["d0"]
    assert first.detectors is again.detectors
    assert first.findings is not again.findings
    for text in texts[1:]:
        await gateway.drafts.moderation("secrets-only", text)
    await gateway.drafts.moderation("secrets-only", texts[0])
    assert built == ["d0", "d1", "d2", "d3", "d4", "d0"]
    assert gateway.active.moderations[OWN].policy.name == "secrets-only"


async def test_what_is_in_force_is_not_built_again() -> None:
    gateway = gateway_of("secrets-only")
    in_force = gateway.active.moderations[OWN]
    draft = await gateway.drafts.moderation("secrets-only", READY.read_text())
    assert draft.detectors is in_force.detectors
    assert draft.findings is not in_force.findings


async def test_a_draft_reads_the_list_of_the_policy_that_it_replaces_and_no_other_file(listed: Path) -> None:
    gateway = gateway_of(listed)
    text = LISTED.format(file="names.txt")
    assert (await gateway.drafts.moderation("t", text)).policy.known_values == ("Project Bluebird",)
    assert (await gateway.drafts.moderation(str(listed), text)).policy.known_values == ("Project Bluebird",)
    others = ("other.txt", "missing.txt", "/etc/passwd", "../names.txt", str(listed))
    problems = []
    for other in others:
        with pytest.raises(PolicyError) as raised:
            await gateway.drafts.moderation("t", LISTED.format(file=other))
        (problem,) = raised.value.problems
        assert (problem.line, problem.column) == (8, 9)
        problems.append(problem)
    assert len(set(problems)) == 1  # whether a file is there, and what it holds, is not told


async def test_a_draft_of_a_policy_without_a_list_reads_no_file(listed: Path) -> None:
    gateway = gateway_of("secrets-only")
    for file in ("names.txt", str(listed.parent / "names.txt")):
        with pytest.raises(PolicyError, match="draft:8:9: a draft reads no other file"):
            await gateway.drafts.moderation("secrets-only", LISTED.format(file=file))


async def test_what_is_wrong_is_told_without_quoting_it() -> None:
    gateway = gateway_of("secrets-only")
    with pytest.raises(ValueError, match=r"^policy: none of this name is in force; write one of: secrets-only$"):
        await gateway.drafts.moderation("sk-quoted", DRAFT)
    with pytest.raises(PolicyError, match="draft: longer than"):
        await gateway.drafts.moderation("secrets-only", "#" * (MAX_DRAFT_CHARS + 1))
    with pytest.raises(PolicyError, match=r"draft:5:16: "):
        await gateway.drafts.moderation("secrets-only", DRAFT.format(name="t", entity="SECRETS"))
