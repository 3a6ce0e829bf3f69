import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from modelmuxer.chat.v1 import chat_pb2 as _chat_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Scope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCOPE_UNSPECIFIED: _ClassVar[Scope]
    SCOPE_CHAT: _ClassVar[Scope]
    SCOPE_ADMIN: _ClassVar[Scope]

class EntryState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENTRY_STATE_UNSPECIFIED: _ClassVar[EntryState]
    ENTRY_STATE_PENDING: _ClassVar[EntryState]
    ENTRY_STATE_POSTED: _ClassVar[EntryState]
    ENTRY_STATE_ESTIMATED: _ClassVar[EntryState]
    ENTRY_STATE_VOIDED: _ClassVar[EntryState]

class SpendDimension(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPEND_DIMENSION_UNSPECIFIED: _ClassVar[SpendDimension]
    SPEND_DIMENSION_MODEL: _ClassVar[SpendDimension]
    SPEND_DIMENSION_USER: _ClassVar[SpendDimension]
    SPEND_DIMENSION_DAY: _ClassVar[SpendDimension]
    SPEND_DIMENSION_TENANT: _ClassVar[SpendDimension]
    SPEND_DIMENSION_KEY: _ClassVar[SpendDimension]
    SPEND_DIMENSION_PROVIDER: _ClassVar[SpendDimension]

class CeilingScope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CEILING_SCOPE_UNSPECIFIED: _ClassVar[CeilingScope]
    CEILING_SCOPE_TENANT: _ClassVar[CeilingScope]
    CEILING_SCOPE_TEAM: _ClassVar[CeilingScope]
    CEILING_SCOPE_USER: _ClassVar[CeilingScope]
    CEILING_SCOPE_KEY: _ClassVar[CeilingScope]
    CEILING_SCOPE_RUN: _ClassVar[CeilingScope]
    CEILING_SCOPE_TAG: _ClassVar[CeilingScope]
    CEILING_SCOPE_MODEL: _ClassVar[CeilingScope]

class BudgetPeriod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUDGET_PERIOD_UNSPECIFIED: _ClassVar[BudgetPeriod]
    BUDGET_PERIOD_FOREVER: _ClassVar[BudgetPeriod]
    BUDGET_PERIOD_HOUR: _ClassVar[BudgetPeriod]
    BUDGET_PERIOD_DAY: _ClassVar[BudgetPeriod]
    BUDGET_PERIOD_WEEK: _ClassVar[BudgetPeriod]
    BUDGET_PERIOD_MONTH: _ClassVar[BudgetPeriod]

class BudgetMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BUDGET_MODE_UNSPECIFIED: _ClassVar[BudgetMode]
    BUDGET_MODE_ADVISORY: _ClassVar[BudgetMode]
    BUDGET_MODE_SOFT: _ClassVar[BudgetMode]
    BUDGET_MODE_HARD: _ClassVar[BudgetMode]

class OnExceed(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_EXCEED_UNSPECIFIED: _ClassVar[OnExceed]
    ON_EXCEED_REFUSE: _ClassVar[OnExceed]
    ON_EXCEED_DOWNGRADE: _ClassVar[OnExceed]

class CeilingUnit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CEILING_UNIT_UNSPECIFIED: _ClassVar[CeilingUnit]
    CEILING_UNIT_NANOS: _ClassVar[CeilingUnit]
    CEILING_UNIT_REQUESTS: _ClassVar[CeilingUnit]
    CEILING_UNIT_TOKENS: _ClassVar[CeilingUnit]
    CEILING_UNIT_CALLS: _ClassVar[CeilingUnit]

class OnOutage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_OUTAGE_UNSPECIFIED: _ClassVar[OnOutage]
    ON_OUTAGE_CLOSED: _ClassVar[OnOutage]
    ON_OUTAGE_OPEN: _ClassVar[OnOutage]
SCOPE_UNSPECIFIED: Scope
SCOPE_CHAT: Scope
SCOPE_ADMIN: Scope
ENTRY_STATE_UNSPECIFIED: EntryState
ENTRY_STATE_PENDING: EntryState
ENTRY_STATE_POSTED: EntryState
ENTRY_STATE_ESTIMATED: EntryState
ENTRY_STATE_VOIDED: EntryState
SPEND_DIMENSION_UNSPECIFIED: SpendDimension
SPEND_DIMENSION_MODEL: SpendDimension
SPEND_DIMENSION_USER: SpendDimension
SPEND_DIMENSION_DAY: SpendDimension
SPEND_DIMENSION_TENANT: SpendDimension
SPEND_DIMENSION_KEY: SpendDimension
SPEND_DIMENSION_PROVIDER: SpendDimension
CEILING_SCOPE_UNSPECIFIED: CeilingScope
CEILING_SCOPE_TENANT: CeilingScope
CEILING_SCOPE_TEAM: CeilingScope
CEILING_SCOPE_USER: CeilingScope
CEILING_SCOPE_KEY: CeilingScope
CEILING_SCOPE_RUN: CeilingScope
CEILING_SCOPE_TAG: CeilingScope
CEILING_SCOPE_MODEL: CeilingScope
BUDGET_PERIOD_UNSPECIFIED: BudgetPeriod
BUDGET_PERIOD_FOREVER: BudgetPeriod
BUDGET_PERIOD_HOUR: BudgetPeriod
BUDGET_PERIOD_DAY: BudgetPeriod
BUDGET_PERIOD_WEEK: BudgetPeriod
BUDGET_PERIOD_MONTH: BudgetPeriod
BUDGET_MODE_UNSPECIFIED: BudgetMode
BUDGET_MODE_ADVISORY: BudgetMode
BUDGET_MODE_SOFT: BudgetMode
BUDGET_MODE_HARD: BudgetMode
ON_EXCEED_UNSPECIFIED: OnExceed
ON_EXCEED_REFUSE: OnExceed
ON_EXCEED_DOWNGRADE: OnExceed
CEILING_UNIT_UNSPECIFIED: CeilingUnit
CEILING_UNIT_NANOS: CeilingUnit
CEILING_UNIT_REQUESTS: CeilingUnit
CEILING_UNIT_TOKENS: CeilingUnit
CEILING_UNIT_CALLS: CeilingUnit
ON_OUTAGE_UNSPECIFIED: OnOutage
ON_OUTAGE_CLOSED: OnOutage
ON_OUTAGE_OPEN: OnOutage

class Principal(_message.Message):
    __slots__ = ("tenant", "user", "key_id", "scopes", "max_output_tokens", "models", "team")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    TEAM_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    user: str
    key_id: str
    scopes: _containers.RepeatedScalarFieldContainer[Scope]
    max_output_tokens: int
    models: _containers.RepeatedScalarFieldContainer[str]
    team: str
    def __init__(self, tenant: _Optional[str] = ..., user: _Optional[str] = ..., key_id: _Optional[str] = ..., scopes: _Optional[_Iterable[_Union[Scope, str]]] = ..., max_output_tokens: _Optional[int] = ..., models: _Optional[_Iterable[str]] = ..., team: _Optional[str] = ...) -> None: ...

class AuthenticateRequest(_message.Message):
    __slots__ = ("key_sha256",)
    KEY_SHA256_FIELD_NUMBER: _ClassVar[int]
    key_sha256: bytes
    def __init__(self, key_sha256: _Optional[bytes] = ...) -> None: ...

class AuthenticateResponse(_message.Message):
    __slots__ = ("principal", "budgets", "limits", "on_outage")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    ON_OUTAGE_FIELD_NUMBER: _ClassVar[int]
    principal: Principal
    budgets: _containers.RepeatedCompositeFieldContainer[Budget]
    limits: _containers.RepeatedCompositeFieldContainer[Limit]
    on_outage: OnOutage
    def __init__(self, principal: _Optional[_Union[Principal, _Mapping]] = ..., budgets: _Optional[_Iterable[_Union[Budget, _Mapping]]] = ..., limits: _Optional[_Iterable[_Union[Limit, _Mapping]]] = ..., on_outage: _Optional[_Union[OnOutage, str]] = ...) -> None: ...

class WatchPoliciesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchPoliciesResponse(_message.Message):
    __slots__ = ("changed_key_sha256", "changed_tenants", "wanted_accounts")
    CHANGED_KEY_SHA256_FIELD_NUMBER: _ClassVar[int]
    CHANGED_TENANTS_FIELD_NUMBER: _ClassVar[int]
    WANTED_ACCOUNTS_FIELD_NUMBER: _ClassVar[int]
    changed_key_sha256: _containers.RepeatedScalarFieldContainer[bytes]
    changed_tenants: _containers.RepeatedScalarFieldContainer[str]
    wanted_accounts: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, changed_key_sha256: _Optional[_Iterable[bytes]] = ..., changed_tenants: _Optional[_Iterable[str]] = ..., wanted_accounts: _Optional[_Iterable[str]] = ...) -> None: ...

class RecordRequest(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[JournalRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[JournalRecord, _Mapping]]] = ...) -> None: ...

class RecordResponse(_message.Message):
    __slots__ = ("record_ids",)
    RECORD_IDS_FIELD_NUMBER: _ClassVar[int]
    record_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, record_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class JournalRecord(_message.Message):
    __slots__ = ("id", "attempt_id", "time", "witness", "announced", "outcome", "observed", "cache_hit", "billed")
    ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    WITNESS_FIELD_NUMBER: _ClassVar[int]
    ANNOUNCED_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    OBSERVED_FIELD_NUMBER: _ClassVar[int]
    CACHE_HIT_FIELD_NUMBER: _ClassVar[int]
    BILLED_FIELD_NUMBER: _ClassVar[int]
    id: str
    attempt_id: str
    time: _timestamp_pb2.Timestamp
    witness: str
    announced: Announced
    outcome: Outcome
    observed: Outcome
    cache_hit: CacheHit
    billed: Billed
    def __init__(self, id: _Optional[str] = ..., attempt_id: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., witness: _Optional[str] = ..., announced: _Optional[_Union[Announced, _Mapping]] = ..., outcome: _Optional[_Union[Outcome, _Mapping]] = ..., observed: _Optional[_Union[Outcome, _Mapping]] = ..., cache_hit: _Optional[_Union[CacheHit, _Mapping]] = ..., billed: _Optional[_Union[Billed, _Mapping]] = ...) -> None: ...

class Announced(_message.Message):
    __slots__ = ("billing_context", "provider", "model", "deployment", "region", "estimated_input_tokens")
    BILLING_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    billing_context: bytes
    provider: str
    model: str
    deployment: str
    region: str
    estimated_input_tokens: int
    def __init__(self, billing_context: _Optional[bytes] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., deployment: _Optional[str] = ..., region: _Optional[str] = ..., estimated_input_tokens: _Optional[int] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("usage", "provider_request_id", "status", "reason", "complete", "unbilled", "time_to_first_token", "duration", "billing_context", "provider", "model", "deployment", "region")
    USAGE_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    UNBILLED_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    BILLING_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    usage: _chat_pb2.Usage
    provider_request_id: str
    status: str
    reason: str
    complete: bool
    unbilled: bool
    time_to_first_token: _duration_pb2.Duration
    duration: _duration_pb2.Duration
    billing_context: bytes
    provider: str
    model: str
    deployment: str
    region: str
    def __init__(self, usage: _Optional[_Union[_chat_pb2.Usage, _Mapping]] = ..., provider_request_id: _Optional[str] = ..., status: _Optional[str] = ..., reason: _Optional[str] = ..., complete: bool = ..., unbilled: bool = ..., time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., billing_context: _Optional[bytes] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., deployment: _Optional[str] = ..., region: _Optional[str] = ...) -> None: ...

class CacheHit(_message.Message):
    __slots__ = ("billing_context", "model", "provider", "saved_nanos")
    BILLING_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    SAVED_NANOS_FIELD_NUMBER: _ClassVar[int]
    billing_context: bytes
    model: str
    provider: str
    saved_nanos: int
    def __init__(self, billing_context: _Optional[bytes] = ..., model: _Optional[str] = ..., provider: _Optional[str] = ..., saved_nanos: _Optional[int] = ...) -> None: ...

class Billed(_message.Message):
    __slots__ = ("cost_nanos", "input_tokens", "output_tokens", "provider_request_id", "absent", "read_time")
    COST_NANOS_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ABSENT_FIELD_NUMBER: _ClassVar[int]
    READ_TIME_FIELD_NUMBER: _ClassVar[int]
    cost_nanos: int
    input_tokens: int
    output_tokens: int
    provider_request_id: str
    absent: bool
    read_time: _timestamp_pb2.Timestamp
    def __init__(self, cost_nanos: _Optional[int] = ..., input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., provider_request_id: _Optional[str] = ..., absent: bool = ..., read_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class BillingContext(_message.Message):
    __slots__ = ("principal", "price", "operation_id", "run_id", "request_id", "attempt_number", "tags", "requested_model", "holds")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_MODEL_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    principal: Principal
    price: Price
    operation_id: str
    run_id: str
    request_id: str
    attempt_number: int
    tags: _containers.ScalarMap[str, str]
    requested_model: str
    holds: _containers.RepeatedCompositeFieldContainer[LeaseHold]
    def __init__(self, principal: _Optional[_Union[Principal, _Mapping]] = ..., price: _Optional[_Union[Price, _Mapping]] = ..., operation_id: _Optional[str] = ..., run_id: _Optional[str] = ..., request_id: _Optional[str] = ..., attempt_number: _Optional[int] = ..., tags: _Optional[_Mapping[str, str]] = ..., requested_model: _Optional[str] = ..., holds: _Optional[_Iterable[_Union[LeaseHold, _Mapping]]] = ...) -> None: ...

class LeaseHold(_message.Message):
    __slots__ = ("lease_id", "account", "held_nanos")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    HELD_NANOS_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    account: str
    held_nanos: int
    def __init__(self, lease_id: _Optional[str] = ..., account: _Optional[str] = ..., held_nanos: _Optional[int] = ...) -> None: ...

class Price(_message.Message):
    __slots__ = ("version", "rows", "factors", "call_nanos", "server_tool_call_nanos")
    class ServerToolCallNanosEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    FACTORS_FIELD_NUMBER: _ClassVar[int]
    CALL_NANOS_FIELD_NUMBER: _ClassVar[int]
    SERVER_TOOL_CALL_NANOS_FIELD_NUMBER: _ClassVar[int]
    version: str
    rows: _containers.RepeatedCompositeFieldContainer[PriceRow]
    factors: _containers.RepeatedCompositeFieldContainer[PriceFactor]
    call_nanos: int
    server_tool_call_nanos: _containers.ScalarMap[str, int]
    def __init__(self, version: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[PriceRow, _Mapping]]] = ..., factors: _Optional[_Iterable[_Union[PriceFactor, _Mapping]]] = ..., call_nanos: _Optional[int] = ..., server_tool_call_nanos: _Optional[_Mapping[str, int]] = ...) -> None: ...

class PriceRow(_message.Message):
    __slots__ = ("service_tier", "above_input_tokens", "input", "output", "cached_input", "cache_write", "cache_write_1h", "reasoning", "input_audio", "output_audio")
    SERVICE_TIER_FIELD_NUMBER: _ClassVar[int]
    ABOVE_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CACHED_INPUT_FIELD_NUMBER: _ClassVar[int]
    CACHE_WRITE_FIELD_NUMBER: _ClassVar[int]
    CACHE_WRITE_1H_FIELD_NUMBER: _ClassVar[int]
    REASONING_FIELD_NUMBER: _ClassVar[int]
    INPUT_AUDIO_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_AUDIO_FIELD_NUMBER: _ClassVar[int]
    service_tier: str
    above_input_tokens: int
    input: int
    output: int
    cached_input: int
    cache_write: int
    cache_write_1h: int
    reasoning: int
    input_audio: int
    output_audio: int
    def __init__(self, service_tier: _Optional[str] = ..., above_input_tokens: _Optional[int] = ..., input: _Optional[int] = ..., output: _Optional[int] = ..., cached_input: _Optional[int] = ..., cache_write: _Optional[int] = ..., cache_write_1h: _Optional[int] = ..., reasoning: _Optional[int] = ..., input_audio: _Optional[int] = ..., output_audio: _Optional[int] = ...) -> None: ...

class PriceFactor(_message.Message):
    __slots__ = ("dimension", "value", "numerator", "denominator")
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    NUMERATOR_FIELD_NUMBER: _ClassVar[int]
    DENOMINATOR_FIELD_NUMBER: _ClassVar[int]
    dimension: str
    value: str
    numerator: int
    denominator: int
    def __init__(self, dimension: _Optional[str] = ..., value: _Optional[str] = ..., numerator: _Optional[int] = ..., denominator: _Optional[int] = ...) -> None: ...

class ClaimOperationRequest(_message.Message):
    __slots__ = ("key_id", "operation_id", "body_sha256", "owner", "ttl")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    BODY_SHA256_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    operation_id: str
    body_sha256: bytes
    owner: str
    ttl: _duration_pb2.Duration
    def __init__(self, key_id: _Optional[str] = ..., operation_id: _Optional[str] = ..., body_sha256: _Optional[bytes] = ..., owner: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ClaimOperationResponse(_message.Message):
    __slots__ = ("answer",)
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    answer: _chat_pb2.ChatResponse
    def __init__(self, answer: _Optional[_Union[_chat_pb2.ChatResponse, _Mapping]] = ...) -> None: ...

class EndOperationRequest(_message.Message):
    __slots__ = ("key_id", "operation_id", "owner", "answer")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    operation_id: str
    owner: str
    answer: _chat_pb2.ChatResponse
    def __init__(self, key_id: _Optional[str] = ..., operation_id: _Optional[str] = ..., owner: _Optional[str] = ..., answer: _Optional[_Union[_chat_pb2.ChatResponse, _Mapping]] = ...) -> None: ...

class EndOperationResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Entry(_message.Message):
    __slots__ = ("attempt_id", "create_time", "state", "cost_nanos", "principal", "provider", "model", "deployment", "region", "usage", "price_version", "provider_request_id", "request_id", "attempt_number", "operation_id", "run_id", "tags", "status", "reason", "saved_nanos", "requested_model", "billed", "holds")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    COST_NANOS_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    PRICE_VERSION_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    OPERATION_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SAVED_NANOS_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_MODEL_FIELD_NUMBER: _ClassVar[int]
    BILLED_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    create_time: _timestamp_pb2.Timestamp
    state: EntryState
    cost_nanos: int
    principal: Principal
    provider: str
    model: str
    deployment: str
    region: str
    usage: _chat_pb2.Usage
    price_version: str
    provider_request_id: str
    request_id: str
    attempt_number: int
    operation_id: str
    run_id: str
    tags: _containers.ScalarMap[str, str]
    status: str
    reason: str
    saved_nanos: int
    requested_model: str
    billed: bool
    holds: _containers.RepeatedCompositeFieldContainer[LeaseHold]
    def __init__(self, attempt_id: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[_Union[EntryState, str]] = ..., cost_nanos: _Optional[int] = ..., principal: _Optional[_Union[Principal, _Mapping]] = ..., provider: _Optional[str] = ..., model: _Optional[str] = ..., deployment: _Optional[str] = ..., region: _Optional[str] = ..., usage: _Optional[_Union[_chat_pb2.Usage, _Mapping]] = ..., price_version: _Optional[str] = ..., provider_request_id: _Optional[str] = ..., request_id: _Optional[str] = ..., attempt_number: _Optional[int] = ..., operation_id: _Optional[str] = ..., run_id: _Optional[str] = ..., tags: _Optional[_Mapping[str, str]] = ..., status: _Optional[str] = ..., reason: _Optional[str] = ..., saved_nanos: _Optional[int] = ..., requested_model: _Optional[str] = ..., billed: bool = ..., holds: _Optional[_Iterable[_Union[LeaseHold, _Mapping]]] = ...) -> None: ...

class GetSpendRequest(_message.Message):
    __slots__ = ("group_by", "start_time", "end_time", "tenant")
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    group_by: _containers.RepeatedScalarFieldContainer[SpendDimension]
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    tenant: str
    def __init__(self, group_by: _Optional[_Iterable[_Union[SpendDimension, str]]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tenant: _Optional[str] = ...) -> None: ...

class GetSpendResponse(_message.Message):
    __slots__ = ("rows", "total_nanos")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NANOS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[SpendRow]
    total_nanos: int
    def __init__(self, rows: _Optional[_Iterable[_Union[SpendRow, _Mapping]]] = ..., total_nanos: _Optional[int] = ...) -> None: ...

class SpendRow(_message.Message):
    __slots__ = ("group", "cost_nanos", "estimated_nanos", "saved_nanos", "attempts", "cache_hits", "input_tokens", "output_tokens")
    class GroupEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    GROUP_FIELD_NUMBER: _ClassVar[int]
    COST_NANOS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_NANOS_FIELD_NUMBER: _ClassVar[int]
    SAVED_NANOS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    CACHE_HITS_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    group: _containers.ScalarMap[str, str]
    cost_nanos: int
    estimated_nanos: int
    saved_nanos: int
    attempts: int
    cache_hits: int
    input_tokens: int
    output_tokens: int
    def __init__(self, group: _Optional[_Mapping[str, str]] = ..., cost_nanos: _Optional[int] = ..., estimated_nanos: _Optional[int] = ..., saved_nanos: _Optional[int] = ..., attempts: _Optional[int] = ..., cache_hits: _Optional[int] = ..., input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ...) -> None: ...

class ListEntriesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "attempt_id", "request_id", "tenant", "state")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    attempt_id: str
    request_id: str
    tenant: str
    state: EntryState
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., attempt_id: _Optional[str] = ..., request_id: _Optional[str] = ..., tenant: _Optional[str] = ..., state: _Optional[_Union[EntryState, str]] = ...) -> None: ...

class ListEntriesResponse(_message.Message):
    __slots__ = ("entries", "next_page_token")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    next_page_token: str
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class PostCorrectionsRequest(_message.Message):
    __slots__ = ("corrections",)
    CORRECTIONS_FIELD_NUMBER: _ClassVar[int]
    corrections: _containers.RepeatedCompositeFieldContainer[Correction]
    def __init__(self, corrections: _Optional[_Iterable[_Union[Correction, _Mapping]]] = ...) -> None: ...

class Correction(_message.Message):
    __slots__ = ("attempt_id", "billed")
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    BILLED_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    billed: Billed
    def __init__(self, attempt_id: _Optional[str] = ..., billed: _Optional[_Union[Billed, _Mapping]] = ...) -> None: ...

class PostCorrectionsResponse(_message.Message):
    __slots__ = ("entries", "unknown_attempt_ids")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_ATTEMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    unknown_attempt_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., unknown_attempt_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class AuditRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class AuditResponse(_message.Message):
    __slots__ = ("ok", "findings", "finding_count", "counts", "total_nanos")
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    OK_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    FINDING_COUNT_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NANOS_FIELD_NUMBER: _ClassVar[int]
    ok: bool
    findings: _containers.RepeatedCompositeFieldContainer[AuditFinding]
    finding_count: int
    counts: _containers.ScalarMap[str, int]
    total_nanos: int
    def __init__(self, ok: bool = ..., findings: _Optional[_Iterable[_Union[AuditFinding, _Mapping]]] = ..., finding_count: _Optional[int] = ..., counts: _Optional[_Mapping[str, int]] = ..., total_nanos: _Optional[int] = ...) -> None: ...

class AuditFinding(_message.Message):
    __slots__ = ("check", "subject", "message")
    CHECK_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    check: str
    subject: str
    message: str
    def __init__(self, check: _Optional[str] = ..., subject: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Key(_message.Message):
    __slots__ = ("id", "name", "tenant", "user", "scopes", "create_time", "revoke_time", "prefix", "max_output_tokens", "models", "team")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    REVOKE_TIME_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    TEAM_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    tenant: str
    user: str
    scopes: _containers.RepeatedScalarFieldContainer[Scope]
    create_time: _timestamp_pb2.Timestamp
    revoke_time: _timestamp_pb2.Timestamp
    prefix: str
    max_output_tokens: int
    models: _containers.RepeatedScalarFieldContainer[str]
    team: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., tenant: _Optional[str] = ..., user: _Optional[str] = ..., scopes: _Optional[_Iterable[_Union[Scope, str]]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revoke_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., prefix: _Optional[str] = ..., max_output_tokens: _Optional[int] = ..., models: _Optional[_Iterable[str]] = ..., team: _Optional[str] = ...) -> None: ...

class CreateKeyRequest(_message.Message):
    __slots__ = ("name", "tenant", "user", "scopes", "max_output_tokens", "models", "team")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    TEAM_FIELD_NUMBER: _ClassVar[int]
    name: str
    tenant: str
    user: str
    scopes: _containers.RepeatedScalarFieldContainer[Scope]
    max_output_tokens: int
    models: _containers.RepeatedScalarFieldContainer[str]
    team: str
    def __init__(self, name: _Optional[str] = ..., tenant: _Optional[str] = ..., user: _Optional[str] = ..., scopes: _Optional[_Iterable[_Union[Scope, str]]] = ..., max_output_tokens: _Optional[int] = ..., models: _Optional[_Iterable[str]] = ..., team: _Optional[str] = ...) -> None: ...

class CreateKeyResponse(_message.Message):
    __slots__ = ("key", "secret")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    key: Key
    secret: str
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., secret: _Optional[str] = ...) -> None: ...

class ListKeysRequest(_message.Message):
    __slots__ = ("tenant", "include_revoked")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_REVOKED_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    include_revoked: bool
    def __init__(self, tenant: _Optional[str] = ..., include_revoked: bool = ...) -> None: ...

class ListKeysResponse(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[Key]
    def __init__(self, keys: _Optional[_Iterable[_Union[Key, _Mapping]]] = ...) -> None: ...

class RevokeKeyRequest(_message.Message):
    __slots__ = ("key_id",)
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    def __init__(self, key_id: _Optional[str] = ...) -> None: ...

class RevokeKeyResponse(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: Key
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("id", "name", "tenant", "scope", "subject", "limit_nanos", "period", "time_zone", "mode", "threshold_percents", "on_exceed", "create_time", "update_time")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_NANOS_FIELD_NUMBER: _ClassVar[int]
    PERIOD_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_PERCENTS_FIELD_NUMBER: _ClassVar[int]
    ON_EXCEED_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    tenant: str
    scope: CeilingScope
    subject: str
    limit_nanos: int
    period: BudgetPeriod
    time_zone: str
    mode: BudgetMode
    threshold_percents: _containers.RepeatedScalarFieldContainer[int]
    on_exceed: OnExceed
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., tenant: _Optional[str] = ..., scope: _Optional[_Union[CeilingScope, str]] = ..., subject: _Optional[str] = ..., limit_nanos: _Optional[int] = ..., period: _Optional[_Union[BudgetPeriod, str]] = ..., time_zone: _Optional[str] = ..., mode: _Optional[_Union[BudgetMode, str]] = ..., threshold_percents: _Optional[_Iterable[int]] = ..., on_exceed: _Optional[_Union[OnExceed, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Limit(_message.Message):
    __slots__ = ("id", "name", "tenant", "scope", "subject", "requests_per_minute", "tokens_per_minute", "concurrent_calls", "create_time", "update_time")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_MINUTE_FIELD_NUMBER: _ClassVar[int]
    CONCURRENT_CALLS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    tenant: str
    scope: CeilingScope
    subject: str
    requests_per_minute: int
    tokens_per_minute: int
    concurrent_calls: int
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., tenant: _Optional[str] = ..., scope: _Optional[_Union[CeilingScope, str]] = ..., subject: _Optional[str] = ..., requests_per_minute: _Optional[int] = ..., tokens_per_minute: _Optional[int] = ..., concurrent_calls: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Tenant(_message.Message):
    __slots__ = ("id", "name", "suspended", "create_time", "update_time")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUSPENDED_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    suspended: bool
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., suspended: bool = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Standing(_message.Message):
    __slots__ = ("limit", "spent", "held", "leased", "start_time", "end_time")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    LEASED_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    limit: int
    spent: int
    held: int
    leased: int
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, limit: _Optional[int] = ..., spent: _Optional[int] = ..., held: _Optional[int] = ..., leased: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Lease(_message.Message):
    __slots__ = ("id", "account", "granted", "expire_time", "ttl", "period_remaining", "standing", "exhausted", "frees")
    ID_FIELD_NUMBER: _ClassVar[int]
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    PERIOD_REMAINING_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    EXHAUSTED_FIELD_NUMBER: _ClassVar[int]
    FREES_FIELD_NUMBER: _ClassVar[int]
    id: str
    account: str
    granted: int
    expire_time: _timestamp_pb2.Timestamp
    ttl: _duration_pb2.Duration
    period_remaining: _duration_pb2.Duration
    standing: Standing
    exhausted: bool
    frees: _duration_pb2.Duration
    def __init__(self, id: _Optional[str] = ..., account: _Optional[str] = ..., granted: _Optional[int] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., period_remaining: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., standing: _Optional[_Union[Standing, _Mapping]] = ..., exhausted: bool = ..., frees: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AcquireLeaseRequest(_message.Message):
    __slots__ = ("lease_id", "ceiling", "tenant", "subject", "holder", "key_id", "need", "want", "wait")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    CEILING_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    NEED_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    ceiling: str
    tenant: str
    subject: str
    holder: str
    key_id: str
    need: int
    want: int
    wait: _duration_pb2.Duration
    def __init__(self, lease_id: _Optional[str] = ..., ceiling: _Optional[str] = ..., tenant: _Optional[str] = ..., subject: _Optional[str] = ..., holder: _Optional[str] = ..., key_id: _Optional[str] = ..., need: _Optional[int] = ..., want: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AcquireLeaseResponse(_message.Message):
    __slots__ = ("lease",)
    LEASE_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ...) -> None: ...

class RenewLeaseRequest(_message.Message):
    __slots__ = ("account", "lease_id", "sequence", "used", "held", "keep", "need", "want", "wait", "unsettled_attempt_ids", "frees")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    NEED_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    UNSETTLED_ATTEMPT_IDS_FIELD_NUMBER: _ClassVar[int]
    FREES_FIELD_NUMBER: _ClassVar[int]
    account: str
    lease_id: str
    sequence: int
    used: int
    held: int
    keep: int
    need: int
    want: int
    wait: _duration_pb2.Duration
    unsettled_attempt_ids: _containers.RepeatedScalarFieldContainer[str]
    frees: _duration_pb2.Duration
    def __init__(self, account: _Optional[str] = ..., lease_id: _Optional[str] = ..., sequence: _Optional[int] = ..., used: _Optional[int] = ..., held: _Optional[int] = ..., keep: _Optional[int] = ..., need: _Optional[int] = ..., want: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., unsettled_attempt_ids: _Optional[_Iterable[str]] = ..., frees: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RenewLeaseResponse(_message.Message):
    __slots__ = ("lease", "settled")
    class SettledEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    LEASE_FIELD_NUMBER: _ClassVar[int]
    SETTLED_FIELD_NUMBER: _ClassVar[int]
    lease: Lease
    settled: _containers.ScalarMap[str, int]
    def __init__(self, lease: _Optional[_Union[Lease, _Mapping]] = ..., settled: _Optional[_Mapping[str, int]] = ...) -> None: ...

class ReturnLeaseRequest(_message.Message):
    __slots__ = ("account", "lease_id", "sequence", "used")
    ACCOUNT_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    account: str
    lease_id: str
    sequence: int
    used: int
    def __init__(self, account: _Optional[str] = ..., lease_id: _Optional[str] = ..., sequence: _Optional[int] = ..., used: _Optional[int] = ...) -> None: ...

class ReturnLeaseResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BudgetRefusal(_message.Message):
    __slots__ = ("scope", "subject", "ceiling", "unit", "limit", "spent", "held", "estimate", "reset_time", "alternatives")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    CEILING_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SPENT_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_FIELD_NUMBER: _ClassVar[int]
    RESET_TIME_FIELD_NUMBER: _ClassVar[int]
    ALTERNATIVES_FIELD_NUMBER: _ClassVar[int]
    scope: CeilingScope
    subject: str
    ceiling: str
    unit: CeilingUnit
    limit: int
    spent: int
    held: int
    estimate: int
    reset_time: _timestamp_pb2.Timestamp
    alternatives: _containers.RepeatedCompositeFieldContainer[Alternative]
    def __init__(self, scope: _Optional[_Union[CeilingScope, str]] = ..., subject: _Optional[str] = ..., ceiling: _Optional[str] = ..., unit: _Optional[_Union[CeilingUnit, str]] = ..., limit: _Optional[int] = ..., spent: _Optional[int] = ..., held: _Optional[int] = ..., estimate: _Optional[int] = ..., reset_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., alternatives: _Optional[_Iterable[_Union[Alternative, _Mapping]]] = ...) -> None: ...

class Alternative(_message.Message):
    __slots__ = ("model", "estimate_nanos")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_NANOS_FIELD_NUMBER: _ClassVar[int]
    model: str
    estimate_nanos: int
    def __init__(self, model: _Optional[str] = ..., estimate_nanos: _Optional[int] = ...) -> None: ...

class ListBudgetsRequest(_message.Message):
    __slots__ = ("tenant", "include_past")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_PAST_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    include_past: bool
    def __init__(self, tenant: _Optional[str] = ..., include_past: bool = ...) -> None: ...

class ListBudgetsResponse(_message.Message):
    __slots__ = ("budgets",)
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    budgets: _containers.RepeatedCompositeFieldContainer[BudgetStatus]
    def __init__(self, budgets: _Optional[_Iterable[_Union[BudgetStatus, _Mapping]]] = ...) -> None: ...

class BudgetStatus(_message.Message):
    __slots__ = ("budget", "tenant", "subject", "standing")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    budget: Budget
    tenant: str
    subject: str
    standing: Standing
    def __init__(self, budget: _Optional[_Union[Budget, _Mapping]] = ..., tenant: _Optional[str] = ..., subject: _Optional[str] = ..., standing: _Optional[_Union[Standing, _Mapping]] = ...) -> None: ...

class CreateBudgetRequest(_message.Message):
    __slots__ = ("budget",)
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    budget: Budget
    def __init__(self, budget: _Optional[_Union[Budget, _Mapping]] = ...) -> None: ...

class CreateBudgetResponse(_message.Message):
    __slots__ = ("budget",)
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    budget: Budget
    def __init__(self, budget: _Optional[_Union[Budget, _Mapping]] = ...) -> None: ...

class UpdateBudgetRequest(_message.Message):
    __slots__ = ("budget", "update_mask")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    budget: Budget
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, budget: _Optional[_Union[Budget, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateBudgetResponse(_message.Message):
    __slots__ = ("budget",)
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    budget: Budget
    def __init__(self, budget: _Optional[_Union[Budget, _Mapping]] = ...) -> None: ...

class DeleteBudgetRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeleteBudgetResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateLimitRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: Limit
    def __init__(self, limit: _Optional[_Union[Limit, _Mapping]] = ...) -> None: ...

class CreateLimitResponse(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: Limit
    def __init__(self, limit: _Optional[_Union[Limit, _Mapping]] = ...) -> None: ...

class ListLimitsRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class ListLimitsResponse(_message.Message):
    __slots__ = ("limits",)
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    limits: _containers.RepeatedCompositeFieldContainer[Limit]
    def __init__(self, limits: _Optional[_Iterable[_Union[Limit, _Mapping]]] = ...) -> None: ...

class UpdateLimitRequest(_message.Message):
    __slots__ = ("limit", "update_mask")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    limit: Limit
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, limit: _Optional[_Union[Limit, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateLimitResponse(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: Limit
    def __init__(self, limit: _Optional[_Union[Limit, _Mapping]] = ...) -> None: ...

class DeleteLimitRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeleteLimitResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateTenantRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: Tenant
    def __init__(self, tenant: _Optional[_Union[Tenant, _Mapping]] = ...) -> None: ...

class CreateTenantResponse(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: Tenant
    def __init__(self, tenant: _Optional[_Union[Tenant, _Mapping]] = ...) -> None: ...

class ListTenantsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTenantsResponse(_message.Message):
    __slots__ = ("tenants",)
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    tenants: _containers.RepeatedCompositeFieldContainer[Tenant]
    def __init__(self, tenants: _Optional[_Iterable[_Union[Tenant, _Mapping]]] = ...) -> None: ...

class UpdateTenantRequest(_message.Message):
    __slots__ = ("tenant", "update_mask")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    tenant: Tenant
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, tenant: _Optional[_Union[Tenant, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateTenantResponse(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: Tenant
    def __init__(self, tenant: _Optional[_Union[Tenant, _Mapping]] = ...) -> None: ...

class DeleteTenantRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeleteTenantResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Team(_message.Message):
    __slots__ = ("id", "tenant", "name", "suspended", "create_time", "update_time")
    ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUSPENDED_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    tenant: str
    name: str
    suspended: bool
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., tenant: _Optional[str] = ..., name: _Optional[str] = ..., suspended: bool = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class User(_message.Message):
    __slots__ = ("id", "tenant", "name", "suspended", "create_time", "update_time")
    ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SUSPENDED_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    tenant: str
    name: str
    suspended: bool
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., tenant: _Optional[str] = ..., name: _Optional[str] = ..., suspended: bool = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("id", "name", "tenant", "scope", "subject", "models", "max_output_tokens", "on_outage", "create_time", "update_time")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ON_OUTAGE_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    tenant: str
    scope: CeilingScope
    subject: str
    models: _containers.RepeatedScalarFieldContainer[str]
    max_output_tokens: int
    on_outage: OnOutage
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., tenant: _Optional[str] = ..., scope: _Optional[_Union[CeilingScope, str]] = ..., subject: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ..., max_output_tokens: _Optional[int] = ..., on_outage: _Optional[_Union[OnOutage, str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CreateTeamRequest(_message.Message):
    __slots__ = ("team",)
    TEAM_FIELD_NUMBER: _ClassVar[int]
    team: Team
    def __init__(self, team: _Optional[_Union[Team, _Mapping]] = ...) -> None: ...

class CreateTeamResponse(_message.Message):
    __slots__ = ("team",)
    TEAM_FIELD_NUMBER: _ClassVar[int]
    team: Team
    def __init__(self, team: _Optional[_Union[Team, _Mapping]] = ...) -> None: ...

class ListTeamsRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class ListTeamsResponse(_message.Message):
    __slots__ = ("teams",)
    TEAMS_FIELD_NUMBER: _ClassVar[int]
    teams: _containers.RepeatedCompositeFieldContainer[Team]
    def __init__(self, teams: _Optional[_Iterable[_Union[Team, _Mapping]]] = ...) -> None: ...

class UpdateTeamRequest(_message.Message):
    __slots__ = ("team", "update_mask")
    TEAM_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    team: Team
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, team: _Optional[_Union[Team, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateTeamResponse(_message.Message):
    __slots__ = ("team",)
    TEAM_FIELD_NUMBER: _ClassVar[int]
    team: Team
    def __init__(self, team: _Optional[_Union[Team, _Mapping]] = ...) -> None: ...

class DeleteTeamRequest(_message.Message):
    __slots__ = ("id", "tenant")
    ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    id: str
    tenant: str
    def __init__(self, id: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class DeleteTeamResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateUserRequest(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: User
    def __init__(self, user: _Optional[_Union[User, _Mapping]] = ...) -> None: ...

class CreateUserResponse(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: User
    def __init__(self, user: _Optional[_Union[User, _Mapping]] = ...) -> None: ...

class ListUsersRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class ListUsersResponse(_message.Message):
    __slots__ = ("users",)
    USERS_FIELD_NUMBER: _ClassVar[int]
    users: _containers.RepeatedCompositeFieldContainer[User]
    def __init__(self, users: _Optional[_Iterable[_Union[User, _Mapping]]] = ...) -> None: ...

class UpdateUserRequest(_message.Message):
    __slots__ = ("user", "update_mask")
    USER_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    user: User
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, user: _Optional[_Union[User, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdateUserResponse(_message.Message):
    __slots__ = ("user",)
    USER_FIELD_NUMBER: _ClassVar[int]
    user: User
    def __init__(self, user: _Optional[_Union[User, _Mapping]] = ...) -> None: ...

class DeleteUserRequest(_message.Message):
    __slots__ = ("id", "tenant")
    ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    id: str
    tenant: str
    def __init__(self, id: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class DeleteUserResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreatePolicyRequest(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...

class CreatePolicyResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...

class ListPoliciesRequest(_message.Message):
    __slots__ = ("tenant",)
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class ListPoliciesResponse(_message.Message):
    __slots__ = ("policies",)
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[Policy]
    def __init__(self, policies: _Optional[_Iterable[_Union[Policy, _Mapping]]] = ...) -> None: ...

class UpdatePolicyRequest(_message.Message):
    __slots__ = ("policy", "update_mask")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    update_mask: _field_mask_pb2.FieldMask
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ...) -> None: ...

class UpdatePolicyResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...

class DeletePolicyRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class DeletePolicyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
