"""A bundle's model as a model repository of Triton: what ``cotguard bundle export-triton`` does.

The tokenizer, the thresholds and all else of the bundle stay with the proxy; the server has the model alone. A model
whose answers depend on what else is in a batch is configured to take one window at a time, and refuses more; one
processor thread belongs to each of its instances. Any other model gets dynamic batching, and runs on GPUs if there are.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from cotguard.classifier.bundle import MODEL, Bundle, BundleError, load
from cotguard.classifier.engine import Engine
from cotguard.classifier.tensors import MAX_BATCH, Tensors

__all__ = ["config", "export"]

_LABELS = "labels.txt"
_HAZARDS = "hazards.txt"
_QUEUE_MICROSECONDS = 500


def export(name: str, directory: Path, instances: int) -> Path:
    """Write the repository's folder of the bundle ``name``; returns it. Raises :class:`BundleError`."""
    bundle = load(name)
    manifest = bundle.manifest
    expected, found = set(Tensors(bundle).inputs), Engine(bundle).inputs
    if expected != found:
        raise BundleError(
            f"{bundle.model}: takes {', '.join(sorted(found))}; write `token_types: none` in its manifest exactly if "
            "token_type_ids is none of them"
        )
    folder = directory / manifest.name
    if folder.exists():
        raise BundleError(f"{folder}: is there already; remove it, or choose another directory")
    version = folder / "1"
    version.mkdir(parents=True)
    shutil.copyfile(bundle.model, version / MODEL)
    for file, names in ((_LABELS, manifest.labels), (_HAZARDS, manifest.hazards)):
        if names:
            (folder / file).write_text("".join(f"{each}\n" for each in names), encoding="utf-8")
    (folder / "config.pbtxt").write_text(config(bundle, instances), encoding="utf-8")
    return folder


def config(bundle: Bundle, instances: int) -> str:
    """The model's ``config.pbtxt``."""
    return "".join(f"{line}\n" for line in _config(bundle, instances))


def _config(bundle: Bundle, instances: int) -> Iterator[str]:
    manifest = bundle.manifest
    yield f"# {manifest.name}, digest {bundle.digest}: written by `cotguard bundle export-triton`."
    yield f"name: {json.dumps(manifest.name)}"
    yield 'platform: "onnxruntime_onnx"'
    yield f"max_batch_size: {MAX_BATCH if bundle.batches else 1}"
    yield from _tensors("input", [(name, "TYPE_INT64", "[ -1 ]", "") for name in Tensors(bundle).inputs])
    outputs = []
    if manifest.labels:
        outputs.append((manifest.outputs[0], "TYPE_FP32", f"[ -1, {len(manifest.labels)} ]", ""))
    if manifest.hazards:
        outputs.append((manifest.outputs[1], "TYPE_FP32", f"[ {len(manifest.hazards)} ]", _HAZARDS))
    yield from _tensors("output", outputs)
    if bundle.batches:
        yield f"instance_group [ {{ kind: KIND_AUTO, count: {instances} }} ]"
        yield f"dynamic_batching {{ max_queue_delay_microseconds: {_QUEUE_MICROSECONDS} }}"
        return
    yield "# Its activations are quantised by what is in the batch: beside other windows, or padding, a window would"
    yield "# have other answers. So each is alone: no batching here, and none to be added."
    yield f"instance_group [ {{ kind: KIND_CPU, count: {instances} }} ]"
    for parameter in ("intra_op_thread_count", "inter_op_thread_count"):
        yield f'parameters {{ key: "{parameter}" value {{ string_value: "1" }} }}'


def _tensors(what: str, tensors: Sequence[tuple[str, str, str, str]]) -> Iterator[str]:
    for name, kind, dims, labels in tensors:
        file = f", label_filename: {json.dumps(labels)}" if labels else ""
        yield f"{what} [ {{ name: {json.dumps(name)}, data_type: {kind}, dims: {dims}{file} }} ]"
