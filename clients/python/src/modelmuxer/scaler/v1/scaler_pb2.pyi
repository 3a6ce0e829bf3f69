from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExplainRequest(_message.Message):
    __slots__ = ("service",)
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    service: str
    def __init__(self, service: _Optional[str] = ...) -> None: ...

class ExplainResponse(_message.Message):
    __slots__ = ("demands",)
    DEMANDS_FIELD_NUMBER: _ClassVar[int]
    demands: _containers.RepeatedCompositeFieldContainer[Demand]
    def __init__(self, demands: _Optional[_Iterable[_Union[Demand, _Mapping]]] = ...) -> None: ...

class Demand(_message.Message):
    __slots__ = ("service", "target", "wanted", "current", "serving", "sick", "starting", "draining", "panic", "reasons", "signals", "metrics", "replicas")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    SERVING_FIELD_NUMBER: _ClassVar[int]
    SICK_FIELD_NUMBER: _ClassVar[int]
    STARTING_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    PANIC_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    SIGNALS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    service: str
    target: str
    wanted: int
    current: int
    serving: int
    sick: int
    starting: int
    draining: int
    panic: bool
    reasons: _containers.RepeatedScalarFieldContainer[str]
    signals: _containers.RepeatedCompositeFieldContainer[Signal]
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    replicas: _containers.RepeatedCompositeFieldContainer[Replica]
    def __init__(self, service: _Optional[str] = ..., target: _Optional[str] = ..., wanted: _Optional[int] = ..., current: _Optional[int] = ..., serving: _Optional[int] = ..., sick: _Optional[int] = ..., starting: _Optional[int] = ..., draining: _Optional[int] = ..., panic: bool = ..., reasons: _Optional[_Iterable[str]] = ..., signals: _Optional[_Iterable[_Union[Signal, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., replicas: _Optional[_Iterable[_Union[Replica, _Mapping]]] = ...) -> None: ...

class Signal(_message.Message):
    __slots__ = ("name", "value", "target", "unit", "replicas")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    target: float
    unit: str
    replicas: int
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., target: _Optional[float] = ..., unit: _Optional[str] = ..., replicas: _Optional[int] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "value", "target")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    target: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., target: _Optional[float] = ...) -> None: ...

class Replica(_message.Message):
    __slots__ = ("address", "state", "trouble", "cpu_percent", "memory_percent", "slots_percent", "queue_ms", "added_ms", "calls_per_second")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TROUBLE_FIELD_NUMBER: _ClassVar[int]
    CPU_PERCENT_FIELD_NUMBER: _ClassVar[int]
    MEMORY_PERCENT_FIELD_NUMBER: _ClassVar[int]
    SLOTS_PERCENT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    ADDED_MS_FIELD_NUMBER: _ClassVar[int]
    CALLS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    address: str
    state: str
    trouble: str
    cpu_percent: float
    memory_percent: float
    slots_percent: float
    queue_ms: float
    added_ms: float
    calls_per_second: float
    def __init__(self, address: _Optional[str] = ..., state: _Optional[str] = ..., trouble: _Optional[str] = ..., cpu_percent: _Optional[float] = ..., memory_percent: _Optional[float] = ..., slots_percent: _Optional[float] = ..., queue_ms: _Optional[float] = ..., added_ms: _Optional[float] = ..., calls_per_second: _Optional[float] = ...) -> None: ...
