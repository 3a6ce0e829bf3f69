import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from modelmuxer.chat.v1 import chat_pb2 as _chat_pb2
from modelmuxer.embedding.v1 import embedding_pb2 as _embedding_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenerateRequest(_message.Message):
    __slots__ = ("attempt_id", "model", "deployments", "chat", "billing_context", "lease_expire_time")
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    CHAT_FIELD_NUMBER: _ClassVar[int]
    BILLING_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    model: str
    deployments: _containers.RepeatedScalarFieldContainer[str]
    chat: _chat_pb2.ChatRequest
    billing_context: bytes
    lease_expire_time: _timestamp_pb2.Timestamp
    def __init__(self, attempt_id: _Optional[str] = ..., model: _Optional[str] = ..., deployments: _Optional[_Iterable[str]] = ..., chat: _Optional[_Union[_chat_pb2.ChatRequest, _Mapping]] = ..., billing_context: _Optional[bytes] = ..., lease_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class EmbedRequest(_message.Message):
    __slots__ = ("attempt_id", "model", "deployments", "embedding", "billing_context", "lease_expire_time")
    ATTEMPT_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    EMBEDDING_FIELD_NUMBER: _ClassVar[int]
    BILLING_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    LEASE_EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    attempt_id: str
    model: str
    deployments: _containers.RepeatedScalarFieldContainer[str]
    embedding: _embedding_pb2.EmbedRequest
    billing_context: bytes
    lease_expire_time: _timestamp_pb2.Timestamp
    def __init__(self, attempt_id: _Optional[str] = ..., model: _Optional[str] = ..., deployments: _Optional[_Iterable[str]] = ..., embedding: _Optional[_Union[_embedding_pb2.EmbedRequest, _Mapping]] = ..., billing_context: _Optional[bytes] = ..., lease_expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class EmbedResponse(_message.Message):
    __slots__ = ("embeddings", "deployment", "region", "provider_model", "provider_request_id", "usage")
    EMBEDDINGS_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_MODEL_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    embeddings: _containers.RepeatedCompositeFieldContainer[_embedding_pb2.Embedding]
    deployment: str
    region: str
    provider_model: str
    provider_request_id: str
    usage: _chat_pb2.Usage
    def __init__(self, embeddings: _Optional[_Iterable[_Union[_embedding_pb2.Embedding, _Mapping]]] = ..., deployment: _Optional[str] = ..., region: _Optional[str] = ..., provider_model: _Optional[str] = ..., provider_request_id: _Optional[str] = ..., usage: _Optional[_Union[_chat_pb2.Usage, _Mapping]] = ...) -> None: ...

class AttemptFailure(_message.Message):
    __slots__ = ("announced", "provider", "deployment", "region", "http_status", "provider_request_id", "usage", "retryable", "provider_code")
    ANNOUNCED_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    HTTP_STATUS_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_CODE_FIELD_NUMBER: _ClassVar[int]
    announced: bool
    provider: str
    deployment: str
    region: str
    http_status: int
    provider_request_id: str
    usage: _chat_pb2.Usage
    retryable: bool
    provider_code: str
    def __init__(self, announced: bool = ..., provider: _Optional[str] = ..., deployment: _Optional[str] = ..., region: _Optional[str] = ..., http_status: _Optional[int] = ..., provider_request_id: _Optional[str] = ..., usage: _Optional[_Union[_chat_pb2.Usage, _Mapping]] = ..., retryable: bool = ..., provider_code: _Optional[str] = ...) -> None: ...

class CountTokensRequest(_message.Message):
    __slots__ = ("model", "chat")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CHAT_FIELD_NUMBER: _ClassVar[int]
    model: str
    chat: _chat_pb2.ChatRequest
    def __init__(self, model: _Optional[str] = ..., chat: _Optional[_Union[_chat_pb2.ChatRequest, _Mapping]] = ...) -> None: ...

class CountTokensResponse(_message.Message):
    __slots__ = ("input_tokens", "source")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    source: _chat_pb2.UsageSource
    def __init__(self, input_tokens: _Optional[int] = ..., source: _Optional[_Union[_chat_pb2.UsageSource, str]] = ...) -> None: ...

class WatchProvidersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WatchProvidersResponse(_message.Message):
    __slots__ = ("deployments", "catalogue_version")
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    CATALOGUE_VERSION_FIELD_NUMBER: _ClassVar[int]
    deployments: _containers.RepeatedCompositeFieldContainer[DeploymentState]
    catalogue_version: str
    def __init__(self, deployments: _Optional[_Iterable[_Union[DeploymentState, _Mapping]]] = ..., catalogue_version: _Optional[str] = ...) -> None: ...

class DeploymentState(_message.Message):
    __slots__ = ("deployment", "model", "available", "unavailable_reason", "time_to_first_token", "tokens_per_second", "error_rate", "in_flight", "calls", "retry_after")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    UNAVAILABLE_REASON_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    ERROR_RATE_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    CALLS_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    model: str
    available: bool
    unavailable_reason: str
    time_to_first_token: _duration_pb2.Duration
    tokens_per_second: float
    error_rate: float
    in_flight: int
    calls: int
    retry_after: _duration_pb2.Duration
    def __init__(self, deployment: _Optional[str] = ..., model: _Optional[str] = ..., available: bool = ..., unavailable_reason: _Optional[str] = ..., time_to_first_token: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., tokens_per_second: _Optional[float] = ..., error_rate: _Optional[float] = ..., in_flight: _Optional[int] = ..., calls: _Optional[int] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
