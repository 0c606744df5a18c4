"""The detectors that a policy needs: ours, and those that other packages offer.

Another package offers a detector by the entry point group ``cotguard.detectors``: a callable that takes no argument
and returns a :class:`~cotguard.detectors.contract.Detector`.
"""

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from cotguard.classifier.bundle import NONE
from cotguard.classifier.remote.address import Served
from cotguard.detectors.contract import Detector
from cotguard.detectors.injection import LEAST_SCORE, PromptInjection
from cotguard.detectors.known_values import KnownValues
from cotguard.detectors.links import LinkTargets
from cotguard.detectors.patterns import PatternDetector
from cotguard.detectors.rule import Rule
from cotguard.detectors.rules import (
    assets,
    contact,
    financial,
    government,
    health,
    network,
    secrets_generic,
    secrets_providers,
)
from cotguard.detectors.rules.pem import PrivateKeyDetector
from cotguard.detectors.seed_phrase import SeedPhrases
from cotguard.detectors.system_prompt import SystemPromptRecall
from cotguard.guard.detector import Guard
from cotguard.guard.format import load_format
from cotguard.policy import Links, Policy, RequestTexts
from cotguard.spans import ChannelKind

if TYPE_CHECKING:  # and with it the tokenizer, which those without a classifier need not load
    from cotguard.classifier.detector import Classifier

__all__ = ["RULES", "build", "classifier_among"]

RULES: tuple[Rule, ...] = (
    *contact.RULES,
    *network.RULES,
    *financial.RULES,
    *government.RULES,
    *health.RULES,
    *assets.RULES,
    *secrets_providers.RULES,
    *secrets_generic.RULES,
)


def build(
    policy: Policy,
    bundle: str = NONE,
    served: Served | None = None,
    guard: str = "",
    loaded: Sequence[Detector] = (),
) -> tuple[Detector, ...]:
    """Detectors for every entity that ``policy`` does anything about; rules it would ignore are not compiled.

    The classifier of ``bundle`` (a ready one's name, or a directory) is among them if the policy uses one; its model
    may be ``served`` elsewhere. So is a guard of the format ``guard`` (a ready one's name, or a file) if the policy
    acts on hazards that it finds. A classifier of the same bundle that is among ``loaded`` is taken instead of being
    loaded again. Where there is something to find, targets of links are looked for if they are to be widened. Raises
    :class:`~cotguard.classifier.bundle.BundleError` and
    :class:`~cotguard.guard.format.GuardFormatError`.
    """
    rules = [rule for rule in RULES if any(map(policy.acts, rule.also | {rule.entity}))]
    detectors: list[Detector] = [PrivateKeyDetector(), SeedPhrases(), SystemPromptRecall()]
    if rules:
        detectors.insert(0, PatternDetector(rules))
    if policy.request.texts is not RequestTexts.IGNORE and any(
        PromptInjection.entities & policy.entities_for(kind) for kind in LEAST_SCORE
    ):
        detectors.append(PromptInjection())
    if policy.known_values:
        detectors.append(KnownValues(policy.known_values))
    if policy.uses_classifier and bundle != NONE:
        from cotguard.classifier.detector import Classifier

        detectors.append(classifier_among(loaded) or Classifier.load(bundle, served))
    if guard:
        form = load_format(guard).asking(policy.acts_on)
        detectors.append(Guard(form, [kind for kind in ChannelKind if policy.entities_for(kind) & form.hazards]))
    detectors.extend(entry.load()() for entry in entry_points(group="cotguard.detectors"))
    needed = [detector for detector in detectors if any(map(policy.acts, detector.entities))]
    if needed and policy.links is Links.WIDEN:
        needed.append(LinkTargets())
    return tuple(needed)


def classifier_among(detectors: Sequence[Detector]) -> "Classifier | None":
    """The classifier among them. Its module is loaded only if it is there."""
    if all(each.name != "classifier" for each in detectors):
        return None
    from cotguard.classifier.detector import Classifier

    return next((each for each in detectors if isinstance(each, Classifier)), None)
