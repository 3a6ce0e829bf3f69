import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from modelmuxer.chat.v1 import chat_pb2 as _chat_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CacheKey(_message.Message):
    __slots__ = ("tenant", "digest")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    digest: bytes
    def __init__(self, tenant: _Optional[str] = ..., digest: _Optional[bytes] = ...) -> None: ...

class LookupRequest(_message.Message):
    __slots__ = ("key", "max_age", "offer", "stale")
    KEY_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    key: CacheKey
    max_age: _duration_pb2.Duration
    offer: FlightOffer
    stale: _duration_pb2.Duration
    def __init__(self, key: _Optional[_Union[CacheKey, _Mapping]] = ..., max_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., offer: _Optional[_Union[FlightOffer, _Mapping]] = ..., stale: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class FlightOffer(_message.Message):
    __slots__ = ("flight", "router")
    FLIGHT_FIELD_NUMBER: _ClassVar[int]
    ROUTER_FIELD_NUMBER: _ClassVar[int]
    flight: bytes
    router: str
    def __init__(self, flight: _Optional[bytes] = ..., router: _Optional[str] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("answer", "age", "flight", "watch_wanted")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    FLIGHT_FIELD_NUMBER: _ClassVar[int]
    WATCH_WANTED_FIELD_NUMBER: _ClassVar[int]
    answer: _chat_pb2.ChatResponse
    age: _duration_pb2.Duration
    flight: bytes
    watch_wanted: str
    def __init__(self, answer: _Optional[_Union[_chat_pb2.ChatResponse, _Mapping]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., flight: _Optional[bytes] = ..., watch_wanted: _Optional[str] = ...) -> None: ...

class FillRequest(_message.Message):
    __slots__ = ("open", "event", "answer", "failure", "left")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    open: FillOpen
    event: _chat_pb2.ChatEvent
    answer: _chat_pb2.ChatResponse
    failure: FillFailure
    left: FillLeft
    def __init__(self, open: _Optional[_Union[FillOpen, _Mapping]] = ..., event: _Optional[_Union[_chat_pb2.ChatEvent, _Mapping]] = ..., answer: _Optional[_Union[_chat_pb2.ChatResponse, _Mapping]] = ..., failure: _Optional[_Union[FillFailure, _Mapping]] = ..., left: _Optional[_Union[FillLeft, _Mapping]] = ...) -> None: ...

class FillFailure(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: bytes
    def __init__(self, status: _Optional[bytes] = ...) -> None: ...

class FillLeft(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FillOpen(_message.Message):
    __slots__ = ("key", "ttl", "answer", "flight", "alias", "tags", "refusal_ttl")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    FLIGHT_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_TTL_FIELD_NUMBER: _ClassVar[int]
    key: CacheKey
    ttl: _duration_pb2.Duration
    answer: _chat_pb2.ChatResponse
    flight: bytes
    alias: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    refusal_ttl: _duration_pb2.Duration
    def __init__(self, key: _Optional[_Union[CacheKey, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., answer: _Optional[_Union[_chat_pb2.ChatResponse, _Mapping]] = ..., flight: _Optional[bytes] = ..., alias: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., refusal_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class FillResponse(_message.Message):
    __slots__ = ("stored", "reason")
    STORED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    stored: bool
    reason: str
    def __init__(self, stored: bool = ..., reason: _Optional[str] = ...) -> None: ...

class SemanticQuestion(_message.Message):
    __slots__ = ("partition", "text", "vector")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    partition: CacheKey
    text: str
    vector: bytes
    def __init__(self, partition: _Optional[_Union[CacheKey, _Mapping]] = ..., text: _Optional[str] = ..., vector: _Optional[bytes] = ..., **kwargs) -> None: ...

class FindSimilarRequest(_message.Message):
    __slots__ = ("question", "threshold", "most_wrong")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    MOST_WRONG_FIELD_NUMBER: _ClassVar[int]
    question: SemanticQuestion
    threshold: float
    most_wrong: float
    def __init__(self, question: _Optional[_Union[SemanticQuestion, _Mapping]] = ..., threshold: _Optional[float] = ..., most_wrong: _Optional[float] = ...) -> None: ...

class FindSimilarResponse(_message.Message):
    __slots__ = ("key", "similarity", "difference", "score", "threshold", "near")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SIMILARITY_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    NEAR_FIELD_NUMBER: _ClassVar[int]
    key: CacheKey
    similarity: float
    difference: str
    score: float
    threshold: float
    near: CacheKey
    def __init__(self, key: _Optional[_Union[CacheKey, _Mapping]] = ..., similarity: _Optional[float] = ..., difference: _Optional[str] = ..., score: _Optional[float] = ..., threshold: _Optional[float] = ..., near: _Optional[_Union[CacheKey, _Mapping]] = ...) -> None: ...

class RememberRequest(_message.Message):
    __slots__ = ("question", "key", "ttl", "alias", "model", "tags")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    question: SemanticQuestion
    key: CacheKey
    ttl: _duration_pb2.Duration
    alias: str
    model: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, question: _Optional[_Union[SemanticQuestion, _Mapping]] = ..., key: _Optional[_Union[CacheKey, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., alias: _Optional[str] = ..., model: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ...) -> None: ...

class RememberResponse(_message.Message):
    __slots__ = ("remembered", "reason")
    REMEMBERED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    remembered: bool
    reason: str
    def __init__(self, remembered: bool = ..., reason: _Optional[str] = ...) -> None: ...

class JudgeRequest(_message.Message):
    __slots__ = ("tenant", "score", "wrong")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    CLASS_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    WRONG_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    score: float
    wrong: bool
    def __init__(self, tenant: _Optional[str] = ..., score: _Optional[float] = ..., wrong: bool = ..., **kwargs) -> None: ...

class JudgeResponse(_message.Message):
    __slots__ = ("verdicts", "wrong")
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    WRONG_FIELD_NUMBER: _ClassVar[int]
    verdicts: int
    wrong: int
    def __init__(self, verdicts: _Optional[int] = ..., wrong: _Optional[int] = ...) -> None: ...

class FollowRequest(_message.Message):
    __slots__ = ("key", "flight")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FLIGHT_FIELD_NUMBER: _ClassVar[int]
    key: CacheKey
    flight: bytes
    def __init__(self, key: _Optional[_Union[CacheKey, _Mapping]] = ..., flight: _Optional[bytes] = ...) -> None: ...

class FollowResponse(_message.Message):
    __slots__ = ("event", "answer")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    event: _chat_pb2.ChatEvent
    answer: _chat_pb2.ChatResponse
    def __init__(self, event: _Optional[_Union[_chat_pb2.ChatEvent, _Mapping]] = ..., answer: _Optional[_Union[_chat_pb2.ChatResponse, _Mapping]] = ...) -> None: ...

class WatchFlightsRequest(_message.Message):
    __slots__ = ("router",)
    ROUTER_FIELD_NUMBER: _ClassVar[int]
    router: str
    def __init__(self, router: _Optional[str] = ...) -> None: ...

class WatchFlightsResponse(_message.Message):
    __slots__ = ("flight", "key", "replica")
    FLIGHT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    flight: bytes
    key: CacheKey
    replica: str
    def __init__(self, flight: _Optional[bytes] = ..., key: _Optional[_Union[CacheKey, _Mapping]] = ..., replica: _Optional[str] = ...) -> None: ...

class InvalidateRequest(_message.Message):
    __slots__ = ("tenant", "alias", "model", "tag", "prefix", "all")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    ALL_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    alias: str
    model: str
    tag: str
    prefix: str
    all: bool
    def __init__(self, tenant: _Optional[str] = ..., alias: _Optional[str] = ..., model: _Optional[str] = ..., tag: _Optional[str] = ..., prefix: _Optional[str] = ..., all: bool = ...) -> None: ...

class InvalidateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatsResponse(_message.Message):
    __slots__ = ("entries", "size_bytes", "max_bytes", "evicted", "flights", "shared", "tenants")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    EVICTED_FIELD_NUMBER: _ClassVar[int]
    FLIGHTS_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    entries: int
    size_bytes: int
    max_bytes: int
    evicted: int
    flights: int
    shared: bool
    tenants: _containers.RepeatedCompositeFieldContainer[TenantStats]
    def __init__(self, entries: _Optional[int] = ..., size_bytes: _Optional[int] = ..., max_bytes: _Optional[int] = ..., evicted: _Optional[int] = ..., flights: _Optional[int] = ..., shared: bool = ..., tenants: _Optional[_Iterable[_Union[TenantStats, _Mapping]]] = ...) -> None: ...

class TenantStats(_message.Message):
    __slots__ = ("tenant", "hits", "misses", "follows", "saved_nanos")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    HITS_FIELD_NUMBER: _ClassVar[int]
    MISSES_FIELD_NUMBER: _ClassVar[int]
    FOLLOWS_FIELD_NUMBER: _ClassVar[int]
    SAVED_NANOS_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    hits: int
    misses: int
    follows: int
    saved_nanos: int
    def __init__(self, tenant: _Optional[str] = ..., hits: _Optional[int] = ..., misses: _Optional[int] = ..., follows: _Optional[int] = ..., saved_nanos: _Optional[int] = ...) -> None: ...
