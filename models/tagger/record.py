"""What a run was: data, code, arguments, versions, curves."""

import json
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl

__all__ = ["RECORD", "curves", "read_record", "revision", "versions", "write_record"]

RECORD = "record.json"
_LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "onnx", "onnxruntime", "numpy")


def revision() -> str:
    """The commit of the working tree, ``+`` behind it if files differ, or ``unknown``."""
    git = shutil.which("git")
    folder = Path(__file__).parent
    if git is None:
        return "unknown"
    commit = _output(git, "-C", str(folder), "rev-parse", "HEAD")
    changed = _output(git, "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if commit and changed else commit or "unknown"


def _output(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()  # noqa: S603  # git only


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that figures depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Replace the record in ``folder``."""
    temporary = folder / f".{RECORD}"
    temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / RECORD)


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in ``folder``, if there is one."""
    path = folder / RECORD
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def curves(points: Sequence[Mapping[str, float]], path: Path) -> None:
    """Plot loss and development figures over the training time."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # only now: the backend is chosen above

    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(8, 7), layout="constrained")
    _plot(above, points, ["loss"])
    above.set_yscale("log")
    _plot(below, points, ["recall", "score", "f1", "benign", "code"])
    below.set_xlabel("minutes")
    below.set_ylim(0, 1)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _plot(axes: Any, points: Sequence[Mapping[str, float]], names: Iterable[str]) -> None:
    for name in names:
        have = [point for point in points if name in point]
        axes.plot([point["seconds"] / 60 for point in have], [point[name] for point in have], label=name)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
