"""A worker on a node of a Ray cluster as the driver sees it: given works, heard, and ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from holdfast.clusters.ray_calls import get, ready
from holdfast.clusters.ray_parcel import receive, unfinished
from holdfast.errors import BundleError, HoldfastError
from holdfast.store.work_folder import WorkFolder

SECONDS_TO_ANSWER = 300.0
"""How long a node may take to send a piece of some megabytes."""


class RayHandle:
    """A worker that runs.

    Args:
        actor: Ray's handle of the `RayWorker`.
        node: name of the node, for messages.
    """

    gpu: str | None = None  # Ray chooses one

    def __init__(self, actor: Any, node: str) -> None:
        self._actor, self._node = actor, node
        self._folder: WorkFolder | None = None
        self._reply: Any = None  # Ray's reference of what the worker says next
        self._ending: Any = None  # Ray's reference of its end
        self._death: str | None = None

    def give(self, folder: Path, text: str) -> None:
        """Give the worker an assignment, with what an earlier attempt has left."""
        self._folder = WorkFolder(folder)
        for piece in unfinished(self._folder):
            self._actor.take.remote(piece)
        self._actor.give.remote(int(folder.name), text)
        self._reply = self._actor.poll.remote()

    def messages(self) -> Iterator[Mapping[str, Any]]:
        """The messages that have arrived; files that come with one lie in the folder of the work."""
        while self._reply is not None and ready([self._reply]):
            reply, self._reply = self._reply, None
            try:
                head, piece = get(reply)
                message = json.loads(head)
                if message["epochs"]:
                    yield {"epochs": message["epochs"]}
                if message["end"] is None:
                    self._reply = self._actor.poll.remote()
                elif "died" in message["end"]:
                    with suppress(BundleError):
                        self._receive(piece)
                    self._death = message["end"]["died"]
                else:
                    yield self._ended(message["end"], piece)
            except RayError as error:
                self._death = self._how(error)

    def _ended(self, end: Mapping[str, Any], piece: bytes) -> Mapping[str, Any]:
        """The last message about a work; where it is done, its bundle is fetched."""
        if "failure" in end:
            kind, error = end["failure"]
            return {"failure": [kind, f"{error} (on node {self._node})" if kind in ("files", "worker") else error]}
        try:
            self._receive(piece)
        except BundleError as error:
            return {"refused": str(error)}
        return end

    def _receive(self, first: bytes) -> None:
        """Fetch what the worker hands over into the folder of the work."""
        if first and self._folder is not None:
            receive(self._pieces(first), self._folder)

    def _pieces(self, piece: bytes) -> Iterator[bytes]:
        while piece:
            following = self._actor.piece.remote()  # travels while this one is written
            yield piece
            piece = get(following, SECONDS_TO_ANSWER)

    @property
    def is_alive(self) -> bool:
        """Whether the worker runs, as far as is known."""
        return self._death is None

    def how_it_died(self) -> str:
        """How the worker process ended, such as `signal 9`, or that its node is gone."""
        return str(self._death)

    @property
    def signs(self) -> list[Any]:
        """Ray's references that are ready when a message has arrived, or the worker has ended."""
        return [] if self._reply is None else [self._reply]

    def let_go(self) -> None:
        """Let the worker remove its files, and end."""
        self._ending = self._actor.close.remote()

    def terminate(self) -> None:
        """Ask the worker to write what is needed to go on, and to hand it over."""
        self._reply, self._ending = None, self._actor.stop.remote()

    def wait_until_it_ends(self, seconds: float) -> bool:
        """Wait for the end of the worker, and fetch what it hands over; returns whether it has ended."""
        if self._death is None and self._ending is not None:
            try:
                if not ready([self._ending], seconds):
                    return False
                with suppress(HoldfastError):  # without these files, the work starts again from the beginning
                    self._receive(get(self._ending) or b"")
                    get(self._actor.close.remote(), seconds)
            except RayError as error:
                self._death = self._how(error)
            self.kill()
        return True

    def kill(self) -> None:
        """Kill the worker; its process ends with it."""
        self._death = self._death or "it was killed"
        with suppress(RayError, ValueError):
            ray.kill(self._actor)

    def _how(self, error: RayError) -> str:
        """How a worker ended whose actor does not answer."""
        text = str(error)
        if "memory" in text and "OOM" in text and "low on memory" in text:
            return f"Ray killed it: the node {self._node} was low on memory"
        if "its node has died" in text or "node was terminated" in text:
            return f"the node {self._node} is gone"
        return f"Ray's process on the node {self._node} is gone"
