"""Who answers what detectors and seals ask outside of the core: the classifier, guards, the store of originals."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cotguard.classifier.handover import Answerers
from cotguard.config.settings import Settings
from cotguard.detectors.contract import Detector
from cotguard.detectors.registry import classifier_among
from cotguard.gateway.sealing import store_of
from cotguard.guard.client import GuardClient
from cotguard.guard.detector import Guard
from cotguard.sealing.store import STORE
from cotguard.telemetry.metrics import Metrics
from cotguard.telemetry.tracing import OFF, Tracing

if TYPE_CHECKING:  # and with them numpy, and redis, which a gateway without a classifier or a store need not load
    from cotguard.classifier.detector import Classifier
    from cotguard.classifier.inference import Inference
    from cotguard.sealing.redis_store import RedisStore

__all__ = ["Staff"]


class Staff:
    """Those that detectors and the settings call for. They are there once ``start`` has returned."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._classifier: Classifier | None = None
        self._guards: dict[str, Guard] = {}
        self._members: dict[str, Inference | GuardClient | RedisStore] = {}

    @property
    def answerers(self) -> Answerers:
        """By name, who answers."""
        return self._members

    @property
    def keeps_originals(self) -> bool:
        """Whether opening a seal may ask."""
        return STORE in self._members

    @property
    def classifier(self) -> str:
        """Which classifier is in use, in words."""
        if self._classifier is None:
            return "no classifier"
        engine = self._classifier.engine
        return f"classifier {engine.bundle.manifest.name} on {engine.provider.removesuffix('ExecutionProvider')}"

    @property
    def bundle(self) -> dict[str, Any] | None:
        """The classifier's bundle: its name, digest, labels and checksums, as JSON has them."""
        if self._classifier is None:
            return None
        engine = self._classifier.engine
        manifest = engine.bundle.manifest
        return {
            "name": manifest.name,
            "digest": engine.bundle.digest,
            "provider": engine.provider,
            "labels": len(manifest.labels) + len(manifest.hazards),
            "files": dict(manifest.sha256),
        }

    @property
    def guard(self) -> str:
        """Which guard is in use, in words that follow the classifier's."""
        return next((f" and guard {guard.form.name}" for guard in self._guards.values()), "")

    def engage(self, detectors: Sequence[Detector]) -> None:
        """Have everybody there whom ``detectors`` ask. Those who are there stay, so exchanges under way lose nobody."""
        self._classifier = self._classifier or classifier_among(detectors)
        for each in detectors:
            if isinstance(each, Guard):
                self._guards.setdefault(each.answerer, each)

    async def start(self, tracing: Tracing = OFF) -> None:
        """What needs the running loop: the classifier's threads, connections to its replicas, the guard, the store.

        Call it again after ``engage``.
        """
        settings = self._settings
        if self._classifier is not None and self._classifier.name not in self._members:
            self._members[self._classifier.name] = _inference(self._classifier, settings, self._metrics, tracing)
            engine = self._classifier.engine
            bundle = engine.bundle
            self._metrics.classifier.labels(bundle.manifest.name, bundle.digest, engine.provider).set(1)
        for answerer, guard in self._guards.items():
            if answerer in self._members:
                continue
            self._members[answerer] = GuardClient(
                guard.form,
                settings.guard_url,
                model=settings.guard_model,
                api_key=settings.guard_api_key,
                deadline=settings.guard_deadline,
                concurrency=settings.guard_concurrency,
                metrics=self._metrics,
            )
        store = None if STORE in self._members else store_of(settings)
        if store is not None:
            self._members[STORE] = store

    async def ready(self) -> bool:
        """Whether all of them can be asked now."""
        return all(await asyncio.gather(*(member.check() for member in self._members.values())))

    async def close(self) -> None:
        """Stop what ``start`` started."""
        for member in self._members.values():
            await member.close()


def _inference(classifier: "Classifier", settings: Settings, metrics: Metrics, tracing: Tracing) -> "Inference":
    """Who answers the classifier: threads of this process, or replicas elsewhere."""
    from cotguard.classifier.inference import Inference, Threads
    from cotguard.classifier.remote.replicas import Replicas

    judge = (
        Threads(classifier.engine, settings.classifier_threads)
        if settings.served is None
        else Replicas(classifier, settings.served, metrics)
    )
    return Inference(judge, deadline=settings.classifier_deadline, metrics=metrics, tracing=tracing)
