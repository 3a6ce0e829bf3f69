"""Operations: an id under which the same request runs once. What stands, what is wanted, and the time decide all."""

from dataclasses import dataclass, replace

ANSWER_KEPT_NS = 24 * 3600 * 1_000_000_000


class OperationMismatch(Exception):
    """The id stands for a request with another body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A claim on an operation, or its answer. Ids of different keys never meet."""

    key_id: str
    operation_id: str
    body_sha256: bytes
    owner: str
    expires_ns: int
    """When the claim lapses, or the answer is forgotten."""
    answer: bytes | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """The claim is the caller's, who is to run the operation."""

    operation: Operation


@dataclass(frozen=True, slots=True)
class Answered:
    """The operation has its answer."""

    answer: bytes


@dataclass(frozen=True, slots=True)
class Busy:
    """Another owner runs the operation, and has until then to say so again."""

    until_ns: int


def claim(standing: Operation | None, wanted: Operation, now_ns: int) -> Granted | Answered | Busy:
    """What a claim comes to. Raises OperationMismatch."""
    if standing is None or standing.expires_ns <= now_ns:
        return Granted(wanted)
    if standing.body_sha256 != wanted.body_sha256:
        raise OperationMismatch
    if standing.answer is not None:
        return Answered(standing.answer)
    return Granted(wanted) if standing.owner == wanted.owner else Busy(standing.expires_ns)


def end(standing: Operation | None, owner: str, answer: bytes | None, now_ns: int) -> Operation | None:
    """What stands after an end: None if nothing. An end by anybody but the owner changes nothing, nor does one after
    the answer."""
    if standing is None or standing.owner != owner or standing.answer is not None:
        return standing
    if answer is None:
        return None
    return replace(standing, answer=answer, expires_ns=now_ns + ANSWER_KEPT_NS)
