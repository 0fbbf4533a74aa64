"""Impatience: connections that send nothing are closed."""

import asyncio
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds in which the head of a request must have come.
HEAD_SECONDS = 15.0


class Impatient(H11Protocol):
    """uvicorn's HTTP, which by itself waits for ever for a head that comes byte by byte, or never."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        # asyncio does so itself, but not for a socket that uvicorn has made for several workers: then an answer's
        # second part waits some 40 ms for the client's word that the first has come.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        if self._answering:
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if not self._answering and not self.transport.is_closing():
            self.transport.close()
