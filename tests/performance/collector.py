"""An OTLP collector that takes spans and drops them: what making and sending them costs, without what keeping costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from tests.mesh.mesh import ROOT


@contextmanager
def collecting() -> Iterator[dict[str, str]]:
    """Runs the collector; gives the variables by which services find it."""
    command = [sys.executable, "-m", "tests.performance.collector"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{process.stdout.readline().strip()}"}
        finally:
            process.terminate()


def _drop(_spans: bytes, _context: grpc.ServicerContext) -> bytes:
    return b""  # an ExportTraceServiceResponse in which nothing is said


def _serve() -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_drop)
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    _serve()
