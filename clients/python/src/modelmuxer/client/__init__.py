"""A thin typed client of ModelMuxer's gRPC API.

    async with Client(api_key="mm-…") as client:
        async for event in client.stream_chat("Explain TCP slow start"):
            print(event.delta.text, end="")

``Client.router`` is the generated stub for everything else; errors are grpc.aio.AioRpcError there and CallError here.
"""

from modelmuxer.client.client import Client, text_message, text_of
from modelmuxer.client.errors import CallError

__all__ = ["CallError", "Client", "text_message", "text_of"]
