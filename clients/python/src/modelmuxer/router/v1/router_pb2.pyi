import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from modelmuxer.cache.v1 import cache_pb2 as _cache_pb2
from modelmuxer.chat.v1 import chat_pb2 as _chat_pb2
from modelmuxer.embedding.v1 import embedding_pb2 as _embedding_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CountTokensRequest(_message.Message):
    __slots__ = ("chat",)
    CHAT_FIELD_NUMBER: _ClassVar[int]
    chat: _chat_pb2.ChatRequest
    def __init__(self, chat: _Optional[_Union[_chat_pb2.ChatRequest, _Mapping]] = ...) -> None: ...

class CountTokensResponse(_message.Message):
    __slots__ = ("input_tokens", "source", "model")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    source: _chat_pb2.UsageSource
    model: str
    def __init__(self, input_tokens: _Optional[int] = ..., source: _Optional[_Union[_chat_pb2.UsageSource, str]] = ..., model: _Optional[str] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("chat",)
    CHAT_FIELD_NUMBER: _ClassVar[int]
    chat: _chat_pb2.ChatRequest
    def __init__(self, chat: _Optional[_Union[_chat_pb2.ChatRequest, _Mapping]] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("decision",)
    DECISION_FIELD_NUMBER: _ClassVar[int]
    decision: _chat_pb2.RoutingDecision
    def __init__(self, decision: _Optional[_Union[_chat_pb2.RoutingDecision, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "catalogue_version")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CATALOGUE_VERSION_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    catalogue_version: str
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., catalogue_version: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("id", "provider", "targets", "description", "context_tokens", "max_output_tokens", "input_nanos_per_million", "output_nanos_per_million", "capabilities", "create_time", "available", "unavailable_reason")
    ID_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INPUT_NANOS_PER_MILLION_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_NANOS_PER_MILLION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_REASON_FIELD_NUMBER: _ClassVar[int]
    id: str
    provider: str
    targets: _containers.RepeatedScalarFieldContainer[str]
    description: str
    context_tokens: int
    max_output_tokens: int
    input_nanos_per_million: int
    output_nanos_per_million: int
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    create_time: _timestamp_pb2.Timestamp
    available: bool
    unavailable_reason: str
    def __init__(self, id: _Optional[str] = ..., provider: _Optional[str] = ..., targets: _Optional[_Iterable[str]] = ..., description: _Optional[str] = ..., context_tokens: _Optional[int] = ..., max_output_tokens: _Optional[int] = ..., input_nanos_per_million: _Optional[int] = ..., output_nanos_per_million: _Optional[int] = ..., capabilities: _Optional[_Iterable[str]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., available: bool = ..., unavailable_reason: _Optional[str] = ...) -> None: ...

class JudgeHitRequest(_message.Message):
    __slots__ = ("hit", "wrong")
    HIT_FIELD_NUMBER: _ClassVar[int]
    WRONG_FIELD_NUMBER: _ClassVar[int]
    hit: str
    wrong: bool
    def __init__(self, hit: _Optional[str] = ..., wrong: bool = ...) -> None: ...

class JudgeHitResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
