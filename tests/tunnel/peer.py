"""A server in a process of its own, to be stopped and killed: prints its port, serves until it dies."""

import asyncio
import sys

from tests.tunnel.conftest import Server


async def main() -> None:
    Server.direct = "direct" in sys.argv
    async with Server() as server:
        print(server.address, flush=True)
        await server.grpc.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
