"""Refreshes `prices.yaml` from the model price file of the Python package litellm (MIT). Run by hand:

    pip download --no-deps litellm==1.109.1 && unzip litellm-*.whl '*model_prices_and_context_window_backup.json'
    python -m shared.catalogue.import_litellm model_prices_and_context_window_backup.json --release 1.109.1

Which models the table has is decided by people: those it has are refreshed, --add takes in more. Of the facts it takes
prices, limits and what a model supports; what litellm does not tell (sampling parameters) is filled in by the rules of
the provider's own documentation, below.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import yaml

from shared.catalogue.schema import CAPABILITIES

TABLE: Final = Path(__file__).with_name("prices.yaml")
PROVIDERS: Final = {"together_ai": "together"}  # litellm's name → ours, where they differ
TIERS: Final = {"": "", "_batches": "batch", "_flex": "flex", "_priority": "priority", "_ultrafast": "ultrafast"}
RATES: Final = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "reasoning": "output_cost_per_reasoning_token",
    "input_audio": "input_cost_per_audio_token",
    "output_audio": "output_cost_per_audio_token",
}
CACHE_RATES: Final = ("cached_input", "cache_write", "cache_write_1h")
EMBEDDING: Final = "embedding"
MOST_INPUTS: Final = {"gemini": 100}  # texts of one call, where the provider takes fewer than OpenAI's 2048
DOCUMENT_PROVIDERS: Final = frozenset({"openai", "anthropic", "gemini"})

HEADER: Final = """\
# Public prices and abilities of models: facts from model_prices_and_context_window_backup.json of the Python package
# litellm {release} (MIT), written by import_litellm.py on the date below. US dollars per million tokens; server tools
# per call. A row holds for requests whose whole input, cached tokens included, exceeds above_input_tokens, and prices
# all of their tokens; a rate that is left out is that of the kind it is part of. Providers that are cheaper at some
# hours stand at their full price, free quotas do not count, and web searches stand at the dearest context size.
# Providers change prices: compare with your bill, and override what differs in your own MODELMUXER_CONFIG file.
"""


def main() -> None:
    """Rewrites the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prices", type=Path, help="litellm's price file")
    parser.add_argument("--release", required=True, help="litellm's version")
    parser.add_argument("--add", nargs="*", default=[], metavar="PROVIDER/MODEL", help="models to take in")
    options = parser.parse_args()
    facts = json.loads(options.prices.read_text(), parse_float=Decimal)
    known = yaml.safe_load(TABLE.read_text())["models"] if TABLE.exists() else {}
    wanted = sorted({*known, *options.add})
    entries = {name: dict(_entry(name, _find(facts, name))) for name in wanted}
    TABLE.write_text(HEADER.format(release=options.release) + _yaml(entries, options.release))
    print(f"{len(entries)} models of {len({name.partition('/')[0] for name in entries})} providers")


def _find(facts: Mapping[str, Any], model_id: str) -> Mapping[str, Any]:
    provider, _, name = model_id.partition("/")
    theirs = next((theirs for theirs, ours in PROVIDERS.items() if ours == provider), provider)
    for key in (f"{theirs}/{name}", name):
        if key in facts and facts[key].get("litellm_provider") == theirs:
            found: Mapping[str, Any] = facts[key]
            return found
    raise SystemExit(f"{model_id} is not in the price file; take it out of {TABLE.name} by hand")


def _entry(model_id: str, fact: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    provider, _, name = model_id.partition("/")
    for field, theirs in (("context_tokens", "max_input_tokens"), ("max_output_tokens", "max_output_tokens")):
        if fact.get(theirs):
            yield field, int(fact[theirs])
    if fact.get("mode") == EMBEDDING:
        if provider in MOST_INPUTS:
            yield "max_inputs", MOST_INPUTS[provider]
        able = {*_embedding(name)}
    else:
        able = {*_flags(provider, fact), *_parameters(provider, name, fact)}
    yield "capabilities", [capability for capability in CAPABILITIES if capability in able]
    if released := _released(name):
        yield "released", released
    price: dict[str, Any] = {"rows": [*_rows(fact)]}
    if regions := dict(_regions(fact)):
        price["regions"] = regions
    if tools := dict(_server_tools(fact)):
        price["server_tools"] = tools
    yield "price", price


def _rows(fact: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    standard: dict[int, dict[str, str]] = {}
    for suffix, tier in TIERS.items():
        for above in [0, *_steps(fact)]:
            step = f"_above_{above // 1000}k_tokens" if above else ""
            rates = {
                rate: _dollars(fact[key])
                for rate, base in RATES.items()
                if (key := f"{base}{step}{suffix}") in fact and fact[key] is not None
            }
            if fact.get("mode") == EMBEDDING and "input" in rates:
                rates.setdefault("output", "0")  # there is none, whether the source says so or not
            if rates.get("reasoning") == rates.get("output"):
                rates.pop("reasoning", None)
            hourly = fact.get(f"{RATES['cache_write_1h']}{step}")
            if tier == "batch" and hourly is not None and "cache_write_1h" not in rates:
                rates["cache_write_1h"] = _dollars(hourly / 2)  # Anthropic's batches halve every rate
            if "input" in rates and "output" in rates:
                # A tier or a step that names no rate for the cache has that of the standard tier, or of short calls.
                like = standard.get(above, standard.get(0, {}))
                rates |= {name: like[name] for name in CACHE_RATES if name in like and name not in rates}
                if not tier:
                    standard[above] = rates
                yield ({"tier": tier} if tier else {}) | ({"above_input_tokens": above} if above else {}) | rates
    factor = fact.get("provider_specific_entry", {}).get("fast")
    if factor is not None:  # Anthropic's fast mode: every rate times a factor
        yield {"tier": "fast"} | {name: _text(Decimal(rate) * factor) for name, rate in standard[0].items()}


def _steps(fact: Mapping[str, Any]) -> list[int]:
    return sorted(
        {int(found[1]) * 1000 for key in fact if (found := re.match(r"input_cost.*_above_(\d+)k_tokens", key))}
    )


def _regions(fact: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for region in ("eu", "us"):
        factor = fact.get(f"regional_processing_uplift_multiplier_{region}")
        factor = factor or fact.get("provider_specific_entry", {}).get(region)
        if factor is None and fact["litellm_provider"] == "mistral":
            factor = Decimal("1.1")  # Mistral's regional endpoints, by its documentation
        if factor is not None:
            fraction = Fraction(factor)
            yield region, f"{fraction.numerator}/{fraction.denominator}"


def _server_tools(fact: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if searches := fact.get("search_context_cost_per_query"):
        yield "web_search", _text(max(Decimal(cost) for cost in searches.values()))
    if (maps := fact.get("google_maps_grounding_cost_per_query")) is not None:
        yield "google_maps", _text(Decimal(maps))


def _flags(provider: str, fact: Mapping[str, Any]) -> Iterator[str]:
    """What litellm tells."""
    named = {
        "tools": "supports_function_calling",
        "parallel_tools": "supports_parallel_function_calling",
        "vision": "supports_vision",
        "audio": "supports_audio_input",
        "reasoning": "supports_reasoning",
        "prompt_cache": "supports_prompt_caching",
        "json_schema": "supports_native_structured_output" if provider == "anthropic" else "supports_response_schema",
    }
    if provider == "deepseek":  # takes neither a schema nor an effort, whatever its models can do
        del named["json_schema"], named["reasoning"]
    yield from (capability for capability, flag in named.items() if fact.get(flag))
    if provider in DOCUMENT_PROVIDERS and fact.get("supports_pdf_input"):
        yield "documents"


def _embedding(name: str) -> Iterator[str]:
    """What an embedding model can do: by the providers' API references."""
    yield "embeddings"
    if name.startswith(("text-embedding-3-", "gemini-embedding-", "codestral-embed")):
        yield "dimensions"


def _parameters(provider: str, name: str, fact: Mapping[str, Any]) -> Iterator[str]:
    """Request parameters, which litellm keeps in code: by the providers' API references."""
    match provider:
        case "openai":
            yield from ("json_object", "seed")
            # Reasoning models take no sampling parameters, unless they do not reason by default.
            if not fact.get("supports_reasoning") or fact.get("default_reasoning_effort") == "none":
                yield from ("temperature", "logprobs")
            if not fact.get("supports_reasoning"):
                yield "stop"
        case "anthropic":
            yield from ("stop", "citations")
            if fact.get("supports_sampling_params", True):
                yield from ("temperature", "top_k")
        case "gemini":
            yield from ("json_object", "temperature", "top_k", "seed", "stop")
            if "2.5" in name:
                yield "logprobs"
        case "xai":
            yield from ("json_object", "temperature", "seed")
            if not fact.get("supports_reasoning"):
                yield from ("stop", "logprobs")
        case "deepseek":
            yield from ("json_object", "temperature", "stop", "logprobs")
        case "together":
            yield from ("json_object", "temperature", "seed", "stop", "top_k", "logprobs")
        case _:
            yield from ("json_object", "temperature", "seed", "stop")


def _released(name: str) -> date | None:
    """The date that stands in a model's name."""
    if found := re.search(r"-(20\d\d)-?([01]\d)-?([0-3]\d)$", name):
        return date(*map(int, found.groups()))
    return None


def _dollars(per_token: Decimal | int) -> str:
    return _text(Decimal(per_token) * 1_000_000)


def _text(amount: Decimal) -> str:
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _yaml(entries: Mapping[str, Mapping[str, Any]], release: str) -> str:
    """A line per field and per row of rates: what changes shows in a diff."""
    lines = [f"source: litellm {release}", f"date: {datetime.now(UTC).date()}", "models:"]
    for model_id, entry in entries.items():
        lines.append(f"  {model_id}:")
        for field, value in entry.items():
            if field != "price":
                lines.append(f"    {field}: {_flow(value)}")
                continue
            lines += ["    price:", "      rows:", *(f"        - {_flow(row)}" for row in value["rows"])]
            lines += [f"      {name}: {_flow(value[name])}" for name in ("regions", "server_tools") if name in value]
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{name}: {_flow(part)}" for name, part in value.items()) + "}"
        case list():
            return "[" + ", ".join(value) + "]"
        case str():
            return json.dumps(value)
        case _:
            return str(value)


if __name__ == "__main__":
    main()
