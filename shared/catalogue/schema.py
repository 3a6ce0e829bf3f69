"""How catalogue files are written: their fields, and what is right in each. Meaning across entries is `loading`'s.

Money is written as a string in dollars ("0.15"), per million tokens or per call, and is kept in whole nano-dollars. An
amount with more than nine decimals is refused, never rounded. Factors are fractions ("11/10").
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from modelmuxer.likeness import DEFAULT_THRESHOLD
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from shared.catalogue.catalogue import DEFAULT_EMBEDDING_ALIAS, EMBEDDING_CAPABILITIES, CacheScope, Strategy, WireFormat

NANOS_PER_DOLLAR = 10**9
MAX_DOLLARS = 1_000_000  # a million dollars per million tokens: beyond it, somebody forgot the unit
CAPABILITIES = (
    *("tools", "parallel_tools", "vision", "documents", "audio", "json_object", "json_schema", "reasoning"),
    *("logprobs", "seed", "stop", "top_k", "temperature", "prompt_cache", "citations"),
    *EMBEDDING_CAPABILITIES,
)
# What a model can do whose entry does not say.
PLAIN_CAPABILITIES = ("json_object", "seed", "stop", "temperature")
GLOBAL = "global"
MOST_INPUTS = 2048  # texts of one call: OpenAI's limit, and ours

_AMOUNT = re.compile(r"\d+(\.\d+)?")
_FRACTION = re.compile(r"[1-9]\d{0,8}(/[1-9]\d{0,8})?")


def _nanos(written: object) -> int:
    if isinstance(written, float):
        raise ValueError(f'is a number that binary cannot hold exactly; write it as a string: "{written}"')
    if isinstance(written, bool) or not isinstance(written, int | str) or not _AMOUNT.fullmatch(str(written)):
        raise ValueError('must be an amount in dollars, as a string like "0.15"')
    nanos = Decimal(str(written)) * NANOS_PER_DOLLAR
    if nanos > MAX_DOLLARS * NANOS_PER_DOLLAR:
        raise ValueError(f"is more than {MAX_DOLLARS:,} dollars; prices are per million tokens")
    if nanos != int(nanos):
        raise ValueError("has more than nine decimals; amounts are kept in whole nano-dollars")
    return int(nanos)


def _fraction(written: object) -> tuple[int, int]:
    if isinstance(written, bool) or not isinstance(written, int | str) or not _FRACTION.fullmatch(str(written)):
        raise ValueError('must be a fraction, as a string like "11/10"')
    numerator, _, denominator = str(written).partition("/")
    return int(numerator), int(denominator or 1)


def _url(written: str) -> str:
    parts = urlsplit(written)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an address like https://api.example.com/v1")
    if parts.username or parts.password:
        raise ValueError("must not hold a user or password; keys come from the environment (key_env)")
    return written.rstrip("/")


def _names(written: object) -> object:
    return [written] if isinstance(written, str) else written


Nanos = Annotated[int, BeforeValidator(_nanos)]
Factor = Annotated[tuple[int, int], BeforeValidator(_fraction)]
Url = Annotated[str, AfterValidator(_url)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Tokens = Annotated[int, Field(ge=0, strict=True)]
EntryName = Annotated[str, Field(pattern=r"^[^\s@]+$")]
ModelId = Annotated[str, Field(pattern=r"^[^\s/@]+/[^\s@*]+$")]
Capability = Literal[*CAPABILITIES]  # type: ignore[valid-type]


class Entry(BaseModel):
    """A mapping whose fields are known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, written: Any) -> Any:
        if not isinstance(written, Mapping):
            raise ValueError("must be a mapping")
        known = [*cls.model_fields]
        for name in written:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise ValueError(f'has no field "{name}"; {advice}')
        return written


class RowEntry(Entry):
    """Rates of one service tier, from one length of the context on."""

    tier: str = ""
    above_input_tokens: Tokens = 0
    input: Nanos
    output: Nanos
    cached_input: Nanos | None = None
    cache_write: Nanos | None = None
    cache_write_1h: Nanos | None = None
    reasoning: Nanos | None = None
    input_audio: Nanos | None = None
    output_audio: Nanos | None = None


class PriceEntry(Entry):
    """A price. Where there is one row only, its rates may stand here directly."""

    rows: tuple[RowEntry, ...]
    regions: dict[str, Factor] = {}
    call: Nanos = 0
    server_tools: dict[str, Nanos] = {}

    @model_validator(mode="before")
    @classmethod
    def _one_row(cls, written: Any) -> Any:
        if not isinstance(written, Mapping) or "rows" in written:
            return written
        own = {name: value for name, value in written.items() if name in cls.model_fields}
        return {**own, "rows": [{name: value for name, value in written.items() if name not in own}]}

    @model_validator(mode="after")
    def _has_standard_row(self) -> PriceEntry:
        steps = [(row.tier, row.above_input_tokens) for row in self.rows]
        if ("", 0) not in steps:
            raise ValueError("has no row for the standard tier from the first token on")
        if twice := next((step for step in steps if steps.count(step) > 1), None):
            raise ValueError(f"has two rows for tier {twice[0] or 'standard'} above {twice[1]} input tokens")
        return self


class ModelEntry(Entry):
    """A model."""

    description: str = ""
    context_tokens: Tokens = 0
    max_output_tokens: Tokens = 0
    max_inputs: Annotated[int, Field(ge=1, le=MOST_INPUTS, strict=True)] = MOST_INPUTS
    capabilities: tuple[Capability, ...] = PLAIN_CAPABILITIES
    released: datetime.date | None = None
    upstream_model: str = ""
    price: PriceEntry | None = None


class DialectEntry(Entry):
    """Where a server differs from OpenAI; see `Dialect`."""

    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    stream_options: bool = True
    obfuscation: bool = False
    developer_role: bool = False
    reasoning: Literal["effort", "object", "thinking", "none"] = "effort"
    reasoning_back: Literal["", "reasoning_content", "reasoning", "reasoning_details", "thinking"] = ""
    seed_field: str = "seed"
    any_tool_choice: str = "required"
    parallel_tool_calls: bool = True
    logprobs: bool = True
    json_schema: bool = True
    service_tier: bool = False
    end_user_field: str = "user"
    penalties: bool = True
    top_k: bool = False
    documents: Literal["", "file", "document_url"] = ""
    audio: bool = False
    base64_embeddings: bool = False
    dimensions_field: str = "dimensions"


class ProviderEntry(Entry):
    """A provider: its wire format, its addresses and where its key is."""

    format: WireFormat = "openai"
    base_url: Url | None = None
    base_url_env: Names = ()
    endpoints: dict[str, Url] = {}
    use: Names = (GLOBAL,)
    key_env: Names = ()
    key_optional: bool = False
    dialect: DialectEntry = DialectEntry()

    @model_validator(mode="after")
    def _knows_its_endpoints(self) -> ProviderEntry:
        for name in self.use:
            if name not in (GLOBAL, *self.endpoints):
                raise ValueError(f'uses the endpoint "{name}"; there are {", ".join((GLOBAL, *self.endpoints))}')
        if not self.use:
            raise ValueError("uses no endpoint; leave out `use`, or name one")
        return self


class DeploymentEntry(Entry):
    """One more place where a model is served."""

    model: ModelId
    provider: str
    upstream_model: str = ""
    region: str = ""


class VerifyEntry(Entry):
    """Who judges semantic hits, how many, and the share of wrong ones that is promised."""

    judge: str
    sample: Annotated[float, Field(ge=0, le=1)] = 0.05
    most_wrong: Annotated[float, Field(gt=0, lt=1)] = 0.02


class SemanticEntry(Entry):
    """How answers may stand for one another: the embedding model, and how like their questions must be."""

    model: str = DEFAULT_EMBEDDING_ALIAS
    threshold: Annotated[float, Field(gt=0, le=1)] = DEFAULT_THRESHOLD
    dimensions: Annotated[int, Field(ge=1, strict=True)] | None = None
    verify: VerifyEntry | None = None


class CacheEntry(Entry):
    """What the response cache may do for an alias."""

    sampled: bool = False
    ttl_s: Annotated[int, Field(ge=1, strict=True)] | None = None
    scope: CacheScope = "tenant"
    tool_calls: bool = False
    semantic: SemanticEntry | None = None


class AliasEntry(Entry):
    """A name for several models."""

    description: str = ""
    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    fallbacks: tuple[str, ...] = ()
    strategy: Strategy = "ordered"
    max_output_tokens: Annotated[int, Field(ge=1, strict=True)] | None = None
    cache: CacheEntry = CacheEntry()
    policy_version: str = "1"


class CatalogueEntry(Entry):
    """A whole catalogue, files laid over one another."""

    source: str = ""
    date: datetime.date | None = None
    providers: dict[EntryName, ProviderEntry]
    models: dict[ModelId, ModelEntry]
    deployments: dict[str, DeploymentEntry] = {}
    aliases: dict[EntryName, AliasEntry] = {}
