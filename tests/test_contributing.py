"""What CONTRIBUTING shows works as shown."""

from cotguard.detectors.conformance import check_every_cut, find
from cotguard.detectors.patterns import PatternDetector
from cotguard.detectors.rule import Rule

RULES = (Rule(name="acme-key", entity="SECRET_API_KEY", value=r"acme_[0-9a-f]{32}", provider="acme"),)


def test_a_new_pattern_is_one_small_module() -> None:
    text = "key acme_0123456789abcdef0123456789abcdef and more, acme_0123"
    detector = PatternDetector(RULES)
    check_every_cut(detector, text)
    assert [text[span.start : span.end] for span in find(detector, text)] == ["acme_0123456789abcdef0123456789abcdef"]
