"""What may stand in a policy file: the models behind validation and the JSON Schema.

A policy is a list of rules. For a value that was found the first rule decides which names its entity (or a group that
holds it, or ``ALL``) and its channel, and whose ``min_score`` the value's score reaches; where none does, ``default``
decides. Unknown keys are refused; scalars are not converted.
"""

from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, WithJsonSchema
from pydantic_core import PydanticCustomError

from cotguard.policy.errors import closest, quoted
from cotguard.spans import Action, ChannelKind
from cotguard.taxonomy import ENTITIES, GROUPS

__all__ = [
    "EVERYTHING",
    "INBOUND",
    "KnownValuesDocument",
    "Links",
    "Media",
    "Mode",
    "OnError",
    "PolicyDocument",
    "RequestDocument",
    "RequestTexts",
    "RuleDocument",
    "known_value_fault",
]

EVERYTHING = "ALL"
"""Names every entity, also those of detectors that the taxonomy does not know."""

MIN_KNOWN_VALUE = 3
MAX_KNOWN_VALUE = 1024  # even percent-encoded, a value must fit into what one channel may hold

_ORIGINS = (
    ChannelKind.SYSTEM,
    ChannelKind.USER,
    ChannelKind.ASSISTANT,
    ChannelKind.TOOL_RESULT,
    ChannelKind.TOOL_DESCRIPTION,
)
INBOUND = frozenset(_ORIGINS)
"""What is sent to the model."""

_ENTITY_WORDS = (EVERYTHING, *dict.fromkeys((*GROUPS, *sorted(ENTITIES))))


class Mode(StrEnum):
    """Whether decisions are carried out, or the text passes unchanged and they are only counted."""

    ENFORCE = "enforce"
    SHADOW = "shadow"


class OnError(StrEnum):
    """What a fault in moderating does: end the exchange, or let its text pass unmoderated (counted apart)."""

    CLOSED = "closed"
    OPEN = "open"


class RequestTexts(StrEnum):
    """What is done with a request's texts: nothing, or their values are found and known, or rules are carried out."""

    IGNORE = "ignore"
    READ = "read"
    MODERATE = "moderate"


class Media(StrEnum):
    """Whether what cannot be read (images, sound, encoded files, prompts of token ids) may go to the upstream."""

    PASS = "pass"  # noqa: S105  # lets pass, and is no password
    REFUSE = "refuse"


class Links(StrEnum):
    """What is rewritten of a link whose target holds a value: the target as a whole, or the value alone."""

    WIDEN = "widen"
    KEEP = "keep"


def _one_of(what: str, words: Collection[str], listed: Collection[str] = ()) -> BeforeValidator:
    """Refuse what is none of ``words``, with what was probably meant, or else all that is possible (``listed``)."""

    def check(value: object) -> object:
        if isinstance(value, str) and value in words:
            return value
        meant = closest(value, words)
        hint = f"did you mean {' or '.join(meant)}?" if meant else f"write one of: {', '.join(listed or words)}"
        reason = f"{quoted(value)} is not {what}"
        raise PydanticCustomError("word", "{reason}", {"reason": reason, "hint": hint})

    return BeforeValidator(check)


def known_value_fault(value: str) -> tuple[str, str] | None:
    """Why ``value`` cannot be a known value, and what to do, or ``None``. Says nothing of the value itself."""
    if sum(map(str.isalnum, value)) < MIN_KNOWN_VALUE:
        reason = f"a known value needs at least {MIN_KNOWN_VALUE} letters or digits"
        return reason, "write a longer one: a shorter one would be found inside ordinary text"
    if len(value) > MAX_KNOWN_VALUE:
        return f"a known value has at most {MAX_KNOWN_VALUE} characters", "write a part of it that is telling enough"
    return None


def _language_version(value: object) -> object:
    # True and 1.0 equal 1 too.
    if type(value) is not int or value != 1:
        reason, hint = "this release reads version 1 of the policy language, and no other", 'write "version: 1"'
        raise PydanticCustomError("language_version", "{reason}", {"reason": reason, "hint": hint})
    return value


def _known_value(value: str) -> str:
    value = value.strip()
    fault = known_value_fault(value)
    if fault:
        raise PydanticCustomError("known_value", "{reason}", {"reason": fault[0], "hint": fault[1]})
    return value


LanguageVersion = Annotated[Literal[1], BeforeValidator(_language_version)]
EntityWord = Annotated[
    str,
    _one_of("an entity or a group", _ENTITY_WORDS, (EVERYTHING, *GROUPS)),
    WithJsonSchema({"type": "string", "enum": list(_ENTITY_WORDS)}),
]
ChannelWord = Annotated[ChannelKind, _one_of("a channel", tuple(ChannelKind))]
OriginWord = Annotated[
    ChannelKind,
    _one_of("an origin", _ORIGINS),
    WithJsonSchema({"type": "string", "enum": [kind.value for kind in _ORIGINS]}),
]
ActionWord = Annotated[Action, _one_of("an action", tuple(Action))]
ModeWord = Annotated[Mode, _one_of("a mode", tuple(Mode))]
OnErrorWord = Annotated[OnError, _one_of("a way to treat faults", tuple(OnError))]
RequestTextsWord = Annotated[RequestTexts, _one_of("a way to treat texts of requests", tuple(RequestTexts))]
MediaWord = Annotated[Media, _one_of("a way to treat media", tuple(Media))]
LinksWord = Annotated[Links, _one_of("a way to treat links", tuple(Links))]
KnownValue = Annotated[str, AfterValidator(_known_value)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class RuleDocument(_Document):
    """One rule. It decides for values of these entities, in these channels, with at least this score."""

    entities: tuple[EntityWord, ...] = Field(
        min_length=1,
        description="Entities, groups of entities, or ALL.",
        examples=[["SECRET", "EMAIL_ADDRESS"]],
    )
    channels: tuple[ChannelWord, ...] = Field(
        default=tuple(ChannelKind),
        min_length=1,
        description="Channels the rule holds for. Left out: all.",
        examples=[["reasoning", "output"]],
    )
    action: ActionWord = Field(description="What happens to the value.", examples=["redact"])
    min_score: float = Field(
        default=0.0,
        strict=True,
        ge=0,
        le=1,
        description="Lowest score, 0 to 1, of a value the rule decides for. Values below it go to the next rules.",
        examples=[0.7],
    )
    unless_origin: tuple[OriginWord, ...] = Field(
        default=(),
        min_length=1,
        description=(
            "The rule leaves values alone that stand in these texts of the request: they go to the next rules. Case, "
            "spaces and punctuation make no difference."
        ),
        examples=[["user"]],
    )


class KnownValuesDocument(_Document):
    """The operator's own list of values, found as entity KNOWN_VALUE."""

    values: tuple[KnownValue, ...] = Field(
        default=(),
        description="Values of at least three letters or digits, in quotes where they look like numbers.",
        examples=[["Project Bluebird"]],
    )
    file: str = Field(
        default="",
        min_length=1,
        description='Text file, one value a line; blank lines and lines that begin with "#" are skipped. '
        "A relative path starts at the policy's own folder.",
        examples=["codenames.txt"],
    )


class RequestDocument(_Document):
    """What happens to what a client sends, before it goes to the upstream."""

    texts: RequestTextsWord = Field(
        default=RequestTexts.READ,
        description=(
            "ignore; read: values that stand in it are found, so that they are known when they come back, and what is "
            "flagged is counted; moderate: all rules are carried out, and what goes to the upstream is rewritten."
        ),
        examples=["moderate"],
    )
    classifier: StrictBool = Field(
        default=False,
        description="Whether models, the classifier and a guard, read requests too. Long prompts then take their time.",
        examples=[True],
    )
    media: MediaWord = Field(
        default=Media.PASS,
        description="Whether images, sound, encoded files and prompts of token ids, which no detector reads, may pass.",
        examples=["refuse"],
    )


class PolicyDocument(_Document):
    """A cotguard policy: what happens to values found in what a model writes. The first rule that fits decides."""

    version: LanguageVersion = Field(description="Version of the policy language.", examples=[1])
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,63}$",
        description="Name, as metrics and logs show it: lower-case letters, digits and dashes, at most 64.",
        examples=["support-desk"],
    )
    description: str = Field(
        default="",
        max_length=4000,
        description="What the policy is for, for people.",
        examples=["For the support desk."],
    )
    mode: ModeWord = Field(
        default=Mode.ENFORCE,
        description="enforce, or shadow: deliver the text unchanged and count what would have happened.",
        examples=["enforce"],
    )
    on_error: OnErrorWord = Field(
        default=OnError.CLOSED,
        description="When moderating fails: closed ends the exchange, open lets its text pass unmoderated.",
        examples=["closed"],
    )
    on_audit_error: OnErrorWord = Field(
        default=OnError.CLOSED,
        description=(
            "When a decision cannot be recorded in the audit trail: closed ends the exchange before what was decided "
            "is delivered, open goes on without the record. Of no matter without a trail."
        ),
        examples=["closed"],
    )
    classifier: StrictBool = Field(
        default=True,
        description="Whether the classifier is used beside the deterministic detectors.",
        examples=[False],
    )
    notice: str = Field(
        default="[withheld]",
        min_length=1,
        max_length=500,
        description="What is written in place of text that is withheld.",
        examples=["[withheld]"],
    )
    links: LinksWord = Field(
        default=Links.WIDEN,
        description=(
            "When something in the target of a link or image is rewritten: widen, so is the whole target, which is "
            "held until its end; keep, the rest of the target stays."
        ),
        examples=["keep"],
    )
    request: RequestDocument = Field(
        default=RequestDocument(),
        description="What happens to what a client sends.",
        examples=[{"texts": "moderate"}],
    )
    rules: tuple[RuleDocument, ...] = Field(
        description="Rules, in order. The first one that fits a value decides.",
        examples=[[{"entities": ["SECRET"], "action": "redact"}]],
    )
    default: ActionWord = Field(
        default=Action.ALLOW,
        description="What happens to values that no rule fits.",
        examples=["allow"],
    )
    known_values: KnownValuesDocument = Field(
        default=KnownValuesDocument(),
        description="Values that the operator wants found. A rule or the default must act on KNOWN_VALUE.",
        examples=[{"values": ["Project Bluebird"]}],
    )
