"""The mesh token: from the environment, or made once in the folder that a local mesh shares."""

import contextlib
import os
import secrets
from pathlib import Path

FILE = "mesh-token"


def mesh_token(configured: str | None, home: Path) -> str:
    """The configured token, or the home folder's, which is made if there is none (mode 600)."""
    if configured:
        return configured
    path = home / FILE
    if not path.exists():
        _make(path)
    return path.read_text("ascii").strip()


def _make(path: Path) -> None:
    """Services start together: the first link wins, and nobody reads a half-written file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32) + "\n")
    with contextlib.suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
