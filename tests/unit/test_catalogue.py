"""The catalogue: shipped facts, a user's own file over them, clear refusals, and new versions without a restart."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelmuxer.accounting.v1.accounting_pb2 import Price, PriceRow
from modelmuxer.chat.v1.chat_pb2 import Usage

from services.simulator.prices import Prices, Tokens
from shared.catalogue import Alias, Catalogue, CatalogueError, Model, load, watch
from shared.catalogue.schema import CAPABILITIES
from shared.pricing import cost_nanos

SHIPPED = load(None, {})
SIMULATOR = {"MODELMUXER_SIMULATOR_URL": "http://127.0.0.1:8090/"}
THEIR_NAMES = {"together": "together_ai"}

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "catalogue.yaml"
        path.write_text(text)
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(CatalogueError) as caught:
        load(path, {})
    assert all(str(path) in problem for problem in caught.value.problems)
    return str(caught.value)


# What is shipped


def test_at_least_sixty_models_of_six_providers_have_public_prices() -> None:
    priced = [model for model in SHIPPED.models.values() if model.price is not None]
    assert len(priced) >= 60
    assert len({model.provider for model in priced}) >= 6


def test_the_aliases_stand_for_models_of_several_providers() -> None:
    assert [*SHIPPED.aliases] == ["auto", "fast", "smart", "cheap", "reasoning", "embed"]
    chats = [alias for alias in SHIPPED.aliases.values() if alias.name != "embed"]
    for alias in chats:
        assert len({SHIPPED.models[model].provider for model in alias.models}) >= 3
    assert len(SHIPPED.aliases["embed"].models) == 1  # vectors of two models cannot be compared
    assert all("reasoning" in SHIPPED.models[model].capabilities for model in SHIPPED.aliases["reasoning"].models)


def test_every_model_has_a_deployment_at_its_provider() -> None:
    for model in SHIPPED.models.values():
        deployment = SHIPPED.deployments[model.deployments[0]]
        assert (deployment.model, deployment.provider, deployment.upstream_model) == (
            model.id,
            model.provider,
            model.name,
        )
        assert deployment.base_url == SHIPPED.providers[model.provider].base_url != ""


simulated = Prices()
OURS = {(m.provider, m.name): m for m in SHIPPED.models.values()}
THEIRS = {
    ({theirs: ours for ours, theirs in THEIR_NAMES.items()}.get(provider, provider), model): (provider, model)
    for provider in ("openai", "anthropic", "gemini", "mistral", "groq", "deepseek", "xai", "together_ai")
    for model in simulated.models(provider)
}


def test_the_simulated_providers_serve_the_same_models() -> None:
    assert set(THEIRS) == set(OURS)


@given(
    st.sampled_from(sorted(THEIRS)),
    st.sampled_from(["standard", "batch", "flex", "priority"]),
    st.tuples(*[st.integers(0, 500_000)] * 5),
)
def test_two_tables_made_apart_from_the_same_source_agree(
    model: tuple[str, str], tier: str, counts: tuple[int, int, int, int, int]
) -> None:
    plain, cached, short, hour, out = counts
    if model[0] != "anthropic":
        plain, short, hour = plain + short + hour, 0, 0  # nobody else tells how long a cached prompt is kept
    tokens = Tokens(plain + cached + short + hour, cached, short, hour)
    usage = Usage(
        input_tokens=tokens.input,
        cached_input_tokens=cached,
        cache_write_tokens=short + hour,
        cache_write_1h_tokens=hour,
        output_tokens=out,
        service_tier=tier,
    )
    price = OURS[model].price
    assert price is not None
    assert cost_nanos(price, usage) == simulated.cost_nanos(*THEIRS[model], tier, tokens, out)


# Names


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openai/gpt-4o-mini", "openai/gpt-4o-mini"),
        ("gpt-4o-mini", "openai/gpt-4o-mini"),
        ("groq/openai/gpt-oss-20b", "groq/openai/gpt-oss-20b"),
        ("openai/gpt-oss-20b", "groq/openai/gpt-oss-20b"),
    ],
)
def test_a_model_is_found_by_its_id_and_by_a_name_that_one_provider_alone_has(name: str, model: str) -> None:
    found = SHIPPED.resolve(name)
    assert isinstance(found, Model)
    assert found.id == model


def test_no_name_is_the_default_alias() -> None:
    assert SHIPPED.resolve("") is SHIPPED.aliases["auto"]


def test_a_name_that_two_providers_have_is_nobodys(write: Write) -> None:
    path = write('models: {together/gpt-4o-mini: {price: {input: "1", output: "2"}}}')
    catalogue = load(path, {})
    assert catalogue.resolve("gpt-4o-mini") is None
    assert catalogue.resolve("nothing-like-it") is None


# A user's own file


def test_a_local_server_needs_an_address_no_key_and_a_stated_price(write: Write) -> None:
    path = write(
        """
        providers:
          lab: {base_url: "http://10.0.0.5:8000/v1/", key_optional: true}
        models:
          lab/qwen: {context_tokens: 32768, price: {input: "0", output: "0"}}
          ollama/llama: {price: {input: "0", output: "0"}}
          lab/unpriced: {}
        """
    )
    catalogue = load(path, {"OLLAMA_BASE_URL": "http://127.0.0.1:11434/v1"})
    qwen = catalogue.models["lab/qwen"]
    assert qwen.price == Price(version=catalogue.version, rows=[PriceRow(input=0, output=0)])
    assert catalogue.deployments["lab/qwen@lab"].base_url == "http://10.0.0.5:8000/v1"
    assert catalogue.deployments["ollama/llama@ollama"].base_url == "http://127.0.0.1:11434/v1"
    assert catalogue.providers["lab"].key({}) == catalogue.providers["ollama"].key({}) == ""
    assert catalogue.models["lab/unpriced"].price is None
    assert load(path, {}).providers["ollama"].key({}) is None


def test_an_entry_changes_only_what_it_says_and_an_empty_one_removes(write: Write) -> None:
    path = write(
        """
        providers: {openai: {base_url: "https://proxy.example.com/v1"}}
        models:
          openai/gpt-4o-mini: {max_output_tokens: 100}
          openai/gpt-4: null
        aliases: {fast: {max_output_tokens: 50, cache: {sampled: true, ttl_s: 60}}}
        """
    )
    catalogue = load(path, {})
    before, after = SHIPPED.models["openai/gpt-4o-mini"], catalogue.models["openai/gpt-4o-mini"]
    assert (after.max_output_tokens, after.context_tokens) == (100, before.context_tokens)
    assert catalogue.deployments["openai/gpt-4o@openai"].base_url == "https://proxy.example.com/v1"
    assert catalogue.providers["openai"].dialect == SHIPPED.providers["openai"].dialect
    assert "openai/gpt-4" not in catalogue.models
    fast = catalogue.aliases["fast"]
    assert (fast.max_output_tokens, fast.cache_sampled, fast.cache_ttl_s) == (50, True, 60)
    assert fast.targets == SHIPPED.aliases["fast"].targets
    assert fast.version != SHIPPED.aliases["fast"].version
    assert catalogue.aliases["auto"].version == SHIPPED.aliases["auto"].version


def test_a_model_can_be_served_in_more_places(write: Write) -> None:
    path = write(
        """
        providers: {azure: {base_url: "https://x.example.com/openai/v1", key_env: AZURE_KEY}}
        deployments:
          openai/gpt-4o@azure-eu: {model: openai/gpt-4o, provider: azure, upstream_model: gpt4o-prod, region: eu}
        """
    )
    catalogue = load(path, {})
    assert catalogue.models["openai/gpt-4o"].deployments == ("openai/gpt-4o@openai", "openai/gpt-4o@azure-eu")
    deployment = catalogue.deployments["openai/gpt-4o@azure-eu"]
    assert (deployment.upstream_model, deployment.region) == ("gpt4o-prod", "eu")
    assert catalogue.providers["azure"].key({"AZURE_KEY": " k "}) == "k"
    assert catalogue.providers["azure"].key({}) is None


def test_a_regional_endpoint_is_a_deployment_with_its_own_factor(write: Write) -> None:
    catalogue = load(write("providers: {mistral: {use: [eu, us]}}"), {})
    model = catalogue.models["mistral/mistral-large-latest"]
    assert model.deployments == ("mistral/mistral-large-latest@mistral-eu", "mistral/mistral-large-latest@mistral-us")
    eu = catalogue.deployments[model.deployments[0]]
    assert (eu.base_url, eu.region) == ("https://api.eu.mistral.ai/v1", "eu")
    assert model.price is not None
    anywhere, there = (cost_nanos(model.price, Usage(input_tokens=10**6, region=region)) for region in ("", "eu"))
    assert there * 10 == anywhere * 11


def test_addresses_can_be_given_by_environment() -> None:
    catalogue = load(None, {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1/"})
    assert catalogue.deployments["openai/gpt-4o@openai"].base_url == "http://127.0.0.1:9/v1"


def test_the_version_is_that_of_the_content_not_of_its_letters(write: Write) -> None:
    lab = "providers: {lab: {base_url: 'http://x/v1'}}\n"
    one = load(write(lab + "models: {lab/a: {price: {input: '1', output: '2'}}}"), {})
    two = load(write("models: {lab/a: {price: {output: '2', input: '1'}}}\n# the same\n" + lab), {})
    other = load(write(lab + "models: {lab/a: {price: {input: '1', output: '3'}}}"), {})
    assert one.version == two.version
    assert len({SHIPPED.version, one.version, other.version}) == 3
    assert one.models["openai/gpt-4o"].price is not None
    assert one.models["openai/gpt-4o"].price.version == one.version


# Refusals


def price(rates: str) -> str:
    return f"models: {{openai/x: {{price: {{{rates}}}}}}}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            price("input: 0.15, output: '1'"),
            'rows[0].input: is a number that binary cannot hold exactly; write it as a string: "0.15"',
        ),
        (price("input: '0.1234567891', output: '1'"), "more than nine decimals"),
        (price("input: '-1', output: '1'"), "must be an amount in dollars"),
        (price("input: '150000000', output: '1'"), "prices are per million tokens"),
        (price("input: '1'"), "models.openai/x.price.rows[0].output: is missing"),
        (price("rows: [{tier: flex, input: '1', output: '1'}]"), "no row for the standard tier"),
        (price("rows: [{input: '1', output: '1'}, {input: '2', output: '1'}]"), "two rows"),
        (price("input: '1', output: '1', regions: {eu: 1.1}"), 'a fraction, as a string like "11/10"'),
        (
            "models: {openai/x: {contxt_tokens: 5}}",
            'openai/x: has no field "contxt_tokens"; did you mean context_tokens?',
        ),
        ("models: {openai/x: {context_tokens: many}}", "models.openai/x.context_tokens"),
        ("models: {openai/x: {capabilities: [flying]}}", "models.openai/x.capabilities[0]"),
        ("models: {no-provider: {}}", "models.no-provider"),
        ("models: {nobody/x: {}}", 'models.nobody/x: there is no provider "nobody"'),
        ("models: [openai/x]", "models: must be a mapping"),
        ("aliases: {mine: {targets: [openai/gpt-4o-minni]}}", "aliases.mine.targets: there is no model"),
        ("aliases: {mine: {targets: [openai/gpt-4o-minni]}}", "did you mean openai/gpt-4o-mini?"),
        ("aliases: {mine: {targets: []}}", "aliases.mine.targets"),
        ("aliases: {mine: {targets: [openai/gpt-4o], strategy: best}}", "aliases.mine.strategy"),
        ("deployments: {d: {model: openai/none, provider: openai}}", 'there is no model "openai/none"'),
        ("deployments: {d: {model: openai/gpt-4o, provider: none}}", 'there is no provider "none"'),
        ("providers: {lab: {base_url: 'example.com'}}", "must be an address"),
        ("providers: {lab: {base_url: 'http://me:secret@x/v1'}}", "keys come from the environment"),
        ("providers: {mistral: {use: [mars]}}", 'uses the endpoint "mars"; there are global, eu, us'),
        ("providers: {lab: {dialect: {seed: x}}}", 'has no field "seed"'),
        ("modells: {}", "did you mean models?"),
        ("models: {a/x: {}, a/x: {}}", 'the key "a/x" is there twice'),
        ("models: {", "is not valid YAML"),
        ("just words", "must be a mapping"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_place(write: Write, text: str, says: str) -> None:
    assert says in refusal(write(text))


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    assert "check MODELMUXER_CONFIG" in refusal(tmp_path / "none.yaml")


def test_the_default_alias_cannot_be_taken_away(write: Write) -> None:
    with pytest.raises(CatalogueError, match=r"aliases\.auto"):
        load(write("aliases: {auto: null}"), {})


# Simulation


def test_with_the_simulator_every_provider_is_there_and_any_simulated_model_exists() -> None:
    catalogue = load(None, SIMULATOR)
    assert {provider.key({}) for provider in catalogue.providers.values()} == {"simulated"}
    assert {d.base_url for d in catalogue.deployments.values()} == {"http://127.0.0.1:8090", "http://127.0.0.1:8090/v1"}
    for provider in ("openai", "anthropic", "gemini"):
        model = catalogue.models[f"{provider}/sim-ttft200ms"]
        assert model.capabilities == set(CAPABILITIES)
        assert catalogue.deployments[model.deployments[0]].upstream_model == "sim-ttft200ms"
    found = catalogue.resolve("sim-tps50")
    assert isinstance(found, Model)
    assert found.id == "openai/sim-tps50"
    assert found.price is not None
    tokens = Tokens(100, 10, 20, 30)
    usage = Usage(
        input_tokens=100, cached_input_tokens=10, cache_write_tokens=50, cache_write_1h_tokens=30, output_tokens=7
    )
    assert cost_nanos(found.price, usage) == simulated.cost_nanos("openai", found.name, "standard", tokens, 7)


def test_without_the_simulator_there_are_no_simulated_models() -> None:
    assert SHIPPED.resolve("sim-x") is None
    assert "openai/sim-x" not in SHIPPED.models
    catalogue = load(None, SIMULATOR)
    assert "mistral/sim-x" not in catalogue.models
    assert "openai/sim-x@gemini" not in catalogue.deployments
    assert not [name for name in catalogue.models if "sim-" in name]


# New versions


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_new_content_is_taken_without_a_restart_and_a_broken_one_is_not(
    write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    path = write("aliases: {mine: {targets: [openai/gpt-4o]}}")
    seen: list[Catalogue] = []
    watching = asyncio.create_task(watch(path, {}, seen.append, interval_s=0.01))
    await asyncio.sleep(0.05)
    path.write_text("aliases: {mine: {targets: [")
    await until(lambda: "is not valid YAML" in caplog.text)
    path.unlink()
    await until(lambda: "cannot be read" in caplog.text)
    assert not seen
    path.write_text("aliases: {mine: {targets: [openai/gpt-4o-mini]}}")
    await until(lambda: seen)
    watching.cancel()
    mine = seen[0].resolve("mine")
    assert isinstance(mine, Alias)
    assert mine.models == ("openai/gpt-4o-mini",)


async def test_without_a_file_there_is_nothing_to_watch() -> None:
    await watch(None, {}, lambda _: None)
