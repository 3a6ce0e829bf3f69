"""Anthropic's Messages form: requests, answers, streams and errors, both ways.

A conversation that comes in by this form and goes out by it is unchanged wherever the provider checks: thinking with
its signature, redacted thinking, tool inputs and blocks that only Anthropic knows keep their letter.
"""

from shared.wire.anthropic.blocks import FORMAT
from shared.wire.anthropic.errors import error_frame, error_type, render_error
from shared.wire.anthropic.message import parse_message, render_message
from shared.wire.anthropic.request import COUNTED, MessagesRequest, parse_count_request, parse_request, render_request
from shared.wire.anthropic.stream import MessageStream, StreamReader

__all__ = [
    "COUNTED",
    "FORMAT",
    "MessageStream",
    "MessagesRequest",
    "StreamReader",
    "error_frame",
    "error_type",
    "parse_count_request",
    "parse_message",
    "parse_request",
    "render_error",
    "render_message",
    "render_request",
]
