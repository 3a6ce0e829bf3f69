"""The Prometheus metrics of a process, and the HTTP port that they are read from.

Metrics are process-wide by Prometheus' own model. Memory and CPU come from its process collector
(process_resident_memory_bytes, process_cpu_seconds_total).
"""

import asyncio
from importlib.metadata import version

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from shared.telemetry import names

RPC_SERVER_DURATION = Histogram(
    names.RPC_SERVER_DURATION,
    "How long calls took, by method and gRPC status.",
    ("rpc_method", "rpc_status_code"),
    buckets=names.RPC_BUCKETS,
)
RPC_SERVER_ACTIVE = Gauge(names.RPC_SERVER_ACTIVE, "Calls that are running, over all faces of the process.")
HTTP_SERVER_DURATION = Histogram(
    names.HTTP_SERVER_DURATION,
    "How long HTTP requests took, by route and status.",
    ("http_route", "http_response_status_code"),
    buckets=names.RPC_BUCKETS,
)
REFUSED = Counter(names.REFUSED, "Calls refused before they ran, by reason.", ("reason",))
ERRORS = Counter(names.ERRORS, "Calls that ended with an error, by reason.", ("reason",))
GEN_AI_DURATION = Histogram(
    names.GEN_AI_DURATION,
    "How long provider calls took.",
    ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type"),
    buckets=names.GEN_AI_DURATION_BUCKETS,
)
GEN_AI_TIME_TO_FIRST_CHUNK = Histogram(
    names.GEN_AI_TIME_TO_FIRST_CHUNK,
    "Time to the first chunk of streamed provider calls.",
    ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"),
    buckets=names.GEN_AI_DURATION_BUCKETS,
)
GEN_AI_TOKEN_USAGE = Histogram(
    names.GEN_AI_TOKEN_USAGE,
    "Billable tokens per provider call.",
    ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_token_type"),
    buckets=names.GEN_AI_TOKEN_BUCKETS,
)
TIME_TO_FIRST_TOKEN = Histogram(
    names.TIME_TO_FIRST_TOKEN,
    "Time from taking a request to its first token, by requested model.",
    ("gen_ai_request_model",),
    buckets=names.TIME_TO_FIRST_TOKEN_BUCKETS,
)
TOKENS = Counter(names.TOKENS, "Tokens billed, by model and kind.", ("model", "kind"))
COST = Counter(names.COST, "Cost in nano-dollars, by model.", ("model",))
REQUESTS = Counter(names.REQUESTS, "Chats, by face, model or alias asked for, and status.", ("face", "model", "status"))
FAILOVERS = Counter(names.FAILOVERS, "Attempts that another one followed, by model and reason.", ("model", "reason"))
CACHE_OUTCOMES = Counter(names.CACHE_OUTCOMES, "Chats, by what the response cache did.", ("outcome",))
PROVIDER_CONNECTIONS = Gauge(
    names.PROVIDER_CONNECTIONS, "Connections to providers that calls hold, by deployment.", ("deployment",)
)
CACHE_LOOKUPS = Counter(names.CACHE_LOOKUPS, "Look-ups in the response cache, by result.", ("result",))
CACHE_ENTRIES = Gauge(names.CACHE_ENTRIES, "Answers in the response cache.")
CACHE_BYTES = Gauge(names.CACHE_BYTES, "Bytes in the response cache.")
SEMANTIC_LOOKUPS = Counter(names.SEMANTIC_LOOKUPS, "Look-ups by meaning, by result.", ("result",))
SEMANTIC_VERDICTS = Counter(names.SEMANTIC_VERDICTS, "Verdicts on answers that stood for others.", ("verdict",))
SEMANTIC_BYTES = Gauge(names.SEMANTIC_BYTES, "Bytes of the index of questions.")
SEMANTIC_PARTITIONS = Gauge(names.SEMANTIC_PARTITIONS, "Partitions of the index of questions.")
CACHE_LOOKUP_DURATION = Histogram(
    names.CACHE_LOOKUP_DURATION, "How long routers waited for a look-up, hit or miss.", buckets=names.LOOKUP_BUCKETS
)
CACHE_TENANT_OUTCOMES = Counter(
    names.CACHE_TENANT_OUTCOMES, "Chats, by tenant and what the response cache did.", ("tenant", "outcome")
)
CACHE_SAVED = Counter(names.CACHE_SAVED, "What answers that were not made anew had cost, nano-dollars.", ("tenant",))
CACHE_FLIGHTS = Gauge(names.CACHE_FLIGHTS, "Answers in the making that others may follow.")
CACHE_REMOVED = Counter(names.CACHE_REMOVED, "Answers that left the response cache, by why.", ("why",))
CACHE_STORE_UP = Gauge(names.CACHE_STORE_UP, "Whether a Redis server is asked (1) or left alone (0).", ("server",))
CACHE_STORE_CONNECTIONS = Gauge(names.CACHE_STORE_CONNECTIONS, "Most connections to each Redis server.", ("kind",))
CACHE_STORE_BUSY = Gauge(names.CACHE_STORE_BUSY, "Connections to Redis that wait for a reply.", ("kind",))
CACHE_STORE_TIMEOUT = Gauge(names.CACHE_STORE_TIMEOUT, "How long Redis is waited for.", ("kind",))
CACHE_STORE_DURATION = Histogram(
    names.CACHE_STORE_DURATION, "How long pipelines to Redis took.", ("kind",), buckets=names.STORE_BUCKETS
)
CACHE_STORE_UNANSWERED = Counter(
    names.CACHE_STORE_UNANSWERED, "What Redis was not asked, or did not answer in time.", ("kind", "why")
)
CACHE_STORE_REFUSED = Counter(names.CACHE_STORE_REFUSED, "Commands that Redis would not run, by error.", ("error",))
CACHE_UNREADABLE = Counter(names.CACHE_UNREADABLE, "Stored answers that could not be read, by why.", ("why",))
JOURNAL_RECORDS = Counter(names.JOURNAL_RECORDS, "Records appended to the journal, by kind.", ("kind",))
JOURNAL_BYTES = Gauge(names.JOURNAL_BYTES, "Bytes of the journal on disk.")
JOURNAL_PENDING = Gauge(names.JOURNAL_PENDING, "Journal records that accounting has not acknowledged.")
JOURNAL_OLDEST_AGE = Gauge(names.JOURNAL_OLDEST_AGE, "Age of the oldest record that accounting has not acknowledged.")
JOURNAL_SHIPPED = Counter(names.JOURNAL_SHIPPED, "Journal records that accounting has acknowledged.")
JOURNAL_REFUSED = Counter(names.JOURNAL_REFUSED, "Records that the journal had no room for.")
JOURNAL_DAMAGED = Counter(names.JOURNAL_DAMAGED, "Bytes of the journal that were no record and were set aside.")
LEDGER_ENTRIES = Counter(names.LEDGER_ENTRIES, "Ledger entries written, by state.", ("state",))
BUDGET_THRESHOLDS = Counter(names.BUDGET_THRESHOLDS, "Thresholds that budgets reached, in percent.", ("percent",))
WEBHOOK_DELIVERIES = Counter(names.WEBHOOK_DELIVERIES, "Tries to tell budgets' webhook, by outcome.", ("outcome",))
UNRESERVED_CALLS = Counter(names.UNRESERVED_CALLS, "Attempts that no budget could be asked for, as a policy says.")
CEILING_REFUSALS = Counter(names.CEILING_REFUSALS, "Calls that a budget or a limit had no room for.", ("unit",))
LEASES_CLOSED_IN_DOUBT = Counter(names.LEASES_CLOSED_IN_DOUBT, "Leases that no router returned.")
STORE_CONNECTIONS = Gauge(
    names.STORE_CONNECTIONS, "Connections to the ledger's database, by pool and state (idle, used).", ("pool", "state")
)
STORE_CONNECTIONS_MAX = Gauge(names.STORE_CONNECTIONS_MAX, "Most connections that a pool may open.", ("pool",))
STORE_WAITING = Gauge(names.STORE_WAITING, "Calls that wait for a connection of a pool.", ("pool",))
STORE_WAIT = Histogram(
    names.STORE_WAIT, "How long calls waited for a connection of a pool.", ("pool",), buckets=names.LAG_BUCKETS
)
STORE_WAIT_TIMEOUTS = Counter(names.STORE_WAIT_TIMEOUTS, "Calls that got no connection in time, by pool.", ("pool",))
STORE_ERRORS = Counter(names.STORE_ERRORS, "What the ledger's database did not do, by the driver's error.", ("error",))
ADDED_TIME = Histogram(
    names.ADDED_TIME, "What the mesh added to a call before a provider had it.", buckets=names.RPC_BUCKETS
)
SCALER_REPLICAS = Gauge(names.SCALER_REPLICAS, "Replicas that the scaler sees, by state.", ("service", "state"))
SCALER_WANTED = Gauge(names.SCALER_WANTED, "Replicas that the scaler asks for.", ("service",))
EVENT_LOOP_LAG = Histogram(names.EVENT_LOOP_LAG, "How late the event loop wakes.", buckets=names.LAG_BUCKETS)
SPANS_DROPPED = Counter(names.SPANS_DROPPED, "Spans that could not be queued or exported.")
BUILD_INFO = Gauge(names.BUILD_INFO, "Always 1; its labels say what runs.", ("service", "version"))

LAG_INTERVAL_S = 0.5


class BoundedLabel:
    """A label whose values callers choose: the first so many get series of their own, the rest share one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """The value, or "(others)"."""
        if value not in self._known:
            if len(self._known) >= self._most:
                return "(others)"
            self._known.add(value)
        return value


TENANT = BoundedLabel(100)


async def watch_event_loop() -> None:
    """Measures, until cancelled, how much later than asked the loop wakes."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_INTERVAL_S
        await asyncio.sleep(LAG_INTERVAL_S)
        EVENT_LOOP_LAG.observe(max(0.0, loop.time() - due))


class MetricsPort:
    """/metrics over HTTP."""

    def __init__(self, service: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # each would be a second series
        BUILD_INFO.labels(service, version("modelmuxer")).set(1)
        app = web.Application()
        app.router.add_get("/metrics", _metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self, host: str, port: int) -> int:
        """Listens, and returns the port. Raises OSError."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Closes the port."""
        await self._runner.cleanup()


async def _metrics(_: web.Request) -> web.Response:
    text = await asyncio.to_thread(generate_latest, REGISTRY)  # milliseconds with many series: not on the loop
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})
