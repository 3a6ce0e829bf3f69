"""Runs a command's coroutine: Ctrl-C ends it quietly, a failed call becomes one sentence."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import click
import grpc
from modelmuxer.cli.connection import Connection, sentence
from modelmuxer.client import CallError
from rich.console import Console

console = Console(highlight=False)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(command)


def connected(command: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a coroutine function with a Connection as its first argument."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        connection = Connection.from_environment()
        try:
            asyncio.run(command(connection, *args, **kwargs))
        except KeyboardInterrupt:
            sys.exit(130)
        except CallError as error:
            _fail(sentence(error, connection), kwargs.get("as_json", False), error)
        except grpc.aio.AioRpcError as error:
            call_error = CallError.from_rpc(error)
            _fail(sentence(call_error, connection), kwargs.get("as_json", False), call_error)

    return run


def _fail(message: str, as_json: bool, error: CallError) -> None:
    if as_json:
        body = {
            "code": error.code.name,
            "reason": error.reason,
            "message": message,
            "retry_after_s": error.retry_after_s,
        }
        print_json({"error": body})
    else:
        Console(stderr=True, highlight=False).print(f"[red]Error:[/red] {_plain(message)}")
    sys.exit(1)


def print_json(value: Any) -> None:
    """Prints one JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def dollars(nanos: int) -> str:
    """Returns an amount of nano-dollars for eyes, to the last digit that is not zero, at least cents."""
    whole, fraction = divmod(abs(nanos), 1_000_000_000)
    digits = f"{fraction:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nanos < 0 else ''}${whole:,}.{digits}"


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
