import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from modelmuxer.chat.v1 import chat_pb2 as _chat_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
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
    __slots__ = ("key", "max_age")
    KEY_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    key: CacheKey
    max_age: _duration_pb2.Duration
    def __init__(self, key: _Optional[_Union[CacheKey, _Mapping]] = ..., max_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("answer", "age")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    answer: _chat_pb2.ChatResponse
    age: _duration_pb2.Duration
    def __init__(self, answer: _Optional[_Union[_chat_pb2.ChatResponse, _Mapping]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class FillRequest(_message.Message):
    __slots__ = ("open", "event")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    open: FillOpen
    event: _chat_pb2.ChatEvent
    def __init__(self, open: _Optional[_Union[FillOpen, _Mapping]] = ..., event: _Optional[_Union[_chat_pb2.ChatEvent, _Mapping]] = ...) -> None: ...

class FillOpen(_message.Message):
    __slots__ = ("key", "ttl", "answer", "refusal_ttl")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_TTL_FIELD_NUMBER: _ClassVar[int]
    key: CacheKey
    ttl: _duration_pb2.Duration
    answer: _chat_pb2.ChatResponse
    refusal_ttl: _duration_pb2.Duration
    def __init__(self, key: _Optional[_Union[CacheKey, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., answer: _Optional[_Union[_chat_pb2.ChatResponse, _Mapping]] = ..., refusal_ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class FillResponse(_message.Message):
    __slots__ = ("stored", "reason")
    STORED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    stored: bool
    reason: str
    def __init__(self, stored: bool = ..., reason: _Optional[str] = ...) -> None: ...
