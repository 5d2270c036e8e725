"""The eigenbasis of AᵀA, in which every step towards the data is two matrix products."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ddgm.errors import DdgmError
from ddgm.operator import check_shape

FORMAT = "ddgm-eigenbasis/1"


@dataclass(frozen=True, eq=False)
class Eigenbasis:
    """AᵀA = V diag(w) Vᵀ, in one block or in four of given flip symmetry.

    With symmetric tilts AᵀA commutes with the left-right and the up-down flip of the image, so that
    every eigenvector is even or odd under each. A block holds those of one kind, as images folded
    on to a quarter: in all a sixteenth of the work that the whole matrix takes, and a quarter of
    its memory.

    Attributes
    ----------
    image_shape : (int, int)
        Rows and columns of an image.
    vectors : tuple of Tensor
        V, float32: (pixels, pixels), or (n, n) for the kinds even-even, even-odd, odd-even and
        odd-odd (up-down, then left-right), with eigenvectors in columns.
    eigenvalues : Tensor
        (pixels,) float64, w ≥ 0 in the order of the blocks: squares of A's singular values.

    Notes
    -----
    Products are in float32. TensorFloat-32, which PyTorch leaves off unless asked, is too coarse:
    K fused steps would differ from a loop by more than 1e-4.
    """

    image_shape: tuple[int, int]
    vectors: tuple[Tensor, ...]
    eigenvalues: Tensor

    @property
    def singular_values(self) -> Tensor:
        """(pixels,) float64, s = √w in the order of the coefficients."""
        return self.eigenvalues.sqrt()

    @property
    def device(self) -> torch.device:
        """Where the eigenvectors live."""
        return self.vectors[0].device

    def analyse(self, image: Tensor) -> Tensor:
        """Return the coefficients Vᵀx, (batch, pixels), of images (batch, rows, columns)."""
        check_shape(image, self.image_shape, "image")
        parts = [image.flatten(1)] if len(self.vectors) == 1 else _fold_both(image)
        return torch.cat(
            [(v @ part.T.contiguous()).T for part, v in zip(parts, self._transposed, strict=True)],
            dim=1,
        )

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """Return the images V c, (batch, rows, columns), of coefficients (batch, pixels)."""
        sizes = [len(v) for v in self.vectors]
        parts = [
            (v @ part.T.contiguous()).T
            for part, v in zip(torch.split(coefficients, sizes, dim=1), self.vectors, strict=True)
        ]
        if len(parts) == 1:
            return parts[0].reshape(-1, *self.image_shape)
        return _unfold_both(parts, self.image_shape)

    @functools.cached_property
    def _transposed(self) -> tuple[Tensor, ...]:
        # On a CPU a few columns times a matrix stored row by row take half the time of any other
        # order of factors, worth a second copy.
        return tuple(v.T.contiguous() if v.device.type == "cpu" else v.T for v in self.vectors)

    def to(self, device: torch.device | str) -> Eigenbasis:
        """Return the basis on another device; eigenvalues stay in float64."""
        return Eigenbasis(
            self.image_shape,
            tuple(v.to(device) for v in self.vectors),
            self.eigenvalues.to(device),
        )

    def save(self, path: Path | str) -> None:
        """Write the basis as one safetensors file, atomically.

        Raises
        ------
        DdgmError
            If it cannot be written, for example on a full disk.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        tensors = {f"vectors_{i}": v.cpu().contiguous() for i, v in enumerate(self.vectors)}
        tensors["eigenvalues"] = self.eigenvalues.cpu()
        metadata = {"format": FORMAT, "image_shape": json.dumps(self.image_shape)}
        try:
            partial.write_bytes(safetensors.torch.save(tensors, metadata=metadata))
            os.replace(partial, path)
        except OSError as error:
            raise DdgmError(f"eigenbasis {path}: cannot be written ({error.strerror})") from error
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path | str, device: torch.device | str = "cpu") -> Eigenbasis:
        """Read what `save` wrote.

        Raises
        ------
        DdgmError
            If the file is absent or is no eigenbasis.
        """
        if not Path(path).is_file():
            raise DdgmError(f"eigenbasis {path}: no such file")
        try:
            with safetensors.safe_open(path, framework="pt", device=str(device)) as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise DdgmError(
                        f"eigenbasis {path}: format is {metadata.get('format')!r}; expected "
                        f"{FORMAT!r}"
                    )
                rows, columns = json.loads(metadata["image_shape"])
                # An open file has keys, but cannot itself be iterated over.
                blocks = sum(name.startswith("vectors_") for name in file.keys())  # noqa: SIM118
                vectors = tuple(file.get_tensor(f"vectors_{i}") for i in range(blocks))
                eigenvalues = file.get_tensor("eigenvalues")
                if not rows * columns == len(eigenvalues) == sum(len(v) for v in vectors):
                    raise ValueError("its blocks do not make up the image")
                return cls((rows, columns), vectors, eigenvalues)
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise DdgmError(f"eigenbasis {path}: the file is damaged ({error})") from error


def decompose(
    matrix: scipy.sparse.csr_matrix,
    image_shape: tuple[int, int],
    *,
    symmetric: bool,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Eigenbasis:
    """Compute the eigenbasis of AᵀA.

    Parameters
    ----------
    matrix : csr_matrix
        A, (data, pixels).
    image_shape : (int, int)
        Rows and columns of an image.
    symmetric : bool
        Whether AᵀA commutes with both flips. What ASTRA's rounding breaks of that symmetry, 8e-5,
        is averaged away.
    device : torch.device or str
        Where to compute; a GPU is many times faster.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Eigenbasis
        On the CPU.

    Notes
    -----
    In float64: float32 cannot tell eigenvalues below 1e-7 of the largest from zero, and those of
    interest to DDRM go down to 7e-8.
    """
    bases = list(parities(image_shape)) if symmetric else [None]
    vectors, eigenvalues = [], []
    for basis in tqdm(bases, desc="eigenbasis", unit="block", disable=not progress):
        # One kind of images at a time, since A itself is too large to be held densely.
        dense = (matrix if basis is None else matrix @ basis).toarray()
        dense = dense.astype(np.float64, copy=False)
        gram = _gram(torch.from_numpy(dense).to(device))
        del dense
        w, v = torch.linalg.eigh(gram)
        vectors.append(v.float().cpu().contiguous())
        eigenvalues.append(w.clamp_min(0.0).cpu())
    return Eigenbasis(image_shape, tuple(vectors), torch.cat(eigenvalues))


def parities(shape: tuple[int, int]) -> Iterator[scipy.sparse.csr_matrix]:
    """Yield the matrices that unfold a quarter image to a whole one, one a kind of symmetry.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the image.

    Yields
    ------
    csr_matrix
        (rows · columns, pixels of the quarter) float64 with orthonormal columns; even or odd under
        the up-down and the left-right flip, in the order of the eigenbasis's blocks.
    """
    for vertical, horizontal in product((False, True), repeat=2):
        yield scipy.sparse.kron(
            _unfolding(shape[0], odd=vertical), _unfolding(shape[1], odd=horizontal), format="csr"
        )


def _unfolding(length: int, *, odd: bool) -> NDArray[np.float64]:
    """Return the orthonormal basis of even or odd vectors, (length, half)."""
    sums, differences = _fold(torch.eye(length, dtype=torch.float64), 1)
    return (differences if odd else sums).numpy()


def _fold(image: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Split images into their even and odd part under a flip, each on a half (orthonormally)."""
    length = image.shape[axis]
    half = length // 2
    first = image.narrow(axis, 0, half)
    last = image.narrow(axis, length - half, half).flip(axis)
    middle = image.narrow(axis, half, length - 2 * half)
    root = math.sqrt(0.5)
    return torch.cat([(first + last) * root, middle], axis), (first - last) * root


def _unfold(even: Tensor, odd: Tensor, axis: int) -> Tensor:
    """Undo `_fold`."""
    half = odd.shape[axis]
    root = math.sqrt(0.5)
    sums = even.narrow(axis, 0, half)
    middle = even.narrow(axis, half, even.shape[axis] - half)
    first, last = (sums + odd) * root, (sums - odd) * root
    return torch.cat([first, middle, last.flip(axis)], axis)


def _fold_both(image: Tensor) -> list[Tensor]:
    parts = [part for half in _fold(image, 1) for part in _fold(half, 2)]
    return [part.flatten(1) for part in parts]


def _unfold_both(parts: list[Tensor], shape: tuple[int, int]) -> Tensor:
    (rows, columns), halves = shape, []
    for at, height in enumerate((math.ceil(rows / 2), rows // 2)):
        even = parts[2 * at].reshape(-1, height, math.ceil(columns / 2))
        odd = parts[2 * at + 1].reshape(-1, height, columns // 2)
        halves.append(_unfold(even, odd, 2))
    return _unfold(halves[0], halves[1], 1)


def _gram(dense: Tensor, rows: int = 4096) -> Tensor:
    """Return CᵀC, by parts of C so that a GPU or a small machine need not hold it twice."""
    total = dense.new_zeros(dense.shape[1], dense.shape[1])
    for part in torch.split(dense, rows):
        total.addmm_(part.T, part)
    return total
