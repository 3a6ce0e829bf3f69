"""Makes a catalogue out of its files and the environment."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, time
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import orjson
from modelmuxer.accounting.v1.accounting_pb2 import Price, PriceFactor, PriceRow
from pydantic import ValidationError

from shared.catalogue.catalogue import DEFAULT_ALIAS, Alias, Catalogue, Deployment, Dialect, Model, Provider, Semantic
from shared.catalogue.documents import CatalogueError, Document, blame, merge, read, sentences
from shared.catalogue.schema import (
    CAPABILITIES,
    GLOBAL,
    AliasEntry,
    CatalogueEntry,
    ModelEntry,
    PriceEntry,
    ProviderEntry,
    SemanticEntry,
)
from shared.catalogue.simulation import simulate

SHIPPED: Final = tuple(Path(__file__).with_name(name) for name in ("catalogue.yaml", "prices.yaml"))
SIMULATOR_URL: Final = "MODELMUXER_SIMULATOR_URL"
# Rates are named alike in files and in the contract.
_RATES: Final = (
    *("input", "output", "cached_input", "cache_write", "cache_write_1h"),
    *("reasoning", "input_audio", "output_audio"),
)


def load(path: str | Path | None, environ: Mapping[str, str]) -> Catalogue:
    """The shipped catalogue with a user's file laid over it. Raises CatalogueError."""
    documents = [read(shipped) for shipped in SHIPPED]
    if path:
        documents.append(read(Path(path)))
    content = merge(documents)
    try:
        entry = CatalogueEntry.model_validate(content)
    except ValidationError as error:
        raise CatalogueError(sentences(error, documents)) from None
    return _Builder(entry, _version(content), environ, documents).build()


class _Builder:
    """Turns entries into values, and collects what is wrong between them."""

    def __init__(
        self, entry: CatalogueEntry, version: str, environ: Mapping[str, str], documents: list[Document]
    ) -> None:
        self._entry = entry
        self._version = version
        self._environ = environ
        self._documents = documents
        self._problems: list[str] = []

    def build(self) -> Catalogue:
        providers = {name: self._provider(name, entry) for name, entry in self._entry.providers.items()}
        deployments = {deployment.name: deployment for deployment in self._deployments(providers)}
        by_model: dict[str, list[str]] = {}
        for deployment in deployments.values():
            by_model.setdefault(deployment.model, []).append(deployment.name)
        models = {
            model_id: self._model(model_id, entry, tuple(by_model.get(model_id, ())))
            for model_id, entry in self._entry.models.items()
        }
        catalogue = Catalogue(
            version=self._version,
            providers=MappingProxyType(providers),
            models=MappingProxyType(models),
            deployments=MappingProxyType(deployments),
            aliases=MappingProxyType({}),
            bare_names=MappingProxyType(_bare_names(models)),
        )
        if url := self._environ.get(SIMULATOR_URL, "").strip().rstrip("/"):
            catalogue = simulate(catalogue, url, frozenset(CAPABILITIES))
        aliases = {name: self._alias(name, entry, catalogue) for name, entry in self._entry.aliases.items()}
        if DEFAULT_ALIAS not in aliases:
            self._wrong("is missing; requests that name no model need it", "aliases", DEFAULT_ALIAS)
        if self._problems:
            raise CatalogueError(self._problems)
        return replace(catalogue, aliases=MappingProxyType(aliases))

    def _provider(self, name: str, entry: ProviderEntry) -> Provider:
        return Provider(
            name=name,
            format=entry.format,
            base_url=self._base_url(entry),
            key_env=entry.key_env,
            key_optional=entry.key_optional,
            dialect=Dialect(**entry.dialect.model_dump()),
        )

    def _base_url(self, entry: ProviderEntry) -> str:
        for variable in entry.base_url_env:
            if url := self._environ.get(variable, "").strip():
                if not url.startswith(("http://", "https://")):
                    self._problems.append(f"{variable} must be an address that begins with http:// or https://")
                return url.rstrip("/")
        return entry.base_url or ""

    def _deployments(self, providers: Mapping[str, Provider]) -> Iterator[Deployment]:
        for model_id, model in self._entry.models.items():
            name, _, upstream = model_id.partition("/")
            if name not in providers:
                self._wrong(f'there is no provider "{name}"; add it under providers', "models", model_id)
                continue
            entry = self._entry.providers[name]
            for endpoint in entry.use:
                yield Deployment(
                    name=f"{model_id}@{name}" if endpoint == GLOBAL else f"{model_id}@{name}-{endpoint}",
                    model=model_id,
                    provider=name,
                    region="" if endpoint == GLOBAL else endpoint,
                    base_url=providers[name].base_url if endpoint == GLOBAL else entry.endpoints[endpoint],
                    upstream_model=model.upstream_model or upstream,
                )
        for name, deployment in self._entry.deployments.items():
            if deployment.provider not in providers:
                self._wrong(
                    f'there is no provider "{deployment.provider}"; add it under providers', "deployments", name
                )
            elif deployment.model not in self._entry.models:
                self._wrong(f'there is no model "{deployment.model}"; add it under models', "deployments", name)
            else:
                yield Deployment(
                    name=name,
                    model=deployment.model,
                    provider=deployment.provider,
                    region=deployment.region,
                    base_url=providers[deployment.provider].base_url,
                    upstream_model=deployment.upstream_model or deployment.model.partition("/")[2],
                )

    def _model(self, model_id: str, entry: ModelEntry, deployments: tuple[str, ...]) -> Model:
        provider, _, name = model_id.partition("/")
        return Model(
            id=model_id,
            provider=provider,
            name=name,
            context_tokens=entry.context_tokens,
            max_output_tokens=entry.max_output_tokens,
            max_inputs=entry.max_inputs,
            capabilities=frozenset(entry.capabilities),
            price=_price(entry.price, self._version) if entry.price is not None else None,
            created=datetime.combine(entry.released, time(), UTC) if entry.released else None,
            description=entry.description,
            deployments=deployments,
        )

    def _alias(self, name: str, entry: AliasEntry, catalogue: Catalogue) -> Alias:
        def ids(field: str, names: tuple[str, ...]) -> Iterator[str]:
            for target in names:
                if isinstance(model := catalogue.resolve(target), Model):
                    yield model.id
                else:
                    near = difflib.get_close_matches(target, catalogue.models, n=1)
                    advice = f"did you mean {near[0]}?" if near else "name one of the catalogue"
                    self._wrong(f'there is no model "{target}"; {advice}', "aliases", name, field)

        semantic = entry.cache.semantic
        if semantic is not None and not self._embeds(semantic.model, catalogue):
            self._wrong(f'"{semantic.model}" is no embedding model, nor an alias of one', "aliases", name, "cache")
        if semantic is not None and semantic.verify is not None and not self._judges(semantic.verify.judge, catalogue):
            sentence = f'the judge "{semantic.verify.judge}" is neither "caller" nor a model that answers chats'
            self._wrong(sentence, "aliases", name, "cache")
        targets = tuple(dict.fromkeys(ids("targets", entry.targets)))
        fallbacks = dict.fromkeys(ids("fallbacks", entry.fallbacks))
        return Alias(
            name=name,
            description=entry.description,
            targets=targets,
            fallbacks=tuple(model_id for model_id in fallbacks if model_id not in targets),
            strategy=entry.strategy,
            max_output_tokens=entry.max_output_tokens,
            cache_sampled=entry.cache.sampled,
            cache_ttl_s=entry.cache.ttl_s,
            semantic=_semantic(entry.cache.semantic),
            cache_scope=entry.cache.scope,
            cache_tool_calls=entry.cache.tool_calls,
            version=_digest(entry.model_dump(exclude={"description"})),
        )

    def _embeds(self, name: str, catalogue: Catalogue) -> bool:
        if name in self._entry.aliases:
            entry = self._entry.aliases[name]
            return len({*entry.targets, *entry.fallbacks}) == 1 and self._embeds(entry.targets[0], catalogue)
        model = catalogue.resolve(name)
        return isinstance(model, Model) and model.embeds

    def _judges(self, name: str, catalogue: Catalogue) -> bool:
        model = catalogue.resolve(name)
        return name in ("caller", *self._entry.aliases) or (isinstance(model, Model) and model.chats)

    def _wrong(self, sentence: str, *where: int | str) -> None:
        self._problems.append(f"{blame(self._documents, [*where])}: {'.'.join(map(str, where))}: {sentence}")


def _semantic(entry: SemanticEntry | None) -> Semantic | None:
    if entry is None:
        return None
    verify = entry.verify
    return Semantic(
        model=entry.model,
        threshold=entry.threshold,
        dimensions=entry.dimensions,
        judge=verify.judge if verify else "",
        sample=verify.sample if verify else 0.0,
        most_wrong=verify.most_wrong if verify else 0.0,
    )


def _bare_names(models: Mapping[str, Model]) -> dict[str, str]:
    owners: dict[str, list[str]] = {}
    for model in models.values():
        owners.setdefault(model.name, []).append(model.id)
    return {name: ids[0] for name, ids in owners.items() if len(ids) == 1}


def _price(entry: PriceEntry, version: str) -> Price:
    return Price(
        version=version,
        rows=[
            PriceRow(
                service_tier=row.tier,
                above_input_tokens=row.above_input_tokens,
                **{name: getattr(row, name) for name in _RATES},
            )
            for row in sorted(entry.rows, key=lambda row: (row.tier, row.above_input_tokens))
        ],
        factors=[
            PriceFactor(dimension="region", value=region, numerator=numerator, denominator=denominator)
            for region, (numerator, denominator) in entry.regions.items()
        ],
        call_nanos=entry.call,
        server_tool_call_nanos=entry.server_tools,
    )


def _version(content: Mapping[str, Any]) -> str:
    """Comments, layout and the order of fields do not count; every value does."""
    return _digest(content)


def _digest(content: Any) -> str:
    text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)
    return hashlib.sha256(text).hexdigest()[:16]
