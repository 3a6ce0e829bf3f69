from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExchangeRequest(_message.Message):
    __slots__ = ("frames", "hello", "ping", "pong")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[Frame]
    hello: Hello
    ping: int
    pong: int
    def __init__(self, frames: _Optional[_Iterable[_Union[Frame, _Mapping]]] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., ping: _Optional[int] = ..., pong: _Optional[int] = ...) -> None: ...

class ExchangeResponse(_message.Message):
    __slots__ = ("frames", "hello", "ping", "pong", "going_away")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    GOING_AWAY_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[Frame]
    hello: Hello
    ping: int
    pong: int
    going_away: GoingAway
    def __init__(self, frames: _Optional[_Iterable[_Union[Frame, _Mapping]]] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., ping: _Optional[int] = ..., pong: _Optional[int] = ..., going_away: _Optional[_Union[GoingAway, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("version", "replica", "window_bytes", "max_calls", "max_message_bytes", "direct")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REPLICA_FIELD_NUMBER: _ClassVar[int]
    WINDOW_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CALLS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIRECT_FIELD_NUMBER: _ClassVar[int]
    version: int
    replica: str
    window_bytes: int
    max_calls: int
    max_message_bytes: int
    direct: Direct
    def __init__(self, version: _Optional[int] = ..., replica: _Optional[str] = ..., window_bytes: _Optional[int] = ..., max_calls: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., direct: _Optional[_Union[Direct, _Mapping]] = ...) -> None: ...

class Direct(_message.Message):
    __slots__ = ("port", "ticket")
    PORT_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    port: int
    ticket: bytes
    def __init__(self, port: _Optional[int] = ..., ticket: _Optional[bytes] = ...) -> None: ...

class GoingAway(_message.Message):
    __slots__ = ("reason", "last_id")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[GoingAway.Reason]
        REASON_AGE: _ClassVar[GoingAway.Reason]
        REASON_DRAIN: _ClassVar[GoingAway.Reason]
    REASON_UNSPECIFIED: GoingAway.Reason
    REASON_AGE: GoingAway.Reason
    REASON_DRAIN: GoingAway.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    LAST_ID_FIELD_NUMBER: _ClassVar[int]
    reason: GoingAway.Reason
    last_id: int
    def __init__(self, reason: _Optional[_Union[GoingAway.Reason, str]] = ..., last_id: _Optional[int] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("id", "kind", "message", "rest", "half_close", "method", "timeout_us", "metadata", "code", "details", "not_started", "credit")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Frame.Kind]
        KIND_OPEN: _ClassVar[Frame.Kind]
        KIND_MESSAGE: _ClassVar[Frame.Kind]
        KIND_HEADERS: _ClassVar[Frame.Kind]
        KIND_END: _ClassVar[Frame.Kind]
        KIND_CANCEL: _ClassVar[Frame.Kind]
        KIND_WINDOW: _ClassVar[Frame.Kind]
    KIND_UNSPECIFIED: Frame.Kind
    KIND_OPEN: Frame.Kind
    KIND_MESSAGE: Frame.Kind
    KIND_HEADERS: Frame.Kind
    KIND_END: Frame.Kind
    KIND_CANCEL: Frame.Kind
    KIND_WINDOW: Frame.Kind
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    REST_FIELD_NUMBER: _ClassVar[int]
    HALF_CLOSE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_US_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    NOT_STARTED_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    id: int
    kind: Frame.Kind
    message: bytes
    rest: int
    half_close: bool
    method: str
    timeout_us: int
    metadata: _containers.RepeatedScalarFieldContainer[bytes]
    code: int
    details: str
    not_started: bool
    credit: int
    def __init__(self, id: _Optional[int] = ..., kind: _Optional[_Union[Frame.Kind, str]] = ..., message: _Optional[bytes] = ..., rest: _Optional[int] = ..., half_close: bool = ..., method: _Optional[str] = ..., timeout_us: _Optional[int] = ..., metadata: _Optional[_Iterable[bytes]] = ..., code: _Optional[int] = ..., details: _Optional[str] = ..., not_started: bool = ..., credit: _Optional[int] = ...) -> None: ...
