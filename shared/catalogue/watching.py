"""Reloads the catalogue when its file changes."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from shared.catalogue.catalogue import Catalogue
from shared.catalogue.documents import CatalogueError
from shared.catalogue.loading import load

INTERVAL_S = 0.5

log = logging.getLogger("modelmuxer.catalogue")


async def watch(
    path: str | Path | None,
    environ: Mapping[str, str],
    callback: Callable[[Catalogue], Awaitable[None] | None],
    *,
    interval_s: float = INTERVAL_S,
) -> None:
    """Calls `callback` with each new content of a user's file, until cancelled. Returns at once if there is no file.

    A file that is broken or gone changes nothing: it is logged once, and the catalogue in use stays. A content counts
    once it stands for two looks, so that one which is still being written is not taken for the whole.
    """
    if not path:
        return
    file = Path(path)
    used = before = await asyncio.to_thread(_content, file)
    while True:
        await asyncio.sleep(interval_s)
        content = await asyncio.to_thread(_content, file)
        settled, before = content == before, content
        if content == used or not settled:
            continue
        used = content
        try:
            # In a thread: reading thousands of lines of YAML would hold up running streams.
            catalogue = await asyncio.to_thread(load, file, environ)
        except CatalogueError as error:
            for problem in error.problems:
                log.error("The new catalogue is not used: %s", problem)
            continue
        log.info("The catalogue is now version %s", catalogue.version)
        if inspect.isawaitable(done := callback(catalogue)):
            await done


def _content(file: Path) -> bytes | None:
    """What the file holds: its time alone misses a change within the clock's step, and a replaced symbolic link."""
    try:
        return file.read_bytes()
    except OSError:
        return None
