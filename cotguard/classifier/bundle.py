"""Bundles: a directory with one ONNX model, its tokenizer, and ``bundle.yaml``, which says how to read both.

``find`` turns a name or a path into a directory, ``load`` reads and checks one. A bundle whose files are not those
that its checksums name is not used.
"""

import hashlib
import mmap
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cotguard.taxonomy import ENTITIES

if TYPE_CHECKING:  # and with it numpy, which others need not load
    from cotguard.classifier.tokens import Tokenizer

__all__ = [
    "DEFAULT",
    "MANIFEST",
    "MODEL",
    "NONE",
    "TOKENIZER",
    "Boundaries",
    "Bundle",
    "BundleError",
    "Manifest",
    "checksum",
    "find",
    "load",
    "ready_bundles",
]

MANIFEST = "bundle.yaml"
MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"
DEFAULT = "tagger-4"
"""The bundle that is used when none is named."""
NONE = "none"
"""What is written instead of a bundle's name for no classifier."""

_QUANTISES = b"DynamicQuantize"
"""How the names of operators begin that take the scale of activations from all of their input."""
_READY = Path(__file__).parent.parent / "bundles"
Boundaries = Literal["word_pieces", "spaces"]
"""Where a tokenizer never joins text. ``word_pieces``: after white space and ASCII punctuation, where BERT's
pre-tokenizer cuts. ``spaces``: before white space, for tokenizers that keep it with the word that follows."""
Threshold = Annotated[float, Field(ge=0)]


class BundleError(ValueError):
    """A bundle cannot be used; the message says why and what to do."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Geometry(_Document):
    """Pieces of a window: ``core`` ones are judged, ``left`` and ``right`` are context before and after them."""

    left: int = Field(ge=0)
    core: int = Field(ge=1)
    right: int = Field(ge=0)


class SelfTest(_Document):
    """A text, and entities that must be found in it."""

    text: str
    entities: tuple[str, ...]


class Manifest(_Document):
    """``bundle.yaml``. Defaults are those of our own exports."""

    version: Literal[1]
    name: str
    kind: Literal["token-classification", "sequence-classification"]
    licence: str
    base: str
    labels: tuple[str, ...] = Field((), description="outputs per piece: X, B-X, I-X, E-X, S-X and others, in order")
    entities: dict[str, str] = Field({}, description="from labels without B-, I-, E-, S- to entities of the taxonomy")
    thresholds: dict[str, Threshold] = Field({}, description="by label as in `entities`: the least probability")
    hazards: tuple[str, ...] = Field((), description="outputs per window, in order")
    hazard_entities: dict[str, str] = Field({}, description="from outputs per window to hazards of the taxonomy")
    hazard_thresholds: dict[str, Threshold] = Field({}, description="by output per window")
    window: Geometry
    token_types: Literal["case", "zero", "none"] = Field(
        "zero", description="token_type_ids: the case of each piece, zeros, or no such input"
    )
    boundaries: Boundaries = Field("word_pieces", description="where the tokenizer never joins text")
    special_tokens: tuple[str, str] = Field(("[CLS]", "[SEP]"), description="before and after a window")
    padding_token: str = "[PAD]"  # noqa: S105  # not that kind of token
    outputs: tuple[str, str] = Field(("labels", "hazards"), description="names of the outputs per piece, per window")
    activation: Literal["none", "softmax"] = Field("none", description="what makes outputs per piece probabilities")
    hazard_activation: Literal["none", "softmax", "sigmoid"] = "none"
    sha256: dict[str, str]
    training: dict[str, Any] = {}
    self_test: SelfTest

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        plain = {label[2:] if label[1:2] == "-" else label for label in self.labels}
        for what, known, named in (
            ("entities", plain, self.entities),
            ("thresholds", self.entities, self.thresholds),
            ("hazard_entities", self.hazards, self.hazard_entities),
            ("hazard_thresholds", self.hazard_entities, self.hazard_thresholds),
        ):
            if unknown := sorted(set(named) - set(known)):
                raise ValueError(f"{what}: nothing is called {unknown[0]}")
        for entity in (*self.entities.values(), *self.hazard_entities.values()):
            if entity not in ENTITIES:
                close = get_close_matches(entity, ENTITIES, 1)
                raise ValueError(f"{entity} is no entity" + (f"; did you mean {close[0]}?" if close else ""))
        without = (set(self.entities) - set(self.thresholds)) | (
            set(self.hazard_entities) - set(self.hazard_thresholds)
        )
        if missing := sorted(without):
            raise ValueError(f"thresholds: {missing[0]} has none")
        if not (self.entities or self.hazard_entities):
            raise ValueError("neither entities nor hazard_entities: the bundle would find nothing")
        return self


class Bundle:
    """A checked bundle: its directory, its manifest, its tokenizer."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    @cached_property
    def tokenizer(self) -> "Tokenizer":
        from cotguard.classifier.tokens import Tokenizer

        manifest = self.manifest
        try:
            return Tokenizer.from_file(
                self.folder / TOKENIZER,
                boundaries=manifest.boundaries,
                special=(*manifest.special_tokens, manifest.padding_token),
            )
        except Exception as error:  # the library raises bare ones
            raise BundleError(f"{self.folder / TOKENIZER}: cannot be read ({error}); restore the file") from error

    @cached_property
    def batches(self) -> bool:
        """Whether a window has the same answer alone and in a batch.

        Dynamic int8 takes the scale of activations from the whole batch, padding included, so that an answer would
        depend on the other windows.
        """
        with self.model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(_QUANTISES) < 0

    @property
    def digest(self) -> str:
        """Which model this is: the beginning of its checksum."""
        return self.manifest.sha256[MODEL][:12]


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ready_bundles() -> list[str]:
    """Names of the bundles that come with cotguard."""
    return sorted(path.parent.name for path in _READY.glob(f"*/{MANIFEST}"))


def find(name: str) -> Path:
    """The directory of a bundle. Raises :class:`BundleError`."""
    for folder in (_READY / name, Path(name)):
        if (folder / MANIFEST).is_file():
            return folder
    ready = ready_bundles()
    close = get_close_matches(name, ready, 1)
    hint = f"did you mean {close[0]}?" if close else f"write one of {', '.join([*ready, NONE])}, or a directory"
    raise BundleError(f"{name}: no such bundle (a directory with {MANIFEST}); {hint}")


def load(name: str) -> Bundle:
    """The bundle ``name`` (ready, or a directory). Raises :class:`BundleError` unless all is as its manifest says."""
    folder = find(name)
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BundleError(f"{path}: {error}") from error
    except ValidationError as error:
        problems = (
            ": ".join(
                filter(None, (str(path), ".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, ")))
            )
            for each in error.errors()
        )
        raise BundleError("\n".join(problems)) from None
    for file in (MODEL, TOKENIZER):
        if file not in manifest.sha256:
            raise BundleError(f"{path}: sha256: no checksum of {file}")
    for file, expected in manifest.sha256.items():
        try:
            found = checksum(folder / file)
        except OSError as error:
            raise BundleError(f"{folder / file}: {error.strerror}; restore the bundle") from error
        if found != expected:
            raise BundleError(f"{folder / file}: damaged or exchanged (its checksum is not the manifest's); restore it")
    return Bundle(folder, manifest)
