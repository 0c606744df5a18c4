"""The attributes of spans: every name that may stand in a trace, where, and what it says.

Names without the prefix ``cotguard.`` are those of OpenTelemetry's semantic conventions: HTTP, and GenAI in the form of
1.37 and later (``gen_ai.provider.name``). What the conventions know and is not here is not recorded: ``url.path`` and
``client.address``, and everything that holds content.
"""

from typing import Final, NamedTuple

__all__ = ["ATTRIBUTES", "Attribute"]


class Attribute(NamedTuple):
    """Where an attribute stands, in words, and what it says."""

    spans: str
    meaning: str


_SERVER = "server"
_CLIENT = "client"
_MODERATE = "moderate request, moderate response"
_DECISION = "event cotguard.decision"

ATTRIBUTES: Final = {
    "http.request.method": Attribute(_SERVER, "`POST` or `GET`"),
    "http.route": Attribute(_SERVER, "the path as `cotguard dialects` spells it, with its braces"),
    "http.response.status_code": Attribute("server, client", "what the client got; what the upstream said"),
    "error.type": Attribute("all", "the kind of the fault (`cotguard_failures_total`), or the upstream's status"),
    "server.address": Attribute(_CLIENT, "the upstream that answered"),
    "server.port": Attribute(_CLIENT, "its port"),
    "gen_ai.operation.name": Attribute(_CLIENT, "`chat`, `text_completion`, `generate_content`, `transcription`"),
    "gen_ai.provider.name": Attribute(_CLIENT, "whose API the dialect is"),
    "gen_ai.request.model": Attribute(_CLIENT, "the model asked for, if it looks like a model's name"),
    "gen_ai.request.stream": Attribute(_CLIENT, "whether a stream was asked for"),
    "gen_ai.response.finish_reasons": Attribute(_CLIENT, "of each choice"),
    "gen_ai.usage.input_tokens": Attribute(_CLIENT, "as the upstream counts them"),
    "gen_ai.usage.output_tokens": Attribute(_CLIENT, "as the upstream counts them"),
    "cotguard.request_id": Attribute(_SERVER, "the `x-cotguard-request-id` of the response, and of log lines"),
    "cotguard.dialect": Attribute(_SERVER, "as in `cotguard_requests_total`"),
    "cotguard.outcome": Attribute(f"{_SERVER}, {_DECISION}", "as in the metrics of requests and decisions"),
    "cotguard.policy": Attribute(_SERVER, "digest of the policy"),
    "cotguard.role": Attribute(_SERVER, "of the caller"),
    "cotguard.decisions": Attribute(_MODERATE, "how many decisions there were"),
    "cotguard.received_characters": Attribute("moderate response", "text that came from the upstream"),
    "cotguard.delivered_characters": Attribute("moderate response", "text that went to the client"),
    "cotguard.entity": Attribute(_DECISION, "what was found; empty for a fault"),
    "cotguard.channel": Attribute(_DECISION, "where"),
    "cotguard.action": Attribute(_DECISION, "what the policy says"),
    "cotguard.count": Attribute(_DECISION, "how often"),
    "cotguard.batch_size": Attribute("classifier", "windows judged together"),
}
