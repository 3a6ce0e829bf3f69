"""The cluster's API, as far as the test reads and changes it."""

import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.cluster import programs

T = TypeVar("T")
Object = dict[str, Any]

_TIMEOUT_S = 30.0
_POLL_S = 0.1


class ApiError(Exception):
    """What the API server, or a program that asked it, has said."""


class NotInTime(Exception):
    """Something that did not come true, and for how long it was waited for."""


class Api:
    """The API server, asked as an administrator."""

    def __init__(self, server: str, folder: Path, kubeconfig: Path) -> None:
        self.server = server
        self.kubeconfig = kubeconfig
        self._tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._tls.load_cert_chain(folder / "admin.crt", folder / "admin.key")

    def get(self, path: str) -> Object:
        """What stands at a path ("/api/v1/pods"). Raises ApiError."""
        return dict(json.loads(self.text(path)))

    def text(self, path: str) -> str:
        """The same, as it came. Raises ApiError."""
        return self._send("GET", path)

    def items(self, path: str) -> list[Object]:
        """The objects of a list. Raises ApiError."""
        return list(self.get(path)["items"])

    def delete(self, path: str) -> None:
        """Deletes what stands at a path. Raises ApiError."""
        self._send("DELETE", path)

    def patch(self, path: str, change: Object) -> None:
        """Merges a change into what stands at a path. Raises ApiError."""
        self._send("PATCH", path, json.dumps(change), "application/merge-patch+json")

    def watch(self, path: str, timeout_s: float) -> Iterator[Object]:
        """Events of a list as they come: {"type": …, "object": …}. Raises ApiError and OSError."""
        request = urllib.request.Request(f"{self.server}{path}")
        with urllib.request.urlopen(request, timeout=timeout_s, context=self._tls) as lines:
            for line in lines:
                yield json.loads(line)

    def apply(self, *objects: Object, namespace: str = "") -> None:
        """Makes objects be as they are given. Raises ApiError."""
        self.kubectl("apply", "--server-side", "-f", "-", *_in(namespace), stdin=json.dumps(_list(objects)))

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120.0) -> str:
        """Runs kubectl, and returns what it prints. Raises ApiError."""
        return self.run(programs.kubernetes("kubectl"), *arguments, stdin=stdin, timeout_s=timeout_s)

    def helm(self, *arguments: str, timeout_s: float = 300.0) -> str:
        """Runs helm, and returns what it prints. Raises ApiError."""
        return self.run(programs.helm(), *arguments, timeout_s=timeout_s)

    def run(self, *command: str, stdin: str | None = None, timeout_s: float = 120.0) -> str:
        """Runs a program as an administrator of this cluster. Raises ApiError."""
        try:
            done = subprocess.run(
                command, input=stdin, env=self.environ, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise ApiError(f"{' '.join(command[:3])} took more than {timeout_s:.0f} s") from None
        if done.returncode:
            raise ApiError((done.stderr or done.stdout).strip()[-1500:])
        return done.stdout

    @property
    def environ(self) -> dict[str, str]:
        """What programs need that are to ask this cluster."""
        cache = self.kubeconfig.with_name("cache")
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(cache)}

    def answers(self, path: str) -> bool:
        """Whether a path can be read."""
        try:
            self.text(path)
        except (ApiError, OSError):
            return False
        return True

    def _send(self, method: str, path: str, body: str | None = None, kind: str = "application/json") -> str:
        data = None if body is None else body.encode()
        request = urllib.request.Request(
            f"{self.server}{path}", data=data, method=method, headers={"content-type": kind}
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=self._tls) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            raise ApiError(f"{method} {path}: {error.code} {_message(error.read())}") from None
        except OSError as error:
            raise ApiError(f"{method} {path}: {error}") from None


def until(what: str, condition: Callable[[], T | None], timeout_s: float = 60.0) -> T:
    """Polls until a condition holds, and returns what it returned. Raises NotInTime."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise NotInTime(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(_POLL_S)


def _in(namespace: str) -> tuple[str, ...]:
    return ("--namespace", namespace) if namespace else ()


def _list(objects: Iterable[Object]) -> Object:
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:300]
