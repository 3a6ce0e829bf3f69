"""A streamed answer and a whole one are the same answer."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelmuxer.chat.v1.chat_pb2 import (
    Block,
    BlockDelta,
    BlockStart,
    BlockStop,
    ChatEvent,
    ChatResponse,
    Citation,
    Completed,
    FinishReason,
    Opaque,
    Reasoning,
    Refusal,
    Started,
    Text,
    TokenLogprob,
    ToolUse,
    Usage,
)

from shared.transcript import Transcript, coalesce, replay

texts = st.text(max_size=20)
signatures = st.binary(max_size=9)
citations = st.builds(Citation, title=texts, url=texts, start_index=st.none() | st.integers(0, 99))
extras = st.none() | st.builds(Opaque, format=st.just("anthropic"), json=st.just(b'{"caller":1}'))
blocks = st.one_of(
    st.builds(
        Block,
        text=st.builds(Text, text=texts, citations=st.lists(citations, max_size=2), signature=signatures),
        extra=extras,
    ),
    st.builds(Block, reasoning=st.builds(Reasoning, text=texts, signature=texts, encrypted=texts, format=texts)),
    st.builds(
        Block,
        tool_use=st.builds(ToolUse, id=texts, name=texts, arguments_json=texts, signature=signatures),
        extra=extras,
    ),
    st.builds(Block, refusal=st.builds(Refusal, text=texts)),
    st.builds(Block, opaque=st.builds(Opaque, format=texts, json=st.binary(max_size=9))),
)
logprobs = st.builds(TokenLogprob, token=texts, logprob=st.floats(-9, 0), token_bytes=st.binary(max_size=3))
responses = st.builds(
    ChatResponse,
    started=st.none() | st.builds(Started, model=texts),
    content=st.lists(blocks, max_size=4),
    completed=st.none()
    | st.builds(
        Completed,
        finish_reason=st.sampled_from(FinishReason.values()),
        usage=st.none() | st.builds(Usage, input_tokens=st.integers(0, 9)),
        logprobs=st.lists(logprobs, max_size=3),
    ),
)


def fold(events: list[ChatEvent]) -> ChatResponse:
    transcript = Transcript()
    for event in events:
        transcript.add(event)
    return transcript.response


def cut_into(pieces: Callable[[str], list[str]], event: ChatEvent) -> list[ChatEvent]:
    """The same delta in several."""
    kind = event.delta.WhichOneof("delta")
    if kind in (None, "citation", "opaque") or event.delta.logprobs:
        return [event]
    index = event.delta.index
    return [
        ChatEvent(delta=BlockDelta(index=index, **{kind: piece}))  # type: ignore[arg-type]
        for piece in pieces(getattr(event.delta, kind or ""))
    ]


@given(responses)
def test_a_replayed_answer_folds_to_itself(response: ChatResponse) -> None:
    assert fold([*replay(response)]) == response


@given(responses, st.data())
def test_how_an_answer_was_cut_into_deltas_does_not_matter(response: ChatResponse, data: st.DataObject) -> None:
    def pieces(text: str) -> list[str]:
        at = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=3)))
        return [text[begin:end] for begin, end in zip([0, *at], [*at, len(text)], strict=True)]

    cut = [piece for event in replay(response) for piece in cut_into(pieces, event)]
    assert fold(cut) == response
    assert fold(coalesce(cut)) == response
    assert len(coalesce(cut)) <= len(cut)


@given(responses)
def test_a_missing_block_stop_does_no_harm(response: ChatResponse) -> None:
    assert fold([event for event in replay(response) if not event.HasField("block_stop")]) == response


def test_merging_deltas_changes_neither_the_events_nor_those_with_log_probabilities() -> None:
    one = ChatEvent(delta=BlockDelta(text="a"))
    likely = ChatEvent(delta=BlockDelta(text="b", logprobs=[TokenLogprob(token="b")]))
    other = ChatEvent(delta=BlockDelta(index=1, text="c"))
    assert coalesce([one, one, likely, likely, one, other]) == [
        ChatEvent(delta=BlockDelta(text="aa")),
        likely,
        likely,
        one,
        other,
    ]
    assert one.delta.text == "a"


def test_what_is_known_before_the_end_can_be_read() -> None:
    transcript = Transcript()
    transcript.add(ChatEvent(started=Started(model="m")))
    transcript.add(ChatEvent(usage=Usage(input_tokens=7)))
    transcript.add(ChatEvent(block_start=BlockStart(block=Block(text=Text()))))
    transcript.add(ChatEvent(delta=BlockDelta(text="Hel")))
    transcript.add(ChatEvent(delta=BlockDelta(text="lo")))
    assert not transcript.complete
    assert transcript.usage == Usage(input_tokens=7)
    assert transcript.response == ChatResponse(started=Started(model="m"), content=[Block(text=Text(text="Hello"))])
    transcript.add(ChatEvent(completed=Completed(finish_reason=FinishReason.FINISH_REASON_STOP)))
    assert transcript.complete
    assert transcript.response.completed.usage == Usage(input_tokens=7)


TEXT = ChatEvent(block_start=BlockStart(block=Block(text=Text())))
END = ChatEvent(completed=Completed())


@pytest.mark.parametrize(
    "events",
    [
        [ChatEvent()],
        [ChatEvent(delta=BlockDelta(text="a"))],
        [ChatEvent(block_stop=BlockStop())],
        [TEXT, TEXT],
        [ChatEvent(block_start=BlockStart(index=-1))],
        [TEXT, ChatEvent(delta=BlockDelta(tool_arguments="{"))],
        [TEXT, ChatEvent(delta=BlockDelta(index=1, text="a"))],
        [TEXT, ChatEvent(block_stop=BlockStop()), ChatEvent(delta=BlockDelta(text="a"))],
        [TEXT, ChatEvent(block_stop=BlockStop()), ChatEvent(block_stop=BlockStop())],
        [TEXT, ChatEvent(started=Started())],
        [ChatEvent(started=Started()), ChatEvent(started=Started())],
        [END, END],
        [END, TEXT],
        [TEXT, ChatEvent(delta=BlockDelta(signature="no base64!")), END],
    ],
)
def test_events_that_no_answer_consists_of_are_refused(events: list[ChatEvent]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        fold(events)


def test_a_long_answer_costs_no_more_per_event_than_a_short_one() -> None:
    def seconds(count: int) -> float:
        begin = time.perf_counter()
        fold([TEXT, *[ChatEvent(delta=BlockDelta(text="word " * 20))] * count, END])
        return time.perf_counter() - begin

    assert min(seconds(20_000) for _ in range(3)) < 40 * min(seconds(2_000) for _ in range(3))
