"""Small catalogues, made by hand."""

from __future__ import annotations

from typing import Any

from modelmuxer.accounting.v1.accounting_pb2 import Price, PriceRow

from shared.catalogue import Alias, Catalogue, Model, Provider

EVERYTHING = frozenset({"tools", "vision", "documents", "json_schema", "temperature", "stop", "seed", "reasoning"})


def model(id: str, *, cents: int | None = 10, **fields: Any) -> Model:
    """A model whose output costs `cents` per million tokens, and whose input a tenth of it."""
    provider, _, name = id.partition("/")
    price = None if cents is None else Price(version="1", rows=[PriceRow(input=cents * 10**6, output=cents * 10**7)])
    given: dict[str, Any] = {
        "context_tokens": 100_000,
        "max_output_tokens": 10_000,
        "capabilities": EVERYTHING,
        "price": price,
        "created": None,
        "description": "",
        "deployments": (f"{id}@{provider}",),
    }
    return Model(id=id, provider=provider, name=name, **{**given, **fields})


def alias(name: str, *targets: str, **fields: Any) -> Alias:
    given: dict[str, Any] = {
        "description": "",
        "fallbacks": (),
        "strategy": "hybrid",
        "max_output_tokens": None,
        "cache_sampled": False,
        "cache_ttl_s": None,
        "version": "v1",
    }
    return Alias(name=name, targets=targets, **{**given, **fields})


def catalogue(*entries: Model | Alias) -> Catalogue:
    models = {entry.id: entry for entry in entries if isinstance(entry, Model)}
    providers = {each.provider: Provider(name=each.provider, format="openai", base_url="") for each in models.values()}
    return Catalogue(
        version="c1",
        providers=providers,
        models=models,
        deployments={},
        aliases={entry.name: entry for entry in entries if isinstance(entry, Alias)},
        bare_names={each.name: each.id for each in models.values()},
    )
