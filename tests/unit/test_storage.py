import threading
import time

import pytest

from ddgm import storage as module
from ddgm.storage import AbsentError, Attempts, RefusedError, StoppedError, Storage, public_address


def attempts(**changes):
    return Attempts(**{"timeout": 5.0, "retries": 2, "delay": 0.01} | changes)


def test_public_buckets_are_read_over_https():
    assert public_address("gs://bucket/a/b") == "https://storage.googleapis.com/bucket/a/b"
    assert public_address("s3://bucket/a/b") == "https://bucket.s3.amazonaws.com/a/b"
    assert public_address("s3://a.b.c/d") == "https://s3.amazonaws.com/a.b.c/d"
    assert public_address("s3://https://host.org/bucket/a") == "https://host.org/bucket/a"
    assert public_address("file:///a") == "file:///a"


@pytest.mark.parametrize(
    ("address", "variable", "secret"),
    [
        ("gs://bucket/a", "GOOGLE_APPLICATION_CREDENTIALS", "bucket-google-secret.json"),
        ("s3://bucket/a", "AWS_ACCESS_KEY_ID", "aws-secret.json"),
    ],
)
def test_buckets_are_taken_for_public_unless_credentials_are_configured(
    tmp_path, monkeypatch, address, variable, secret
):
    asked = []
    monkeypatch.setattr(module, "public_address", lambda a: asked.append(a) or f"file://{tmp_path}")
    monkeypatch.setattr(module, "secretpath", lambda name: str(tmp_path / name))
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    Storage(address, attempts())
    assert asked == [address]
    with monkeypatch.context() as context:
        context.setenv(variable, "set")
        Storage(address, attempts())
    (tmp_path / secret).write_text("{}")
    Storage(address, attempts())
    assert asked == [address]


def test_a_file_or_some_bytes_of_it_are_fetched(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    (tmp_path / "nothing").write_bytes(b"")
    storage = Storage(f"file://{tmp_path}", attempts())
    assert storage.get("file") == b"0123456789"
    assert storage.get("file", 2, 5) == b"234"
    with pytest.raises(OSError, match="2 bytes arrived instead of 4"):
        storage.get("file", 8, 12)
    for path in ("nothing", "nowhere"):
        with pytest.raises(AbsentError):
            storage.get(path)


def test_what_fails_is_repeated_unless_that_would_not_help():
    calls = []

    def fail(error):
        calls.append(error)
        raise error

    for error, expected in [(OSError(), 3), (ValueError(), 3), (AbsentError(), 1)]:
        calls.clear()
        with pytest.raises(type(error)):
            attempts().repeat("it", lambda error=error: fail(error))
        assert len(calls) == expected
    calls.clear()
    with pytest.raises(RefusedError):
        attempts().repeat("it", lambda: fail(RefusedError()))
    assert len(calls) == 1


def test_a_request_is_given_up_at_its_time_limit_or_when_stopped():
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"within 0\.2 s"):
        attempts(timeout=0.2).within_timeout(lambda: never.wait(30))
    stopping = attempts(timeout=60.0)
    threading.Timer(0.1, stopping.stop.set).start()
    started = time.monotonic()
    with pytest.raises(StoppedError):
        stopping.within_timeout(lambda: never.wait(30))
    assert time.monotonic() - started < 5
    never.set()


def test_a_wait_before_another_attempt_ends_when_stopped():
    stopping = attempts(delay=60.0)
    threading.Timer(0.1, stopping.stop.set).start()
    started = time.monotonic()
    with pytest.raises(StoppedError):
        stopping.repeat("it", lambda: 1 / 0)
    assert time.monotonic() - started < 5
