"""API keys: 256 random bits, shown once; what is kept is their SHA-256. Storing them is the store's business."""

import hashlib
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from modelmuxer.accounting.v1.accounting_pb2 import SCOPE_ADMIN, SCOPE_CHAT, CreateKeyRequest, Key, Principal, Scope

from shared.errors import MeshError, Reason

DEFAULT_TENANT = "default"
_SECRET = re.compile(r"mm-[A-Za-z0-9_-]{43}")
_PREFIX_CHARS = 9
_MAX_NAME_CHARS = 256
_MAX_MODELS = 1000


class StoredKey(NamedTuple):
    """A key and the hash of its secret."""

    key: Key
    sha256: bytes


def new_secret() -> str:
    """A fresh secret: "mm-" and 256 random bits."""
    return "mm-" + secrets.token_urlsafe(32)


def sha256(secret: str) -> bytes:
    """By what a key is looked up. Fast on purpose: 256 random bits cannot be guessed at any speed."""
    return hashlib.sha256(secret.encode()).digest()


def new_key(wanted: CreateKeyRequest, secret: str, now_ns: int) -> StoredKey:
    """The key as asked for. Raises MALFORMED_REQUEST."""
    _check(wanted)
    key = Key(
        id="key_" + secrets.token_hex(8),
        name=wanted.name,
        tenant=wanted.tenant or DEFAULT_TENANT,
        user=wanted.user,
        scopes=sorted(set(wanted.scopes)) or [SCOPE_CHAT],
        prefix=secret[:_PREFIX_CHARS],
        models=wanted.models,
        team=wanted.team,
    )
    if wanted.HasField("max_output_tokens"):
        key.max_output_tokens = wanted.max_output_tokens
    key.create_time.FromNanoseconds(now_ns)
    return StoredKey(key, sha256(secret))


def first_key(secret: str, now_ns: int) -> StoredKey:
    """The key that a new mesh begins with."""
    wanted = CreateKeyRequest(name="first key", user="admin", scopes=[SCOPE_CHAT, SCOPE_ADMIN])
    return new_key(wanted, secret, now_ns)


def standing_secret(path: Path) -> str | None:
    """The secret in the first key's file; None where there is none."""
    standing = path.read_text("ascii", "replace").strip() if path.exists() else ""
    return standing if _SECRET.fullmatch(standing) else None


def is_one_of(secret: str, known: Iterable[Key]) -> bool:
    """Whether a secret is that of a known key, revoked or not."""
    return any(key.prefix == secret[:_PREFIX_CHARS] for key in known)


def first_secret(path: Path) -> str:
    """The first key's secret, kept in a file that only its owner reads. The file comes before the key: a start that is
    cut between the two finds the secret again, and so does one whose ledger was deleted."""
    if path.exists():
        if standing := standing_secret(path):
            return standing
        path.unlink(missing_ok=True)
    secret = new_secret()
    draft = path.with_suffix(f".{secrets.token_hex(4)}.new")  # of this start alone
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(draft)
    except FileExistsError:  # another process that starts on the same folder was quicker
        return first_secret(path)
    finally:
        draft.unlink()
    return secret


def principal(key: Key) -> Principal:
    """Who calls with the key."""
    who = Principal(
        tenant=key.tenant, team=key.team, user=key.user, key_id=key.id, scopes=key.scopes, models=key.models
    )
    if key.HasField("max_output_tokens"):
        who.max_output_tokens = key.max_output_tokens
    return who


def _check(wanted: CreateKeyRequest) -> None:
    texts = {"name": wanted.name, "tenant": wanted.tenant, "user": wanted.user, "team": wanted.team}
    for field, text in texts.items():
        if len(text) > _MAX_NAME_CHARS or not text.isprintable():
            raise _malformed(field, f"{field} has to be printable and at most {_MAX_NAME_CHARS} characters long.")
    if unknown := _unknown_scopes(wanted.scopes):
        raise _malformed("scopes", f"Scope {unknown[0]} is not known; give SCOPE_CHAT, SCOPE_ADMIN or both.")
    if wanted.HasField("max_output_tokens") and wanted.max_output_tokens <= 0:
        raise _malformed("max_output_tokens", "max_output_tokens has to be positive; leave it unset for no cap.")
    if len(wanted.models) > _MAX_MODELS or not all(wanted.models):
        raise _malformed("models", f"models takes up to {_MAX_MODELS} names, none of them empty.")


def _unknown_scopes(scopes: Iterable[Scope]) -> list[int]:
    return [scope for scope in scopes if scope not in (SCOPE_CHAT, SCOPE_ADMIN)]


def _malformed(field: str, message: str) -> MeshError:
    return MeshError(Reason.MALFORMED_REQUEST, message, field=field)
