"""Fetch the bytes of files at gs://, s3://, https://, http:// and file:// addresses.

cloud-files moves the bytes. Its own retries (7 attempts with waits of up to a minute, and HTTP
requests without any time limit) are switched off in favour of the ones here.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from cloudfiles import CloudFiles, compression, paths
from cloudfiles.exceptions import UnsupportedProtocolError
from cloudfiles.secrets import secretpath
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from ddgm.errors import DdgmError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_DELAY = 30.0  # seconds between two attempts
_POLL = 0.1  # seconds within which a waiting thread notices that it is to stop


class AbsentError(Exception):
    """There is no such file, or it is empty."""


class RefusedError(Exception):
    """The server will not hand the file out; asking again would not help."""


class StoppedError(Exception):
    """The result is not wanted any more: `Attempts.stop` is set."""


@dataclass(frozen=True)
class Attempts:
    """How often and how long to try.

    Attributes
    ----------
    timeout
        Limit of one attempt in seconds.
    retries
        How often a failed attempt is repeated.
    delay
        Seconds before the first repetition; doubled each time, with some jitter.
    stop
        Ends every wait once it is set.
    """

    timeout: float
    retries: int
    delay: float
    stop: threading.Event = field(default_factory=threading.Event)

    def repeat(self, what: str, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it succeeds, or raise what it raised last."""
        for number in itertools.count():
            if self.stop.is_set():
                raise StoppedError
            try:
                return attempt()
            except (AbsentError, RefusedError, StoppedError):
                raise
            except Exception as error:  # decoders and storage libraries raise whatever they like
                if number >= self.retries:
                    raise
                pause = min(self.delay * 2**number, _LONGEST_DELAY) * random.uniform(0.75, 1.25)
                logger.warning(
                    "%s: %s; trying again in %.1f s (%d of %d)",
                    what,
                    one_line(error),
                    pause,
                    number + 1,
                    self.retries,
                )
                self.stop.wait(pause)
        raise AssertionError("unreachable")

    def within_timeout(self, request: Callable[[], T]) -> T:
        """Call `request` in a thread of its own and give it up after the time limit.

        Time limits of sockets bound the wait for the next byte only, and the clients for gs:// and
        s3:// have limits and retries of their own. An abandoned thread ends with its socket; being
        a daemon it does not keep the process.
        """
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                outcome.set_result(request())
            except BaseException as error:  # handed to the waiting thread, whatever it is
                outcome.set_exception(error)

        threading.Thread(target=run, daemon=True, name="ddgm-request").start()
        for _ in range(math.ceil(self.timeout / _POLL)):
            wait([outcome], timeout=min(_POLL, self.timeout))
            if outcome.done():
                return outcome.result()
            if self.stop.is_set():
                raise StoppedError
        raise TimeoutError(f"no complete answer within {self.timeout:g} s")


class Storage:
    """The files under an address; safe to share between threads.

    Parameters
    ----------
    address
        ``gs://``, ``s3://``, ``https://``, ``http://`` or ``file://``. The first two are read
        anonymously over HTTPS unless credentials for them are configured.
    attempts
        Limits of one attempt. Repeating is left to the caller, since what arrived may prove damaged
        only when it is decoded.
    connections
        How many threads will fetch at the same time.

    Raises
    ------
    DdgmError
        If the address is not one that cloud-files understands.
    """

    def __init__(self, address: str, attempts: Attempts, connections: int = 1) -> None:
        self._attempts = attempts
        self._files = _OneAttemptFiles(
            _readable_address(address), _StrictAdapter(attempts.timeout, connections)
        )

    def get(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """Fetch a file, or some bytes of it, in one attempt and undo its transport compression."""
        request = {"path": path, "start": start, "end": end}
        # The content is checked against the server's hash in here, where it sends one.
        (answer,) = self._attempts.within_timeout(lambda: self._files.get([request], raw=True))
        content = answer["content"]
        if content is None:
            raise AbsentError("no such file")
        if len(content) == 0:
            raise AbsentError("the file is empty")
        if start is not None and end is not None and len(content) != end - start:
            raise OSError(f"{len(content)} bytes arrived instead of {end - start}")
        plain: bytes = compression.decompress(content, answer["compress"], filename=path)
        if len(plain) == 0:
            raise AbsentError("the file is empty once decompressed")
        return plain


def public_address(address: str) -> str:
    """Return the HTTPS address under which a public ``gs://`` or ``s3://`` bucket can be read.

    Other addresses are returned as they are. An S3 bucket becomes part of the host name, because
    only so does the name lead to the bucket's region; one with dots in its name does not fit the
    certificate and becomes part of the path.
    """
    protocol, _, rest = address.partition("://")
    if protocol == "gs":
        return f"https://storage.googleapis.com/{rest}"
    if protocol == "s3":
        if rest.startswith(("http://", "https://")):
            return rest
        bucket, _, path = rest.partition("/")
        if "." in bucket:
            return f"https://s3.amazonaws.com/{rest}"
        return f"https://{bucket}.s3.amazonaws.com/{path}"
    return address


def one_line(error: BaseException) -> str:
    """Put an exception's type and message on one line of bounded length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


class _OneAttemptFiles(CloudFiles):  # type: ignore[misc]
    """A CloudFiles whose requests are attempted once, the HTTP ones through a given adapter."""

    def __init__(self, address: str, adapter: HTTPAdapter) -> None:
        super().__init__(address, progress=False, green=False)
        self._adapter = adapter

    def _get_connection(self) -> Any:
        connection = super()._get_connection()
        once = getattr(type(connection).get_file, "__wrapped__", None)
        if once is not None:
            connection.get_file = partial(once, connection)
        if hasattr(connection, "session"):
            connection.session.mount("http://", self._adapter)
            connection.session.mount("https://", self._adapter)
        return connection


class _StrictAdapter(HTTPAdapter):
    """An HTTP adapter that limits waits and lets no odd answer pass for a file.

    cloud-files takes 403 for "no such file", accepts any status below 400, and believes that a
    server which ignored the byte range has sent that range.
    """

    def __init__(self, timeout: float, connections: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=connections + 2)
        self._timeout = timeout

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        kwargs["timeout"] = self._timeout
        response = super().send(request, *args, **kwargs)
        status = response.status_code
        if status in (401, 403):
            response.close()
            raise RefusedError(f"HTTP {status} {response.reason}")
        expected = 206 if "Range" in request.headers else 200
        if status < 400 and status != expected and not response.is_redirect:
            response.close()
            raise OSError(f"HTTP {status} instead of {expected}")
        return response


def _readable_address(address: str) -> str:
    """Return the address to give to cloud-files, or raise a `DdgmError` if it cannot read it."""
    unreadable = DdgmError(
        f"{address} is not an address that can be read: it must begin with gs://, https://, s3:// "
        "or file://"
    )
    if "://" in address and paths.get_protocol(address) is None:
        raise unreadable  # cloud-files would look for a local folder of that name
    try:
        extracted = paths.extract(paths.normalize(address))
    except UnsupportedProtocolError as error:
        raise unreadable from error
    if extracted.format != "precomputed":
        raise DdgmError(
            f"{address} is in the format {extracted.format}: a Neuroglancer-precomputed volume is "
            "needed"
        )
    if extracted.protocol in ("gs", "s3") and not _has_credentials(
        extracted.protocol, extracted.bucket
    ):
        return public_address(address)
    return address


def _has_credentials(protocol: str, bucket: str) -> bool:
    """Tell whether credentials for a bucket are configured where cloud-files looks for them.

    Without this check Google's and Amazon's clients go looking for a metadata server, and then
    refuse to read public buckets.
    """
    kind, variables = {
        "gs": ("google", ["GOOGLE_APPLICATION_CREDENTIALS"]),
        "s3": ("aws", ["AWS_ACCESS_KEY_ID", "AWS_PROFILE"]),
    }[protocol]
    files = (f"{kind}-secret.json", f"{bucket}-{kind}-secret.json")
    return any(os.environ.get(name) for name in variables) or any(
        os.path.exists(secretpath(name)) for name in files
    )
