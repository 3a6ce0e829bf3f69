"""The most that one attempt can cost: a bound that is provable, not an estimate. Pure.

Input. Every tokenizer of the families that are served makes at most one token of a byte of UTF-8: byte-level BPE
(OpenAI's tiktoken, Llama 3, Qwen, DeepSeek, Mistral's Tekken, Claude) because each token stands for one byte or more;
SentencePiece with byte fallback (Gemini, Gemma, older Mistral) because what is not in its vocabulary falls back to one
token a byte, with one more for the space that it puts before a text. Around texts a template adds a few tokens:

- a request, a message: 16 each. OpenAI's cookbook ("How to count tokens"): 3 a message, 3 a reply; Gemma's turns 5.
- tools: 1,024 once and 64 each. Anthropic's "Tool use": a system prompt of 264 to 530 tokens, by model.
- a tool that the provider defines and the caller runs: 2,048. Anthropic's "Computer use": 499, and 735 for the tool.
- an image: Anthropic 5,000 ("Vision": a token for each patch of 28 × 28 pixels, of a native resolution of 4,784 at the
  most; what is larger is scaled down). OpenAI 48,200 ("Images and vision": gpt-4o-mini, the dearest, takes 2,833 and
  5,667 for each of at most 8 tiles of 512 pixels within 768 × 2,048; models of patches take up to 1,536 at 2.46, or
  10,000 in their original size).
- a recording in WAV of plain samples: 32 tokens for each second that it begins (Gemini's "Understand and count tokens";
  OpenAI takes 10). Other formats hold silence of any length in a few bytes, so no bound follows from theirs.
- all else (documents, files by address, other recordings, images of other providers): the model's whole context. A
  Gemini image is a tile or many, or up to 2,240 tokens, by its size and `media_resolution` ("Media resolution").
- options in a provider's own form: only those that are known to change neither what is read nor how much is written.

The bound is never more than the model's context: what is longer is refused, and not billed. Output is bounded by the
effective cap, which is sent upstream. Each token counts at the dearest rate of any row and factor of the price that the
attempt may meet.

Tools that the provider runs itself (Anthropic's "Server tools", Gemini's "Grounding", OpenAI's "Web search") feed their
results back as input, any number of times: they are bounded only if the price names them and the request says how often
they may be used.
"""

from __future__ import annotations

import json
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO

import orjson
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from modelmuxer.accounting.v1.accounting_pb2 import Price
from modelmuxer.chat.v1.chat_pb2 import Audio, Block, ChatRequest, Document, Tool
from modelmuxer.embedding.v1.embedding_pb2 import EmbedRequest

from shared.catalogue import Model
from shared.pricing import PER

REQUEST_TOKENS = 16
MESSAGE_TOKENS = 16
TOOLS_TOKENS = 1_024
TOOL_TOKENS = 64
CLIENT_TOOL_TOKENS = 2_048
ANTHROPIC_IMAGE_TOKENS = 5_000
OPENAI_IMAGE_TOKENS = 48_200
AUDIO_TOKENS_PER_S = 32
# Options in a provider's own form that leave a call's cost within its bound.
_HARMLESS = frozenset(
    {
        *("temperature", "top_p", "topP", "top_k", "topK", "min_p", "seed", "random_seed", "stop", "stop_sequences"),
        *("stopSequences", "frequency_penalty", "frequencyPenalty", "presence_penalty", "presencePenalty"),
        *("repetition_penalty", "logit_bias", "logprobs", "top_logprobs", "responseLogprobs", "user", "metadata"),
        *("labels", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
        *("cache_control", "safe_prompt", "safetySettings", "verbosity", "reasoning_effort", "parallel_tool_calls"),
        *("thinking", "thinkingConfig"),  # thoughts count as output, within its cap
    }
)
_NESTED = frozenset({"generationConfig"})
# Tools that a provider defines but the caller runs, by the beginning of their type.
_CALLERS_OWN = ("bash_", "text_editor_", "computer_", "memory_", "computer_use", "function")


class Unbounded(Exception):
    """The attempt's cost has no bound. Says why, and what to do."""


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The most that an attempt can use and cost."""

    input_tokens: int
    output_tokens: int
    nanos: int

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


def worst_case(chat: ChatRequest, model: Model, cap: int | None) -> WorstCase:
    """The bound for a model at an effective output cap. Raises Unbounded."""
    assert model.price is not None  # noqa: S101 - the shortlist has refused models without one
    output_tokens = cap or model.max_output_tokens or model.context_tokens
    if not output_tokens:
        raise Unbounded(f"Nobody knows how much {model.id} can write; set max_output_tokens")
    calls, tool_nanos = _server_tools(chat.tools, model.price)
    if calls and not model.context_tokens:
        raise Unbounded(f"The context of {model.id} is not known, and its own tools may fill it")
    input_tokens = (calls + 1) * model.context_tokens if calls else _input_bound(chat, model)
    output_tokens *= calls + 1
    return WorstCase(input_tokens, output_tokens, _nanos(model, chat, input_tokens, output_tokens) + tool_nanos)


def embedding_worst_case(request: EmbedRequest, model: Model) -> WorstCase:
    """The bound for embedding. A text longer than the model's context is refused or cut, and never billed beyond it."""
    tokens = REQUEST_TOKENS
    for each in request.inputs:
        size = len(each.tokens.ids) if each.HasField("tokens") else len(each.text.encode())
        tokens += min(size + MESSAGE_TOKENS, model.context_tokens or size + MESSAGE_TOKENS)
    return WorstCase(tokens, 0, _nanos(model, ChatRequest(), tokens, 0))


def _input_bound(chat: ChatRequest, model: Model) -> int:
    bound = _Bound(model)
    bound.add(REQUEST_TOKENS)
    for message in chat.messages:
        bound.add(MESSAGE_TOKENS + message.extra.ByteSize())
        bound.content(message.content)
    if chat.tools:
        bound.add(TOOLS_TOKENS)
    for tool in chat.tools:
        bound.tool(tool)
    if chat.response_format.ByteSize():
        bound.add(TOOLS_TOKENS + _json_size(chat.response_format.json_schema.schema_json))
    if chat.HasField("provider_options"):
        _check_options(json.loads(MessageToJson(chat.provider_options)))
        bound.add(chat.provider_options.ByteSize())
    return bound.tokens


class _Bound:
    """Adds up a request."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._tokens = 0
        self._fills_context = ""

    @property
    def tokens(self) -> int:
        context = self._model.context_tokens
        if not self._fills_context:
            return min(self._tokens, context) if context else self._tokens
        if not context:
            raise Unbounded(f"{self._fills_context} may fill the context of {self._model.id}, which is not known")
        return context

    def add(self, tokens: int) -> None:
        self._tokens += tokens

    def text(self, *texts: str | bytes) -> None:
        for text in texts:
            self._tokens += len(text if isinstance(text, bytes) else text.encode()) + 1

    def content(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            self.block(block)

    def block(self, block: Block) -> None:
        self.add(block.extra.ByteSize())
        match block.WhichOneof("kind"):
            case "text":
                self.text(block.text.text)
            case "image":
                self._image()
            case "audio":
                self._audio(block.audio)
            case "document":
                self._document(block.document)
            case "tool_use":
                use = block.tool_use
                self.text(use.id, use.name, use.arguments_json, use.signature)
                self.add(MESSAGE_TOKENS)
            case "tool_result":
                self.text(block.tool_result.tool_use_id, block.tool_result.name)
                self.add(MESSAGE_TOKENS)
                self.content(block.tool_result.content)
            case "reasoning":
                self.text(block.reasoning.text, block.reasoning.signature, block.reasoning.encrypted)
            case "refusal":
                self.text(block.refusal.text)
            case _:
                self._fills_context = "A block in a provider's own form"

    def tool(self, tool: Tool) -> None:
        if tool.opaque.json:
            self.add(CLIENT_TOOL_TOKENS + _json_size(tool.opaque.json))
        else:
            self.add(TOOL_TOKENS + sum(map(_json_size, (tool.name, tool.description, tool.parameters_json))))

    def _document(self, document: Document) -> None:
        self.add(MESSAGE_TOKENS)
        self.text(document.title, document.context, document.text)
        self.content(document.content)
        if not document.HasField("media"):
            return
        if document.media.media_type.startswith("text/") and document.media.data:
            self.text(document.media.data)
        else:
            self._fills_context = "A document"

    def _audio(self, audio: Audio) -> None:
        seconds = _wav_seconds(audio.media.data)
        if seconds is None:
            self._fills_context = "A recording"
        else:
            self.add((seconds + 1) * AUDIO_TOKENS_PER_S + MESSAGE_TOKENS)

    def _image(self) -> None:
        match self._model.provider:
            case "anthropic":
                self.add(ANTHROPIC_IMAGE_TOKENS)
            case "openai":
                self.add(OPENAI_IMAGE_TOKENS)
            case _:
                self._fills_context = "An image"


def _check_options(options: dict[str, object]) -> None:
    for name, value in options.items():
        if name in _NESTED and isinstance(value, dict):
            _check_options(value)
        elif name not in _HARMLESS:
            raise Unbounded(f'Nobody knows what the option "{name}" of the provider\'s own costs; leave it out')


def _wav_seconds(data: bytes) -> int | None:
    """How long a recording of plain samples is, by all its bytes; None for what is none."""
    try:
        with wave.open(BytesIO(data)) as recording:
            bytes_per_s = recording.getframerate() * recording.getsampwidth() * recording.getnchannels()
    except (wave.Error, EOFError):
        return None
    return len(data) // bytes_per_s if bytes_per_s > 0 else None


def _nanos(model: Model, chat: ChatRequest, input_tokens: int, output_tokens: int) -> int:
    price = model.price
    assert price is not None  # noqa: S101 - as above
    caches = model.provider != "anthropic" or _asks_to_cache(chat)
    dearest_input = dearest_output = 0
    for row in price.rows:
        if row.above_input_tokens < max(1, input_tokens):
            dearest_input = max(dearest_input, row.input, row.cached_input, row.input_audio)
            dearest_output = max(dearest_output, row.output, row.reasoning, row.output_audio)
            if caches:
                dearest_input = max(dearest_input, row.cache_write, row.cache_write_1h)
    total = dearest_input * input_tokens + dearest_output * output_tokens + price.call_nanos * PER
    divisor = PER
    for dimension in {factor.dimension for factor in price.factors}:
        # Of one dimension a call has one value, or none that the price names.
        factors = [each for each in price.factors if each.dimension == dimension and each.numerator > each.denominator]
        if factors:
            dearest = max(factors, key=lambda each: each.numerator / each.denominator)
            total *= dearest.numerator
            divisor *= dearest.denominator
    return -(-total // divisor)


def _asks_to_cache(chat: ChatRequest) -> bool:
    """Whether anything in the request may make Anthropic write its prompt cache, which it does only when asked."""
    return _has_breakpoint(chat) or b"cache_control" in chat.SerializeToString()


def _has_breakpoint(message: Message) -> bool:
    for field, value in message.ListFields():
        if field.name == "cache_breakpoint":
            return True
        if field.type != field.TYPE_MESSAGE or (field.message_type and field.message_type.GetOptions().map_entry):
            continue
        values = [value] if isinstance(value, Message) else value
        if any(_has_breakpoint(each) for each in values):
            return True
    return False


def _server_tools(tools: Iterable[Tool], price: Price) -> tuple[int, int]:
    """How often tools of the provider's own may be called, and what the calls cost. Raises Unbounded."""
    calls = nanos = 0
    for tool in tools:
        if not tool.opaque.json:
            continue
        form = _object(tool.opaque.json)
        kind = str(form.get("type", ""))
        if kind.startswith(_CALLERS_OWN):
            continue
        name, uses = str(form.get("name", kind)), form.get("max_uses")
        if name not in price.server_tool_call_nanos or not isinstance(uses, int) or uses < 0:
            raise Unbounded(
                f'The provider runs the tool "{name or kind or "(unnamed)"}" itself, at a cost without a bound; '
                "leave it out, or give it max_uses where the catalogue has its price"
            )
        calls += uses
        nanos += uses * price.server_tool_call_nanos[name]
    return calls, nanos


def _object(text: bytes) -> dict[str, object]:
    try:
        form = json.loads(text)
    except ValueError:
        return {}
    return form if isinstance(form, dict) else {}


def _json_size(text: str | bytes) -> int:
    """Bytes of a text within JSON, where some characters are written as escapes."""
    return len(orjson.dumps(text.decode(errors="replace") if isinstance(text, bytes) else text))
