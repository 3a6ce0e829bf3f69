"""Logs: one JSON object a line, or readable lines on a terminal, with the ids of the trace that they belong to.

Neither secrets nor prompts: what looks like a key is masked wherever it stands, and an exception's text, which may
quote its input, is left out unless the level is debug.
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from shared.errors import MeshError
from shared.telemetry import tracing

MASK = "********"
SECRETS = re.compile(
    r"(?i)\b(?P<scheme>bearer\s+)[\w.~+/=-]{8,}"  # an authorization header
    r"|\b(?:sk|pk|rk|gsk|xai|mux|mm)[-_][\w-]{16,}"  # keys of providers and our own
    r"|\bAIza[\w-]{30,}"  # Google's
)
SECRET_FIELD = re.compile(r"(?i)authorization|api[-_]?key|mesh[-_]?token|password|secret|cookie")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOURS = {"DEBUG": 36, "INFO": 32, "WARNING": 33, "ERROR": 31, "CRITICAL": 35}
_SPEAKING = (MeshError, OSError, TimeoutError)  # their texts quote no request


def configure(service: str, *, level: str, format: str, stream: TextIO | None = None) -> None:
    """Sets the root logger up: the process's only handler, writing to standard error."""
    stream = stream or sys.stderr
    readable = format == "text" or (format == "auto" and stream.isatty())
    verbose = level == "debug"
    handler = logging.StreamHandler(stream)
    colour = readable and stream.isatty()
    handler.setFormatter(TextFormatter(service, verbose, colour) if readable else JsonFormatter(service, verbose))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)


def redact(text: str) -> str:
    """The text with everything masked that looks like a key."""
    return SECRETS.sub(lambda match: (match["scheme"] or "") + MASK, text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line; `extra` fields stand beside the message."""

    def __init__(self, service: str, verbose: bool) -> None:
        super().__init__()
        self._service = service
        self._verbose = verbose

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (trace := tracing.current()) is not None:
            line["trace_id"], line["span_id"] = trace.trace_id, trace.span_id
        line.update(_fields(record))
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = _exception(record.exc_info[1], self._verbose)
        return redact(json.dumps(line, ensure_ascii=False, default=str))


class TextFormatter(logging.Formatter):
    """A line for a person."""

    def __init__(self, service: str, verbose: bool, colour: bool) -> None:
        super().__init__()
        self._service = service
        self._verbose = verbose
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        level = f"{record.levelname.lower():7}"
        if self._colour:
            level = f"\x1b[{_COLOURS.get(record.levelname, 0)}m{level}\x1b[0m"
        parts = [when, level, f"{self._service:14}", record.getMessage()]
        parts += [f"{name}={value}" for name, value in _fields(record).items()]
        if (trace := tracing.current()) is not None:
            parts.append(f"trace_id={trace.trace_id}")
        if record.exc_info and record.exc_info[1] is not None:
            parts.append("\n" + _exception(record.exc_info[1], self._verbose))
        return redact(" ".join(parts))


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {name: MASK if SECRET_FIELD.search(name) else value for name, value in extra.items()}


def _exception(error: BaseException | None, verbose: bool) -> str:
    """Frames and types of an exception and its causes, oldest first."""
    parts: list[str] = []
    while error is not None and len(parts) < 8:
        frames = "".join(traceback.format_tb(error.__traceback__))
        text = f": {error}" if verbose or isinstance(error, _SPEAKING) else ""
        parts.append(f"{frames}{type(error).__qualname__}{text}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(reversed(parts))
