"""Many chats at once over one tunnel: `python many_calls.py [address] [count]`, the key in MODELMUXER_API_KEY.

The only difference from the plain client is `tunnel=True`.
"""

import asyncio
import os
import sys
import time

from modelmuxer.client import Client, text_of


async def main(address: str, count: int) -> None:
    async with Client(address, api_key=os.environ["MODELMUXER_API_KEY"], tunnel=True) as client:
        start = time.perf_counter()
        answers = await asyncio.gather(*(client.chat(f"Say {number}.") for number in range(count)))
        took_s = time.perf_counter() - start
        print(text_of(answers[-1].content))
        print(f"{count} answers in {took_s:.2f} s")


if __name__ == "__main__":
    arguments = dict(enumerate(sys.argv[1:]))
    asyncio.run(main(arguments.get(0, "127.0.0.1:50051"), int(arguments.get(1, 100))))
