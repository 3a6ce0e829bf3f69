"""What providers' bills look like: the simulated one call by call, OpenAI's and Anthropic's exports in buckets of time.

Read are the JSON answers of `GET /bill` (simulator), of OpenAI's `/v1/organization/usage/completions` and
`/v1/organization/costs`, and of Anthropic's `/v1/organizations/usage_report/messages` and
`/v1/organizations/cost_report`: a page, or a JSON array of pages. Comparing them with the ledger is `reconcile`'s.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.request import urlopen

_TIMEOUT_S = 60
_NANOS_PER_DOLLAR = 10**9
_NANOS_PER_CENT = 10**7
_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")


class BillError(Exception):
    """The bill cannot be had or read. Says why."""


@dataclass(slots=True)
class Charge:
    """What is charged for one attempt, all lines that name it together."""

    cost_nanos: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    request_id: str = ""
    lines: int = 0


@dataclass(frozen=True, slots=True)
class CallBill:
    """A bill that names each call."""

    charges: Mapping[str, Charge]
    """By attempt id; calls without one by the provider's own id of the call, after a colon."""
    opened_ns: int
    """Calls that began earlier are not on it."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """What is charged for a span of time, of one model, or of all where none is named."""

    start_s: int
    end_s: int
    provider: str
    model: str


Figures = dict[str, int]
"""Of `input_tokens`, `output_tokens` and `cost_nanos` those that the export has."""
BucketBill = dict[Bucket, Figures]


def read(sources: tuple[str, ...], keys: tuple[str, ...] = ()) -> CallBill | BucketBill:
    """Reads files and URLs that make one bill together; of exports what was charged to the provider's keys of those
    ids, if any are named: others may be used beside the mesh. Raises BillError."""
    pages = [page for source in sources for page in _pages(source)]
    try:
        if pages and all("calls" in page for page in pages):
            return _calls(pages)
        if pages and all("data" in page for page in pages):
            return _buckets(pages, frozenset(keys))
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise BillError(f"The bill is not of a form that is known: {error!r}.") from None
    raise BillError("The bill has to be the simulator's, or a usage or cost export of OpenAI's or Anthropic's API.")


def bare_model(name: str) -> str:
    """A model's name without provider and date: exports name snapshots, catalogues may not."""
    return _DATED.sub("", name.rpartition("/")[2])


def _pages(source: str) -> list[dict[str, Any]]:
    try:
        if source.startswith(("http://", "https://")):
            with urlopen(source, timeout=_TIMEOUT_S) as answer:  # noqa: S310 nothing but HTTP gets here
                text = answer.read()
        else:
            text = Path(source).read_bytes()
        document = json.loads(text, parse_float=Decimal)
    except (OSError, ValueError) as error:
        raise BillError(f"The bill at {source} cannot be read: {error}.") from None
    pages = document if isinstance(document, list) else [document]
    if not all(isinstance(page, dict) for page in pages):
        raise BillError(f"The bill at {source} is no JSON object.")
    return pages


def _calls(pages: list[dict[str, Any]]) -> CallBill:
    charges: dict[str, Charge] = {}
    for call in (call for page in pages for call in page["calls"]):
        charge = charges.setdefault(call["client_id"] or f":{call['id']}", Charge())
        charge.cost_nanos += int(call["cost_nanos"])
        charge.input_tokens += int(call["input_tokens"])
        charge.output_tokens += int(call["output_tokens"])
        charge.request_id = call["id"]
        charge.lines += 1
    opened_s = min((Decimal(page.get("opened_at", 0)) for page in pages), default=Decimal(0))
    return CallBill(charges, int(opened_s * _NANOS_PER_DOLLAR))


def _buckets(pages: list[dict[str, Any]], keys: frozenset[str]) -> BucketBill:
    found: BucketBill = {}
    for bucket in (bucket for page in pages for bucket in page["data"]):
        for result in bucket["results"]:
            if keys and result.get("api_key_id") is None:
                raise BillError("The export names no keys; ask the provider for one that is grouped by api_key_id too.")
            if keys and result["api_key_id"] not in keys:
                continue
            where, figures = _openai(bucket, result) if "start_time" in bucket else _anthropic(bucket, result)
            known = found.setdefault(where, {})
            for name, value in figures:
                known[name] = known.get(name, 0) + value
    return found


def _openai(bucket: dict[str, Any], result: dict[str, Any]) -> tuple[Bucket, Iterator[tuple[str, int]]]:
    # Costs name a line item in prose, never a model.
    where = Bucket(int(bucket["start_time"]), int(bucket["end_time"]), "openai", bare_model(result.get("model") or ""))
    if "amount" in result:
        _in_dollars(result["amount"]["currency"])
        return where, _cost(Decimal(result["amount"]["value"]) * _NANOS_PER_DOLLAR)
    return where, iter((("input_tokens", int(result["input_tokens"])), ("output_tokens", int(result["output_tokens"]))))


def _anthropic(bucket: dict[str, Any], result: dict[str, Any]) -> tuple[Bucket, Iterator[tuple[str, int]]]:
    start_s, end_s = _seconds(bucket["starting_at"]), _seconds(bucket["ending_at"])
    where = Bucket(start_s, end_s, "anthropic", bare_model(result.get("model") or ""))
    if "amount" in result:
        _in_dollars(result["currency"])
        return where, _cost(Decimal(result["amount"]) * _NANOS_PER_CENT)
    written = result.get("cache_creation") or {}
    tokens = int(result["uncached_input_tokens"]) + int(result["cache_read_input_tokens"]) + sum(written.values())
    return where, iter((("input_tokens", tokens), ("output_tokens", int(result["output_tokens"]))))


def _cost(nanos: Decimal) -> Iterator[tuple[str, int]]:
    return iter((("cost_nanos", round(nanos)),))


def _in_dollars(currency: str) -> None:
    if currency.upper() != "USD":
        raise ValueError(f"amounts in {currency}; the ledger is in USD")


def _seconds(time: str) -> int:
    return int(datetime.fromisoformat(time.replace("Z", "+00:00")).astimezone(UTC).timestamp())
