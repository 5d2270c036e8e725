"""Arrays on disk that are made part by part, and are there as a whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from ddgm.archive import sync, write_durably
from ddgm.errors import DdgmError


@dataclass(frozen=True)
class Workplace:
    """A folder beside an array on disk in which the array is made, part by part.

    The array appears under its own name when all of it is there. Until then the workplace holds
    what there is of it, the settings it is made with, and a record of each finished part, so that
    an interrupted run goes on.

    Attributes
    ----------
    target : Path
        Where the finished array is to appear.
    identity : str
        Of what was begun there: a worker that was cut off may come back to a later one.
    """

    target: Path
    identity: str = ""

    @classmethod
    def open(cls, target: Path | str, settings: Mapping[str, Any]) -> Workplace:
        """Begin a workplace, or go on with one that was left unfinished.

        Raises
        ------
        DdgmError
            If the target exists, or the workplace was begun with other settings.
        """
        place = cls(Path(target).absolute())
        if place.target.exists():
            raise DdgmError(f"{place.target} exists already; remove it, or choose another name")
        if place.folder.exists() and not (place.array / "zarr.json").exists():
            # Records without their array: it was begun and no more, or it has got its name.
            shutil.rmtree(place.folder)
        wanted = json.loads(json.dumps(settings))
        if place.description.exists():
            found = json.loads(place.description.read_text(encoding="utf-8"))
            own = found.pop("id", "")
            if found != wanted:
                keys = sorted(
                    key for key in {*found, *wanted} if found.get(key, ...) != wanted.get(key, ...)
                )
                raise DdgmError(
                    f"{place.folder} holds unfinished work with another {', '.join(keys)}; "
                    "remove the folder to begin anew, or go back to the settings"
                )
        else:
            own = uuid.uuid4().hex
            with place.writing("its settings"):
                place.records.mkdir(parents=True, exist_ok=True)
                described = json.dumps({"id": own, **wanted}, indent=1)
                write_durably(place.description, described.encode())
                sync(place.folder)
                sync(place.folder.parent)
        return cls(place.target, own)

    @property
    def folder(self) -> Path:
        """The workplace itself."""
        return self.target.with_name(self.target.name + ".partial")

    @property
    def description(self) -> Path:
        """Settings of what is made."""
        return self.folder / "settings.json"

    @property
    def array(self) -> Path:
        """The array as far as it is made."""
        return self.folder / "array"

    @property
    def records(self) -> Path:
        """What is said of each finished part."""
        return self.folder / "finished"

    def is_current(self) -> bool:
        """Tell whether it is still there, and not that of another run of the same name."""
        try:
            found = json.loads(self.description.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        return self.array.exists() and found.get("id", "") == self.identity

    def is_finished(self, part: int) -> bool:
        """Tell whether a part is on disk as a whole."""
        return self._record(part).exists()

    def remaining(self, count: int, batch: int) -> list[range]:
        """Return the batches of `count` sections that are not finished, by their first ones."""
        batches = (range(at, min(at + batch, count)) for at in range(0, count, batch))
        return [each for each in batches if not self.is_finished(each.start)]

    def finish(self, part: int, record: Mapping[str, Any]) -> None:
        """Note that a part has been written."""
        write_durably(self._record(part), json.dumps(record).encode())
        sync(self.records)

    def finished(self) -> dict[int, dict[str, Any]]:
        """Return the records of all finished parts, in order."""
        records = {int(path.stem): path for path in self.records.glob("*.json")}
        return {part: json.loads(records[part].read_text("utf-8")) for part in sorted(records)}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes that would make the same array out."""
        lock = filelock.FileLock(self.folder / "lock")
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise DdgmError(
                f"{self.target}: another process is making it; wait for its end"
            ) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Turn a failure to write something into one line."""
        try:
            yield
        except OSError as error:
            advice = "free some space" if error.errno == errno.ENOSPC else "mend that"
            raise DdgmError(
                f"{self.target}: {what} could not be written ({error.strerror or error}); {advice} "
                "and run again: what is finished is kept"
            ) from error

    @contextmanager
    def writing_sections(self, first: int, stop: int) -> Iterator[None]:
        """Do the same with some sections, and wait until they are on the disk."""
        with self.writing(f"sections {first} to {stop - 1}"):
            yield
            for path in self._written(first, stop):
                sync(path)

    def check_space(self, size: int) -> None:
        """Refuse to begin what will not fit on the disk.

        Parameters
        ----------
        size : int
            Bytes still to be written.
        """
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise DdgmError(
                f"{self.target}: {size / 1e9:.3g} GB are to be written, and {free / 1e9:.3g} GB "
                "are free there; free some space, or choose another place"
            )

    def sync_array(self) -> None:
        """Wait until the array's description is on the disk."""
        for path in (self.array / "zarr.json", self.array, self.folder):
            sync(path)

    def close(self) -> None:
        """Give the finished array its name, and remove the workplace."""
        self.sync_array()
        os.replace(self.array, self.target)
        sync(self.target.parent)
        shutil.rmtree(self.folder)

    def _record(self, part: int) -> Path:
        return self.records / f"{part}.json"

    def _written(self, first: int, stop: int) -> Iterator[Path]:
        """Return files and folders of some sections of a Zarr v3 array whose chunks they fill."""
        described = json.loads((self.array / "zarr.json").read_text(encoding="utf-8"))
        chunk = described["chunk_grid"]["configuration"]["chunk_shape"][0]
        for index in range(first // chunk, -(-stop // chunk)):
            folder = self.array / "c" / str(index)
            if folder.exists():  # of nothing but fill values there is no chunk
                yield from (*folder.rglob("*"), folder, self.array / "c")
        yield self.array
