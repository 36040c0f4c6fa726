"""What all routes share: the models, the workers, and how a request waits, works and is given up.

A request that does work is admitted at the door (:mod:`melisma.web.door`), takes one of ``workers`` cores when one is
free, and holds it while its upload is decoded (another process) and its audio is made (a thread). When its client
leaves, a waiting request is dropped, a decoder killed, and a thread stops at its next step, a piece of ten seconds of
audio at most.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import torch
from starlette.requests import HTTPConnection, Request

from melisma.web.metrics import Metrics
from melisma.web.models import Models
from melisma.web.settings import Settings

T = TypeVar("T")
Progress = Callable[[float], None]


class ClientLeftError(Exception):
    """The client closed its connection before the answer was ready."""


class _GivenUpError(Exception):
    """Ends the work of a thread that nobody waits for."""


class Service:
    """The state of one application; routes get it with :func:`service_of`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models = Models(settings)
        self.metrics = Metrics()
        self.admitted = 0
        self.streams = 0
        self._cores = asyncio.Semaphore(settings.workers)
        # One thread a core, and one thread in each: several requests at once are what keeps the cores busy.
        self._threads = ThreadPoolExecutor(
            settings.workers, thread_name_prefix="melisma", initializer=torch.set_num_threads, initargs=(1,)
        )

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def core(self) -> AsyncIterator[None]:
        """Hold one of the cores; waits until one is free."""
        self.metrics.waiting.inc()
        try:
            await self._cores.acquire()
        finally:
            self.metrics.waiting.dec()
        self.metrics.working.inc()
        try:
            yield
        finally:
            self.metrics.working.dec()
            self._cores.release()

    async def work(self, job: Callable[[Progress], T]) -> T:
        """Run a job in a worker's thread; call it while holding a core.

        Args:
            job: is given a function to call with its progress, 0 to 1, as often as it can: there it ends when the
                request is given up.
        """
        given_up = threading.Event()

        def progress(share: float) -> None:
            if given_up.is_set():
                raise _GivenUpError

        future = asyncio.get_running_loop().run_in_executor(self._threads, job, progress)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            given_up.set()
            with suppress(_GivenUpError, Exception):
                await future  # the core is free when the thread is
            raise

    async def until_left(self, request: Request, answer: Coroutine[Any, Any, T]) -> T:
        """Await an answer, and give it up when the client leaves.

        Raises:
            ClientLeftError: it left.
        """
        making = asyncio.ensure_future(answer)
        leaving = asyncio.ensure_future(_left(request))
        try:
            await asyncio.wait({making, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if making.done():
                return making.result()
            self.metrics.left.inc()
            raise ClientLeftError
        finally:
            for task in (making, leaving):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task


async def _left(request: Request) -> None:
    """Wait until the client goes; its body must have been read."""
    receive: Callable[[], Awaitable[Any]] = request.receive
    while (await receive())["type"] != "http.disconnect":
        pass


def service_of(connection: HTTPConnection) -> Service:
    """The service behind a request or a WebSocket."""
    service: Service = connection.app.state.service
    return service
