"""What the catalogue holds, as values. How it is written in files is `schema`'s and `loading`'s business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from modelmuxer.accounting.v1.accounting_pb2 import Price
from modelmuxer.likeness import DEFAULT_THRESHOLD

DEFAULT_ALIAS = "auto"
DEFAULT_EMBEDDING_ALIAS = "embed"
EMBEDDING = "embeddings"
EMBEDDING_CAPABILITIES = (EMBEDDING, "dimensions")
_ONLY_EMBEDS = frozenset(EMBEDDING_CAPABILITIES)
SIMULATED_KEY = "simulated"

WireFormat = Literal["openai", "anthropic", "gemini"]
Strategy = Literal["hybrid", "cheapest", "fastest", "ordered"]
CacheScope = Literal["tenant", "user", "key"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """Where a server that speaks chat completions differs from OpenAI, whose own values are the defaults."""

    max_tokens_field: str = "max_completion_tokens"
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """A company or a server that answers chats. `base_url` is empty for one that nobody has set up."""

    name: str
    format: WireFormat
    base_url: str
    key_env: tuple[str, ...] = ()
    key_optional: bool = False
    simulated: bool = False
    dialect: Dialect = field(default_factory=Dialect)

    def key(self, environ: Mapping[str, str]) -> str | None:
        """Its API key; empty if it needs none; None if it cannot be called for want of a key or of an address."""
        if self.simulated:
            return SIMULATED_KEY
        if not self.base_url:
            return None
        found = next((environ[name].strip() for name in self.key_env if environ.get(name, "").strip()), None)
        return "" if found is None and self.key_optional else found


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """A place where a model is served. `upstream_model` is the model's name there."""

    name: str
    model: str
    provider: str
    region: str
    base_url: str
    upstream_model: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model of a provider. A limit of 0 tokens is not known; a model without a price cannot be called."""

    id: str
    provider: str
    name: str
    context_tokens: int
    max_output_tokens: int
    capabilities: frozenset[str]
    price: Price | None
    created: datetime | None
    description: str
    deployments: tuple[str, ...]
    max_inputs: int = 1
    """The most texts that one call embeds."""

    @property
    def embeds(self) -> bool:
        """Whether it makes vectors."""
        return EMBEDDING in self.capabilities

    @property
    def chats(self) -> bool:
        """Whether it answers chats: a model that can do nothing but embed does not."""
        return not self.embeds or not self.capabilities <= _ONLY_EMBEDS


@dataclass(frozen=True, kw_only=True, slots=True)
class Semantic:
    """How an alias's answers may stand for one another."""

    model: str = DEFAULT_EMBEDDING_ALIAS
    threshold: float = DEFAULT_THRESHOLD
    dimensions: int | None = None
    judge: str = ""
    """A model that verdicts are asked of; "caller" if only callers give any; empty for none."""
    sample: float = 0.0
    """Share of hits that are compared with a fresh answer."""
    most_wrong: float = 0.0
    """Promised share of wrong hits, which verdicts hold the threshold to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alias:
    """A name for several models. `fallbacks` come after `targets`, whatever the strategy thinks of them."""

    name: str
    description: str
    targets: tuple[str, ...]
    fallbacks: tuple[str, ...]
    strategy: Strategy
    max_output_tokens: int | None
    cache_sampled: bool
    cache_ttl_s: int | None
    semantic: Semantic | None = None
    version: str
    cache_scope: CacheScope = "tenant"
    cache_tool_calls: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        """Everything that it may stand for, in order."""
        return self.targets + self.fallbacks


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """One version of the catalogue. Mappings are by id or name and keep the files' order."""

    version: str
    providers: Mapping[str, Provider]
    models: Mapping[str, Model]
    deployments: Mapping[str, Deployment]
    aliases: Mapping[str, Alias]
    bare_names: Mapping[str, str]  # names that one provider alone has → ids

    def resolve(self, name: str) -> Alias | Model | None:
        """What a request names: an alias, an id, or a name that one provider alone has. Empty is the default alias."""
        name = name or DEFAULT_ALIAS
        return self.aliases.get(name) or self.models.get(name) or self.models.get(self.bare_names.get(name, ""))
