"""The settings of a service, and how its worker processes receive them."""

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from helpers.loopback import is_loopback
from helpers.service.root_path import normalized

#: Results per request.
MAX_K = 100

#: Longest sides of thumbnails in pixels. If any side were allowed, a client could fill the cache.
THUMBNAIL_SIDES = (64, 128, 256, 512)

#: Results of a query on all pages together.
MAX_DEPTH = 10_000


@dataclass(frozen=True)
class Settings:
    """What a service searches, where it listens, and its limits.

    Parameters
    ----------
    folder : of an engine, see `helpers.search.persist.live.LiveEngine`.
    root : the current folder of the gallery's images, if they were moved.
    host, port : where it listens.
    root_path : the path under which a proxy publishes the service, see `helpers.service.root_path`.
    hosts : host names, such as those of a proxy. If given, the service accepts requests only for these names and those
        of this computer.
    origins : of pages of other sites whose scripts may use the service, such as ``https://www.example.org``, or ``*``
        for all pages. To change the index, they need the key.
    api_key : required for changes of the index.
    read_key : required for all other requests that show something of the gallery; `api_key` is accepted, too.
    max_body : bytes of a request.
    max_pixels : of an image.
    queue : requests that wait for feature extraction. Further ones get status 429.
    batch : images whose features are extracted together.
    batch_seconds : how long an incomplete batch waits for more images.
    request_seconds : time limit for feature extraction.
    body_seconds, idle_seconds : time limits for a whole body, and for a pause while it arrives.
    decoders : threads that decode images.

    Raises
    ------
    ValueError : a number is not positive, or the root path or an origin is not valid.
    """

    folder: Path
    root: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    root_path: str = ""
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    api_key: str | None = dataclasses.field(default=None, repr=False)
    read_key: str | None = dataclasses.field(default=None, repr=False)
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
        object.__setattr__(self, "root_path", normalized(self.root_path))
        object.__setattr__(self, "hosts", tuple(name.lower() for name in self.hosts))
        object.__setattr__(self, "origins", tuple(map(_origin, self.origins)))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not value > (-1 if field.name == "port" else 0):
                raise ValueError(f"{field.name} must be positive, got {value}")

    @property
    def on_loopback(self) -> bool:
        """Whether only this computer can reach the service."""
        return is_loopback(self.host)

    @property
    def read_only(self) -> bool:
        """Whether the engine's folder cannot be written."""
        return self.folder.exists() and not os.access(self.folder, os.W_OK)

    @property
    def changes(self) -> Literal["open", "key", "off"]:
        """Who may change the index: this computer (open), clients with the key (key), or no one (off)."""
        if self.read_only:
            return "off"
        if self.api_key:
            return "key"
        # A host name suggests a proxy, through which others can reach the service.
        return "open" if self.on_loopback and not self.hosts else "off"

    def to_json(self) -> str:
        """All settings except the keys, because other users may read this."""
        values = dataclasses.asdict(self)
        del values["api_key"], values["read_key"]
        return json.dumps(values, default=str)

    @classmethod
    def from_json(cls, text: str, api_key: str | None = None, read_key: str | None = None) -> Self:
        """The reverse of `to_json`."""
        return cls(**json.loads(text), api_key=api_key, read_key=read_key)


def _origin(text: str) -> str:
    """An origin as browsers send it. Raises ValueError: it is not an origin."""
    origin = text.strip().lower().rstrip("/")
    parts = urlsplit(origin)
    if origin != "*" and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path or "@" in origin):
        raise ValueError(f"an origin is like https://www.example.org, without a path, got {text!r}")
    return origin
