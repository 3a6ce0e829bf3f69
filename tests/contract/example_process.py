"""The example as `python -m tests.contract.example_process`."""

from modelmuxer.provider.v1 import provider_pb2_grpc

from shared.runner import App, main
from tests.contract.example import PROVIDER, Example, ExampleSettings


async def build(_: ExampleSettings, app: App) -> None:
    app.serve(provider_pb2_grpc.add_ProviderServiceServicer_to_server, Example(), PROVIDER)


if __name__ == "__main__":
    main("provider-proxy", ExampleSettings, build)
