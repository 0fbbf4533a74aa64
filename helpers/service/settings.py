"""Settings: everything that one service is told, and how its worker processes get to know it."""

import dataclasses
import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

#: Answers that one request may ask for.
MAX_K = 100

#: Longest sides of thumbnails in pixels. With any side allowed, a client could fill the cache.
THUMBNAIL_SIDES = (64, 128, 256, 512)

#: Answers that can be reached by asking further and further.
MAX_DEPTH = 10_000


@dataclass(frozen=True)
class Settings:
    """What a service searches, where it listens, and how much it takes on.

    Parameters
    ----------
    folder : of an engine, see `helpers.search.persist.live.LiveEngine`.
    root : where the gallery's images are now, if they were moved.
    host, port : where it listens.
    hosts : names that it is called by, as in ``Host`` headers, such as behind a proxy; beside this computer's own it
        then answers to no others.
    api_key : what changes of the index ask for; not part of `to_json`, which others may read.
    max_body : bytes of a request.
    max_pixels : of an image.
    queue : requests that wait to be described; one more is sent away with 429.
    batch : images that are described at a time.
    batch_seconds : how long a batch that is not full waits for more.
    request_seconds : how long an image may wait to be described.
    body_seconds, idle_seconds : how long a body may take to come in, and may stand still meanwhile.
    decoders : threads that decode.

    Raises
    ------
    ValueError : a number is not positive.
    """

    folder: Path
    root: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    hosts: tuple[str, ...] = ()
    api_key: str | None = dataclasses.field(default=None, repr=False)
    max_body: int = 20 * 2**20
    max_pixels: int = 50_000_000
    queue: int = 64
    batch: int = 16
    batch_seconds: float = 0.004
    request_seconds: float = 30.0
    body_seconds: float = 60.0
    idle_seconds: float = 10.0
    decoders: int = dataclasses.field(default_factory=lambda: max(2, min(4, os.cpu_count() or 2)))

    def __post_init__(self):
        object.__setattr__(self, "folder", Path(self.folder))
        object.__setattr__(self, "root", None if self.root is None else Path(self.root))
        object.__setattr__(self, "hosts", tuple(name.lower() for name in self.hosts))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not value > (-1 if field.name == "port" else 0):
                raise ValueError(f"{field.name} must be positive, got {value}")

    @property
    def on_loopback(self) -> bool:
        """Whether only this computer itself can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    @property
    def changes(self) -> str:
        """Who may change the index: ``open`` to this computer, ``key`` for who has it, ``off`` for nobody."""
        if self.api_key:
            return "key"
        # Another name means that something stands between: then whoever reaches that reaches this.
        return "open" if self.on_loopback and not self.hosts else "off"

    def to_json(self) -> str:
        """Everything but the key."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del values["api_key"]
        return json.dumps(values | {"folder": str(self.folder), "root": self.root and str(self.root)})

    @classmethod
    def from_json(cls, text: str, api_key: str | None = None) -> Self:
        """The reverse of `to_json`.

        Raises
        ------
        ValueError, TypeError : it is not what `to_json` writes.
        """
        return cls(**json.loads(text), api_key=api_key)
