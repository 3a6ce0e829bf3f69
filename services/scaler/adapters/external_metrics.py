"""Kubernetes' external.metrics.k8s.io/v1beta1, so that health drives a plain HorizontalPodAutoscaler without KEDA.

An HPA names the service in its selector: `metric: {name: modelmuxer-load, selector: {matchLabels: {service: router}}}`.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from grpc import StatusCode

from services.scaler.demand import LOAD_METRIC, TIME_METRIC
from services.scaler.fleets import Fleets
from shared.errors import MeshError

GROUP = "external.metrics.k8s.io"
VERSION = f"{GROUP}/v1beta1"
STATUS = {StatusCode.INVALID_ARGUMENT: 400, StatusCode.NOT_FOUND: 404}


class ExternalMetrics:
    """The API over HTTPS. It tells of load only, so it asks nobody who he is."""

    def __init__(self, fleets: Fleets, tls: ssl.SSLContext) -> None:
        self._fleets = fleets
        self._tls = tls
        app = web.Application()
        app.router.add_get("/apis", _groups)
        app.router.add_get(f"/apis/{GROUP}", _group)
        app.router.add_get(f"/apis/{VERSION}", _resources)
        app.router.add_get(f"/apis/{VERSION}/namespaces/{{namespace}}/{{metric}}", self._metric)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self, host: str, port: int) -> int:
        """Listens, and returns the port. Raises OSError."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=self._tls).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Closes the port."""
        await self._runner.cleanup()

    async def _metric(self, request: web.Request) -> web.Response:
        try:
            words = _labels(request.query.get("labelSelector", ""))
            metric = await self._fleets.metric(words, request.match_info["metric"])
        except ValueError as error:
            return _failure(400, str(error))
        except MeshError as error:
            return _failure(STATUS.get(error.code, 503), error.message)
        value = {
            "metricName": metric.name,
            "metricLabels": words,
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "value": f"{round(1000 * metric.value)}m",
        }
        return web.json_response(
            {"kind": "ExternalMetricValueList", "apiVersion": VERSION, "metadata": {}, "items": [value]}
        )


def _labels(selector: str) -> dict[str, str]:
    labels = {}
    for part in filter(None, selector.split(",")):
        name, equals, value = part.partition("=")
        if not equals or name.endswith("!"):
            raise ValueError(f"The selector may only say name=value, and says {part[:200]!r}.")
        labels[name.strip()] = value.removeprefix("=").strip()
    return labels


def _failure(code: int, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}
    return web.json_response(body, status=code)


def _version() -> dict[str, str]:
    return {"groupVersion": VERSION, "version": "v1beta1"}


def _described() -> dict[str, Any]:
    return {"name": GROUP, "versions": [_version()], "preferredVersion": _version()}


async def _groups(_: web.Request) -> web.Response:
    return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": [_described()]})


async def _group(_: web.Request) -> web.Response:
    return web.json_response({"kind": "APIGroup", "apiVersion": "v1", **_described()})


async def _resources(_: web.Request) -> web.Response:
    kind = {"singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
    resources = [{"name": name, **kind} for name in (LOAD_METRIC, TIME_METRIC)]
    return web.json_response(
        {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": VERSION, "resources": resources}
    )
