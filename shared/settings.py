"""Settings: a frozen dataclass per service, read once from the environment and checked whole at start.

A setting's variable is MODELMUXER_<env>. One that our users' Performance Guide names (`guide`) is also read under the
guide's own name; twins that disagree are an error. What is wrong is said all at once, by variable, with what to do.
"""

import contextlib
import dataclasses
import difflib
import importlib
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

PREFIX = "MODELMUXER_"
PORTS = {"router": 50051, "provider_proxy": 50052, "cache": 50053, "accounting": 50054, "scaler": 50055}
MASK = "********"

# Settings of the Performance Guide that no part of this release could obey: the values that ask for nothing, and what
# to say of any other. A name that some service's settings declare is that service's business.
MEANINGLESS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "CELERY_BROKER_URL": ((), "this release has no background worker; unset it"),
    "CELERY_RESULT_BACKEND": ((), "this release has no background worker; unset it"),
    "MAX_WORKERS": (("1",), "each service is one process in this release; set MAX_WORKERS=1 or unset it"),
    # An upstream call has one payer, one hold and one entry: callers' texts are not mixed, however many come at once.
    "ENABLE_REQUEST_BATCHING": (
        ("true", "false"),
        "the texts of one request for embeddings share upstream calls, those of several never do; unset it",
    ),
    "BATCH_SIZE": (
        (),
        "one request's texts go upstream as many at once as the model takes (max_inputs); unset it",
    ),
    "BATCH_TIMEOUT": (
        (),
        "no request for embeddings waits for another: an upstream call has one payer; unset it",
    ),
}

# MODELMUXER_ variables that something other than a service's settings reads.
READ_ELSEWHERE = frozenset(
    f"MODELMUXER_{name}"
    for name in ("API_KEY", "ADDRESS", "ROUTER_ADDRESS", "SCALER_ADDRESS", "CONFIG", "SIMULATOR_URL", "SIMULATOR_PORT")
)

# What Kubernetes puts into every container beside a Service that is called modelmuxer-….
SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP)(_\w+)?$")

Derive = Callable[[Mapping[str, str], str], Any]  # of the environment and the service's name

_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_WORDS = {int: "a whole number", float: "a number"}


class SettingsError(Exception):
    """Every setting that is wrong: a sentence each, which begins with the variable's name."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Provenance(NamedTuple):
    """Where a setting's value came from: a variable's name, or "default"."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one setting is read."""

    env: str
    default: Any
    derive: Derive | None
    guide: bool | str
    secret: bool
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    help: str

    def names(self, service: str) -> tuple[str, ...]:
        """Its variables, the first of which is the one that is printed."""
        name = self.env.format(service=service.upper())
        names = [PREFIX + name]
        if self.guide:
            twin = name if self.guide is True else self.guide
            names += [twin] if self.guide is True else [PREFIX + twin, twin]
        return tuple(names)


_RULE = "modelmuxer.setting"


def setting(
    default: Any = dataclasses.MISSING,
    *,
    env: str,
    help: str,
    derive: Derive | None = None,
    guide: bool | str = False,
    secret: bool = False,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Iterable[str] = (),
) -> Any:
    """A field read from MODELMUXER_<env>.

    No default makes it required; `derive` computes one from the environment. `guide` also reads the same name without
    the prefix, or another name (both with the prefix and without). "{service}" in `env` is the service's name.
    """
    rule = Rule(
        env=env,
        default=default,
        derive=derive,
        guide=guide,
        secret=secret,
        minimum=minimum,
        maximum=maximum,
        choices=tuple(choices),
        help=help,
    )
    metadata = {_RULE: rule}
    if default is dataclasses.MISSING:
        return dataclasses.field(repr=not secret, metadata=metadata)
    return dataclasses.field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of every settings class. Subclasses are frozen, keyword-only dataclasses whose fields are `setting`s."""

    service: ClassVar[str] = ""

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Reads and checks everything; raises SettingsError with every problem at once."""
        hints = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}
        problems: list[str] = []
        for name, rule in cls.rules():
            try:
                values[name], sources[name] = _read(rule, cls.service, hints[name], environ)
            except ValueError as error:
                problems.append(str(error))
        known = known_names()
        problems += [*_meaningless(environ, known), *_misspelt(environ, known)]
        if problems:
            raise SettingsError(problems)
        settings = cls(**values)
        object.__setattr__(settings, "_sources", sources)
        if problems := list(settings.check()):
            raise SettingsError(problems)
        return settings

    def check(self) -> Iterator[str]:
        """What is wrong between settings, a sentence each that begins with a variable's name. Subclasses add theirs."""
        yield from ()

    def is_given(self, name: str) -> bool:
        """Whether the environment sets a setting."""
        sources: dict[str, str] = getattr(self, "_sources", {})
        return sources.get(name, "default") != "default"

    def provenance(self) -> list[Provenance]:
        """Each setting under its variable's name, with its value (secrets masked) and where that came from."""
        sources: dict[str, str] = getattr(self, "_sources", {})
        rows = []
        for name, rule in self.rules():
            value = getattr(self, name)
            shown = MASK if rule.secret and value else "" if value is None else _show(value)
            rows.append(Provenance(rule.names(self.service)[0], shown, sources.get(name, "default")))
        return rows

    @classmethod
    def rules(cls) -> Iterator[tuple[str, Rule]]:
        """The settings of the class, by field name."""
        for field in dataclasses.fields(cls):
            if rule := field.metadata.get(_RULE):
                yield field.name, rule


def _address_of(peer: str) -> Derive:
    """A peer on this machine, at the port that the same environment gives it."""
    return lambda environ, _: f"127.0.0.1:{environ.get(f'{PREFIX}{peer.upper()}_PORT') or PORTS[peer]}"


@dataclass(frozen=True, kw_only=True)
class ServiceSettings(Settings):
    """What every service has. A subclass names itself in `service`: its package, and the prefix of its ports."""

    host: str = setting("127.0.0.1", env="HOST", help="address to listen on; 0.0.0.0 for all")
    port: int = setting(
        0,
        derive=lambda _, service: PORTS.get(service),
        env="{service}_PORT",
        minimum=0,
        maximum=65535,
        help="gRPC port; 0 takes a free one",
    )
    metrics_port: int | None = setting(
        None, env="{service}_METRICS_PORT", minimum=0, maximum=65535, help="HTTP port of /metrics; gRPC port + 1000"
    )
    tunnel_port: int = setting(
        0,
        env="{service}_TUNNEL_PORT",
        minimum=0,
        maximum=65535,
        help="TCP port of tunnels' direct connections; 0 takes a free one, which callers are told",
    )
    replica: str = setting(
        "", env="REPLICA", help="a name that no other replica of the service has, if its address is not one (0.0.0.0)"
    )
    home: Path = setting(Path(".modelmuxer"), env="HOME", help="folder for keys, journals and the SQLite ledger")
    mesh_token: str | None = setting(
        None, env="MESH_TOKEN", secret=True, help="what services show each other; made in MODELMUXER_HOME if unset"
    )
    provider_proxy_address: str = setting(
        "", derive=_address_of("provider_proxy"), env="PROVIDER_PROXY_ADDRESS", help="host:port of the provider proxy"
    )
    cache_address: str = setting(
        "", derive=_address_of("cache"), env="CACHE_ADDRESS", help="host:port of the response cache"
    )
    accounting_address: str = setting(
        "", derive=_address_of("accounting"), env="ACCOUNTING_ADDRESS", help="host:port of accounting"
    )
    mesh_transport: str = setting(
        "tunnel",
        env="MESH_TRANSPORT",
        choices=("tunnel", "plain"),
        help="how calls travel between services: many in one stream, or each as a gRPC call of its own",
    )
    max_message_bytes: int = setting(
        32 * 1024 * 1024, env="MAX_MESSAGE_BYTES", minimum=4096, maximum=2**31 - 1, help="largest request or answer"
    )
    worker_connections: int = setting(
        1000, env="WORKER_CONNECTIONS", guide=True, minimum=1, help="concurrent calls before new ones are refused"
    )
    drain_wait_s: float = setting(
        0.5, env="DRAIN_WAIT_S", minimum=0, help="between going NOT_SERVING and refusing calls; 5 to 15 in Kubernetes"
    )
    grace_s: float = setting(30.0, env="GRACE_S", minimum=0, help="how long running calls may take to end on a stop")
    log_format: str = setting(
        "auto", env="LOG_FORMAT", choices=("auto", "json", "text"), help="auto is text on a terminal, else json"
    )
    log_level: str = setting(
        "info", env="LOG_LEVEL", choices=("debug", "info", "warning", "error"), help="the least level that is logged"
    )
    reflection: bool = setting(True, env="REFLECTION", help="whether gRPC reflection answers (grpcurl needs it)")

    def check(self) -> Iterator[str]:
        yield from super().check()
        if not is_loopback(self.host) and not self.mesh_token:
            yield (
                "MODELMUXER_MESH_TOKEN is not set although MODELMUXER_HOST is not loopback: "
                "set it to the same long random string for every service"
            )
        if self.mesh_token is not None and len(self.mesh_token) < 16:
            yield "MODELMUXER_MESH_TOKEN is too short: use at least 16 random characters"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a listener on `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """MODELMUXER_ variables that nothing reads: not wrong, but worth a line in the log."""
    return _unknown(environ, known_names())


def known_names() -> set[str]:
    """Every variable that the settings of any service declare."""
    _import_settings()
    names = set(READ_ELSEWHERE)
    pending: list[type[Settings]] = [Settings]
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        for service in [cls.service] if cls.service else [*PORTS]:
            for _, rule in cls.rules():
                names.update(rule.names(service))
    return names


def _import_settings() -> None:
    """Makes every service's settings class known; nothing else of a service is imported."""
    import services

    for module in pkgutil.iter_modules(services.__path__):
        with contextlib.suppress(Exception):  # a service whose settings cannot be imported says so itself
            importlib.import_module(f"services.{module.name}.settings")


def _read(rule: Rule, service: str, hint: Any, environ: Mapping[str, str]) -> tuple[Any, str]:
    names = rule.names(service)
    found = {name: _parse(rule, name, hint, environ[name].strip()) for name in names if environ.get(name, "").strip()}
    if found:
        name, value = next(iter(found.items()))
        for twin, other in found.items():
            if other != value:
                raise ValueError(f"{name} and {twin} disagree: unset one of them")
        return value, name
    if rule.derive is not None and (value := rule.derive(environ, service)) is not None:
        return value, "default"
    if rule.default is dataclasses.MISSING:
        raise ValueError(f"{names[0]} is not set: {rule.help}")
    return rule.default, "default"


def _parse(rule: Rule, name: str, hint: Any, text: str) -> Any:
    kind = _kind(hint)
    shown = MASK if rule.secret else repr(text)
    if text.startswith(("tcp://", "udp://")) and kind is int:
        raise ValueError(
            f"{name}={shown} was put there by Kubernetes, not by you: set enableServiceLinks: false in the pod's spec"
        )
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError(f"{name}={shown} must be true or false")
        return _BOOLEANS[text.lower()]
    if kind in _WORDS:
        return _number(rule, name, kind, text, shown)
    if rule.choices and text not in rule.choices:
        why = MEANINGLESS.get(name.removeprefix(PREFIX), ((), ""))[1]
        raise ValueError(f"{name}={shown} must be one of: {', '.join(rule.choices)}" + (f" ({why})" if why else ""))
    if isinstance(kind, type) and issubclass(kind, Enum):
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"{name}={shown} must be one of: {', '.join(str(each.value) for each in kind)}") from None
    if kind is Path:
        return Path(text).expanduser()
    if typing.get_origin(kind) is tuple:
        return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)
    return text


def _number(rule: Rule, name: str, kind: type[int] | type[float], text: str, shown: str) -> int | float:
    low, high = rule.minimum, rule.maximum
    wanted = _WORDS[kind]
    if low is not None:
        wanted += f" of at least {low:g}" if high is None else f" from {low:g} to {high:g}"
    try:
        number = kind(text.replace("_", ""))
    except ValueError:
        raise ValueError(f"{name}={shown} must be {wanted}") from None
    if number != number or (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"{name}={shown} must be {wanted}")
    return number


def _kind(hint: Any) -> Any:
    """The type that a value is parsed as: `X | None` is X."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value.value if isinstance(value, Enum) else value)


def _meaningless(environ: Mapping[str, str], known: set[str]) -> Iterator[str]:
    for name, (harmless, sentence) in MEANINGLESS.items():
        for variable in (name, PREFIX + name):
            if environ.get(variable) and variable not in known and environ[variable].lower() not in harmless:
                yield f"{variable} is set, but {sentence}"


def _misspelt(environ: Mapping[str, str], known: set[str]) -> Iterator[str]:
    stems = [name.removeprefix(PREFIX) for name in known if name.startswith(PREFIX)]
    for name in _unknown(environ, known):
        if close := difflib.get_close_matches(name.removeprefix(PREFIX), stems, n=1, cutoff=0.75):
            yield f"{name} is not a setting: did you mean {PREFIX}{close[0]}?"


def _unknown(environ: Mapping[str, str], known: set[str]) -> list[str]:
    names = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    return [name for name in names if name.removeprefix(PREFIX) not in MEANINGLESS and not SERVICE_LINK.search(name)]
