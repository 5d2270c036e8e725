"""Arrays on disk that are made part by part, and are there as a whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddgm.archive import replacing
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
    """

    target: Path

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
        record, wanted = place.folder / "settings.json", json.loads(json.dumps(settings))
        if record.exists():
            found = json.loads(record.read_text(encoding="utf-8"))
            if found != wanted:
                keys = sorted(
                    key for key in {*found, *wanted} if found.get(key, ...) != wanted.get(key, ...)
                )
                raise DdgmError(
                    f"{place.folder} holds unfinished work with another {', '.join(keys)}; "
                    "remove the folder to begin anew, or go back to the settings"
                )
        else:
            place.records.mkdir(parents=True, exist_ok=True)
            with replacing(record) as partial:
                partial.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
        return place

    @property
    def folder(self) -> Path:
        """The workplace itself."""
        return self.target.with_name(self.target.name + ".partial")

    @property
    def array(self) -> Path:
        """The array as far as it is made."""
        return self.folder / "array"

    @property
    def records(self) -> Path:
        """What is said of each finished part."""
        return self.folder / "finished"

    def is_finished(self, part: int) -> bool:
        """Tell whether a part is on disk as a whole."""
        return self._record(part).exists()

    def finish(self, part: int, record: Mapping[str, Any]) -> None:
        """Note that a part has been written."""
        with replacing(self._record(part)) as partial, partial.open("w", encoding="utf-8") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())

    def finished(self) -> dict[int, dict[str, Any]]:
        """Return the records of all finished parts, in order."""
        records = {int(path.stem): path for path in self.records.glob("*.json")}
        return {part: json.loads(records[part].read_text("utf-8")) for part in sorted(records)}

    @contextmanager
    def writing(self, first: int, stop: int) -> Iterator[None]:
        """Turn a failure to write some sections into one line, and force them to the disk."""
        try:
            yield
            for path in self._chunks(first, stop):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        except OSError as error:
            advice = "free some space" if error.errno == errno.ENOSPC else "mend that"
            raise DdgmError(
                f"{self.target}: sections {first} to {stop - 1} could not be written "
                f"({error.strerror or error}); {advice} and run again: what is finished is kept"
            ) from error

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

    def close(self) -> None:
        """Give the finished array its name, and remove the workplace."""
        os.replace(self.array, self.target)
        shutil.rmtree(self.folder)

    def _record(self, part: int) -> Path:
        return self.records / f"{part}.json"

    def _chunks(self, first: int, stop: int) -> Iterator[Path]:
        """Return the files of some sections of a Zarr v3 array whose chunks they fill."""
        shape = json.loads((self.array / "zarr.json").read_text(encoding="utf-8"))
        chunk = shape["chunk_grid"]["configuration"]["chunk_shape"][0]
        for index in range(first // chunk, -(-stop // chunk)):
            yield from (
                each for each in (self.array / "c" / str(index)).rglob("*") if each.is_file()
            )
