"""The check of a bundle: what ``cotguard bundle verify`` does."""

from cotguard.classifier.bundle import BundleError
from cotguard.classifier.detector import Classifier
from cotguard.detectors.contract import Scope
from cotguard.spans import ChannelKind

__all__ = ["missing", "verify"]


def verify(name: str) -> str:
    """Load a bundle, find what its self-test names; returns what it is in a few words.

    Raises :class:`~cotguard.classifier.bundle.BundleError`.
    """
    classifier = Classifier.load(name)
    engine = classifier.engine
    manifest = engine.bundle.manifest
    if lacking := missing(classifier):
        raise BundleError(
            f"{engine.bundle.folder}: the self-test did not find {', '.join(lacking)}: model and manifest do not fit"
        )
    window = manifest.window
    return (
        f"{manifest.name}, {len(manifest.entities)} entities, {len(manifest.hazard_entities)} hazards, "
        f"window {window.left}+{window.core}+{window.right}, {engine.provider}, digest {engine.bundle.digest}"
    )


def missing(classifier: Classifier) -> list[str]:
    """Entities that the self-test should find and does not."""
    expected = classifier.engine.bundle.manifest.self_test
    spans, _ = classifier.open(Scope(ChannelKind.OUTPUT)).advance(expected.text, final=True)
    return sorted(set(expected.entities) - {span.entity for span in spans})
