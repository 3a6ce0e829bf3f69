"""The catalogue when providers are simulated: every address is the simulator's, and models named after orders exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final, TypeVar

from modelmuxer.accounting.v1.accounting_pb2 import Price, PriceRow

from shared.catalogue.catalogue import Catalogue, Deployment, Model, Provider

PREFIX: Final = "sim-"
PROVIDERS: Final = ("openai", "anthropic", "gemini")  # one for each wire format; a bare name is the first one's
CONTEXT_TOKENS: Final = 1_000_000
MAX_OUTPUT_TOKENS: Final = 100_000
MAX_INPUTS: Final = 100  # Gemini's limit, the least of the three

V = TypeVar("V")


class Endless(Mapping[str, V]):
    """A mapping that also finds keys that are not listed, because there is no end of them: made when asked for."""

    def __init__(self, listed: Mapping[str, V], make: Callable[[str], V | None]) -> None:
        self._listed = listed
        self._make = make

    def __getitem__(self, key: str) -> V:
        found = self._listed[key] if key in self._listed else self._make(key)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


def simulate(catalogue: Catalogue, url: str, capabilities: frozenset[str]) -> Catalogue:
    """The same catalogue with the simulator at `url` in every provider's place.

    Models "<provider>/sim-…" can do all of `capabilities`. Regions go: the simulated bill has no factors for them.
    """
    providers = {name: _simulated(provider, url) for name, provider in catalogue.providers.items()}
    deployments = {
        name: replace(deployment, base_url=providers[deployment.provider].base_url, region="")
        for name, deployment in catalogue.deployments.items()
    }
    price = _price(catalogue.version)

    def model(model_id: str) -> Model | None:
        provider, _, name = model_id.partition("/")
        if provider not in PROVIDERS or not name.startswith(PREFIX):
            return None
        return Model(
            id=model_id,
            provider=provider,
            name=name,
            context_tokens=CONTEXT_TOKENS,
            max_output_tokens=MAX_OUTPUT_TOKENS,
            max_inputs=MAX_INPUTS,
            capabilities=capabilities,
            price=price,
            created=None,
            description="A simulated model: its name says how it behaves.",
            deployments=(f"{model_id}@{provider}",),
        )

    def deployment(name: str) -> Deployment | None:
        model_id, _, provider = name.rpartition("@")
        found = model(model_id)
        if found is None or found.provider != provider:
            return None
        return Deployment(
            name=name,
            model=model_id,
            provider=provider,
            region="",
            base_url=providers[provider].base_url,
            upstream_model=found.name,
        )

    return replace(
        catalogue,
        providers=providers,
        models=Endless(catalogue.models, model),
        deployments=Endless(deployments, deployment),
        bare_names=Endless(
            catalogue.bare_names, lambda name: f"{PROVIDERS[0]}/{name}" if name.startswith(PREFIX) else None
        ),
    )


def _simulated(provider: Provider, url: str) -> Provider:
    return replace(provider, simulated=True, base_url=f"{url}/v1" if provider.format == "openai" else url)


def _price(version: str) -> Price:
    row = PriceRow(
        input=1_000_000_000,
        cached_input=100_000_000,
        cache_write=1_250_000_000,
        cache_write_1h=2_000_000_000,
        output=4_000_000_000,
    )
    return Price(version=version, rows=[row])
