"""Writes the Python stubs of `protos` into `src`; with --check says whether they are stale.

The client's package holds those of `modelmuxer` alone; others' contracts (`keda`, `xds`) go with the mesh.

The generator's version is the floor that users' runtimes must meet, so it is pinned in the lock file.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "protos"
STUBS = Path(__file__).resolve().parent / "src"
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the stubs are stale")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        fresh = generate(Path(folder))
    present = contents(STUBS)
    stale = sorted(name for name in fresh.keys() | present.keys() if fresh.get(name) != present.get(name))
    if check:
        for name in stale:
            print(f"{name} is stale: run `make generate`", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        write(STUBS / name, fresh.get(name))
    print(f"{len(fresh)} stubs, {len(stale)} changed")
    return 0


def generate(folder: Path) -> dict[str, bytes]:
    """The stubs as the protos ask for them now, by path below `src`."""
    protos = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    plugin = Path(sys.executable).parent / "protoc-gen-mypy_grpc"
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    outputs += [f"--plugin={plugin}", f"--mypy_grpc_out=quiet:{folder}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *outputs, *protos]
    subprocess.run(command, check=True)  # noqa: S603 the words are our own
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Every generated file below a folder."""
    paths = [path for path in folder.rglob("*") if path.name.endswith(SUFFIXES)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def write(path: Path, content: bytes | None) -> None:
    """Writes a stub, or deletes one whose proto is gone."""
    if content is None:
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())
