"""Every name of a metric, a span attribute and a log field, in one place.

GenAI names are those of the OpenTelemetry semantic conventions 1.41 (still in development: pinned on purpose); RPC
names are the conventions' release candidate. Prometheus names are those with underscores for dots, the unit at the end.
"""

SEMCONV_SCHEMA = "https://opentelemetry.io/schemas/1.41.0"

# --- span attributes -------------------------------------------------------------------------------------------------
RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.status_code"
ERROR_TYPE = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
HTTP_METHOD = "http.request.method"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"
USER_AGENT = "user_agent.original"

GEN_AI_OPERATION = "gen_ai.operation.name"
GEN_AI_PROVIDER = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM = "gen_ai.request.stream"
GEN_AI_REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_TEMPERATURE = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P = "gen_ai.request.top_p"
GEN_AI_REQUEST_SEED = "gen_ai.request.seed"
GEN_AI_OUTPUT_TYPE = "gen_ai.output.type"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_RESPONSE_ID = "gen_ai.response.id"
GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS = "gen_ai.usage.reasoning.output_tokens"

MUX_ATTEMPT_ID = "modelmuxer.attempt.id"
MUX_ATTEMPT_NUMBER = "modelmuxer.attempt.number"
MUX_DEPLOYMENT = "modelmuxer.deployment"
MUX_CACHE = "modelmuxer.cache"
MUX_COST_NANOS = "modelmuxer.cost.nanos"
MUX_REASON = "modelmuxer.reason"
MUX_RUN_ID = "modelmuxer.run.id"
MUX_OPERATION_ID = "modelmuxer.operation.id"
MUX_STRATEGY = "modelmuxer.routing.strategy"

# Values of gen_ai.operation.name
CHAT = "chat"
EMBEDDINGS = "embeddings"

# gen_ai.provider.name, where the conventions' name is not the catalogue's
GEN_AI_PROVIDERS = {"mistral": "mistral_ai", "gemini": "gcp.gemini", "xai": "x_ai"}

# --- metrics ---------------------------------------------------------------------------------------------------------
RPC_SERVER_DURATION = "rpc_server_call_duration_seconds"
RPC_SERVER_ACTIVE = "modelmuxer_rpc_server_active_calls"
TUNNEL_CALLS = "modelmuxer_tunnel_calls_total"
TUNNEL_BATCHES = "modelmuxer_tunnel_batches_sent_total"
TUNNEL_FRAMES = "modelmuxer_tunnel_frames_sent_total"
TUNNELS = "modelmuxer_tunnels"
HTTP_SERVER_DURATION = "http_server_request_duration_seconds"
REFUSED = "modelmuxer_refused_calls_total"
ERRORS = "modelmuxer_errors_total"
GEN_AI_DURATION = "gen_ai_client_operation_duration_seconds"
GEN_AI_TIME_TO_FIRST_CHUNK = "gen_ai_client_operation_time_to_first_chunk_seconds"
GEN_AI_TIME_PER_CHUNK = "gen_ai_client_operation_time_per_output_chunk_seconds"
GEN_AI_TOKEN_USAGE = "gen_ai_client_token_usage"
TIME_TO_FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds"
TOKENS = "modelmuxer_tokens_total"
COST = "modelmuxer_cost_nanos_total"
REQUESTS = "modelmuxer_requests_total"
FAILOVERS = "modelmuxer_failovers_total"
CACHE_OUTCOMES = "modelmuxer_cache_outcomes_total"
PROVIDER_CONNECTIONS = "modelmuxer_provider_busy_connections"
CACHE_LOOKUPS = "modelmuxer_cache_lookups_total"
CACHE_ENTRIES = "modelmuxer_cache_entries"
CACHE_BYTES = "modelmuxer_cache_bytes"
SEMANTIC_LOOKUPS = "modelmuxer_semantic_lookups_total"
SEMANTIC_VERDICTS = "modelmuxer_semantic_verdicts_total"
SEMANTIC_BYTES = "modelmuxer_semantic_bytes"
SEMANTIC_PARTITIONS = "modelmuxer_semantic_partitions"
CACHE_LOOKUP_DURATION = "modelmuxer_cache_lookup_seconds"
CACHE_TENANT_OUTCOMES = "modelmuxer_cache_tenant_outcomes_total"
CACHE_SAVED = "modelmuxer_cache_saved_nanos_total"
CACHE_FLIGHTS = "modelmuxer_cache_flights"
CACHE_REMOVED = "modelmuxer_cache_removed_total"
CACHE_STORE_UP = "modelmuxer_cache_store_up"
CACHE_STORE_CONNECTIONS = "modelmuxer_cache_store_connections"
CACHE_STORE_BUSY = "modelmuxer_cache_store_busy_connections"
CACHE_STORE_TIMEOUT = "modelmuxer_cache_store_timeout_seconds"
CACHE_STORE_DURATION = "modelmuxer_cache_store_duration_seconds"
CACHE_STORE_UNANSWERED = "modelmuxer_cache_store_unanswered_total"
CACHE_STORE_REFUSED = "modelmuxer_cache_store_refused_total"
CACHE_UNREADABLE = "modelmuxer_cache_unreadable_total"
JOURNAL_RECORDS = "modelmuxer_journal_records_total"
JOURNAL_BYTES = "modelmuxer_journal_bytes"
JOURNAL_PENDING = "modelmuxer_journal_pending_records"
JOURNAL_OLDEST_AGE = "modelmuxer_journal_oldest_pending_seconds"
JOURNAL_SHIPPED = "modelmuxer_journal_shipped_records_total"
JOURNAL_REFUSED = "modelmuxer_journal_refused_records_total"
JOURNAL_DAMAGED = "modelmuxer_journal_damaged_bytes_total"
LEDGER_ENTRIES = "modelmuxer_ledger_entries_total"
BUDGET_THRESHOLDS = "modelmuxer_budget_thresholds_total"
WEBHOOK_DELIVERIES = "modelmuxer_webhook_deliveries_total"
UNRESERVED_CALLS = "modelmuxer_unreserved_calls_total"
CEILING_REFUSALS = "modelmuxer_ceiling_refusals_total"
LEASES_CLOSED_IN_DOUBT = "modelmuxer_leases_closed_in_doubt_total"
STORE_CONNECTIONS = "modelmuxer_store_connections"
STORE_CONNECTIONS_MAX = "modelmuxer_store_connections_max"
STORE_WAITING = "modelmuxer_store_connection_waiting_calls"
STORE_WAIT = "modelmuxer_store_connection_wait_seconds"
STORE_WAIT_TIMEOUTS = "modelmuxer_store_connection_timeouts_total"
STORE_ERRORS = "modelmuxer_store_errors_total"
ADDED_TIME = "modelmuxer_added_seconds"
SCALER_REPLICAS = "modelmuxer_scaler_replicas"
SCALER_WANTED = "modelmuxer_scaler_wanted_replicas"
EVENT_LOOP_LAG = "modelmuxer_event_loop_lag_seconds"
SPANS_DROPPED = "modelmuxer_spans_dropped_total"
BUILD_INFO = "modelmuxer_build_info"

# --- buckets of the conventions --------------------------------------------------------------------------------------
RPC_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
GEN_AI_DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
GEN_AI_TOKEN_BUCKETS = tuple(4.0**power for power in range(14))
TIME_TO_FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
STORE_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
LOOKUP_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25)
LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
