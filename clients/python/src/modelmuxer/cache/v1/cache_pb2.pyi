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
    __slots__ = ("key", "ttl", "answer")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    key: CacheKey
    ttl: _duration_pb2.Duration
    answer: _chat_pb2.ChatResponse
    def __init__(self, key: _Optional[_Union[CacheKey, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., answer: _Optional[_Union[_chat_pb2.ChatResponse, _Mapping]] = ...) -> None: ...

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
