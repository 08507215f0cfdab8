"""The response that carries the event stream: it ends when its reader leaves or is cut off."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from aggregator.api.feed import Feed, Subscriber


class EventStream(StreamingResponse):
    """Server-sent events for one reader."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed, subscriber: Subscriber) -> None:
        # A proxy that gathers the stream before passing it on would turn live into late.
        super().__init__(
            feed.stream(subscriber), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        self._feed, self._subscriber = feed, subscriber

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the reader leaves; one that does not read is left, not waited for."""
        streaming = asyncio.create_task(super().__call__(scope, receive, send))
        given_up = asyncio.create_task(self._subscriber.given_up())
        try:
            await asyncio.wait([streaming, given_up], return_when=asyncio.FIRST_COMPLETED)
            if streaming.done():
                streaming.result()
        finally:
            self._feed.unsubscribe(self._subscriber)
            for task in (streaming, given_up):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
