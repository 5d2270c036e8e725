"""The projector: tilt views of images, and its adjoint."""

from __future__ import annotations

import functools
import warnings
from abc import abstractmethod

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from ddgm.errors import DdgmError
from ddgm.geometry import TiltGeometry
from ddgm.iterative import IterativeOperator
from ddgm.operator import check_shape
from ddgm.preconditioner import SlabPreconditioner


def system_matrix(geometry: TiltGeometry) -> scipy.sparse.csr_matrix:
    """Return the projection matrix of a geometry, from ASTRA's area-weighted `strip` projector.

    Parameters
    ----------
    geometry : TiltGeometry
        Image, tilts and detector.

    Returns
    -------
    scipy.sparse.csr_matrix
        float32, (views · detector) × (height · width), images and sinograms flattened row by row.
        An entry is the area of a pixel inside a detector bin's strip, in pixels.
    """
    import astra  # here, because it is slow to load and no method needs it at run time

    volume = astra.create_vol_geom(geometry.height, geometry.width)
    beams = astra.create_proj_geom(
        "parallel", 1.0, geometry.detector, np.deg2rad(np.asarray(geometry.angles))
    )
    projector = astra.create_projector("strip", beams, volume)
    matrix = astra.projector.matrix(projector)
    try:
        return scipy.sparse.csr_matrix(astra.matrix.get(matrix), dtype=np.float32)
    finally:
        astra.matrix.delete(matrix)
        astra.projector.delete(projector)


class TiltOperator(IterativeOperator):
    """An operator that takes images to their tilt views; subclasses supply the arithmetic.

    Attributes
    ----------
    geometry : TiltGeometry
        Image, tilts and detector.
    """

    geometry: TiltGeometry

    @property
    def image_shape(self) -> tuple[int, int]:
        """Rows and columns of an image."""
        return self.geometry.image_shape

    @property
    def data_shape(self) -> tuple[int, int]:
        """Views and detector bins of a sinogram."""
        return self.geometry.sinogram_shape

    def forward(self, image: Tensor) -> Tensor:
        """Project images.

        Parameters
        ----------
        image : Tensor
            (..., height, width), float32.

        Returns
        -------
        Tensor
            (..., views, detector), float32.
        """
        check_shape(image, self.image_shape, "image")
        return self.project(image)

    def adjoint(self, data: Tensor) -> Tensor:
        """Back-project sinograms (the adjoint, unfiltered).

        Parameters
        ----------
        data : Tensor
            (..., views, detector), float32.

        Returns
        -------
        Tensor
            (..., height, width), float32.
        """
        check_shape(data, self.data_shape, "sinogram")
        return self.back_project(data)

    @abstractmethod
    def project(self, image: Tensor) -> Tensor:
        """Apply A to images of the right shape."""

    @abstractmethod
    def back_project(self, data: Tensor) -> Tensor:
        """Apply Aᵀ to sinograms of the right shape."""


class Projector(TiltOperator):
    """Tilt views of batches of images, as a sparse matrix product on CPU or GPU.

    Parameters
    ----------
    geometry : TiltGeometry
        Image, tilts and detector.
    device : torch.device or str
        Where the matrix lives and images are expected.
    preconditioned : bool
        Whether proximal steps use the preconditioner of slabs.

    Notes
    -----
    ASTRA builds the matrix once; its projector, called in a loop, takes 17 times as long as the
    batched sparse product.
    """

    def __init__(
        self,
        geometry: TiltGeometry,
        device: torch.device | str = "cpu",
        *,
        preconditioned: bool = False,
    ) -> None:
        self.geometry = geometry
        self._preconditioned = preconditioned
        self._device = torch.device(device)
        matrix = system_matrix(geometry)
        if matrix.nnz >= 2**31:
            raise DdgmError(
                f"projector: the matrix of {geometry.height} × {geometry.width} pixels and "
                f"{geometry.views} views has {matrix.nnz:.3g} entries, more than 2³¹; reconstruct "
                "the slab on CPUs, which need none, or in parts"
            )
        self._forward = _sparse_tensor(matrix, self._device)
        self._adjoint = _sparse_tensor(matrix.T.tocsr(), self._device)

    @property
    def device(self) -> torch.device:
        """Where the matrix lives."""
        return self._device

    @functools.cached_property
    def preconditioner(self) -> SlabPreconditioner | None:
        """Approximate inverse of AᵀA + weight, if wanted and there is one for the geometry."""
        if not self._preconditioned:
            return None
        return SlabPreconditioner.from_geometry(self.geometry, self._device)

    def project(self, image: Tensor) -> Tensor:
        """Apply A to images of the right shape."""
        return _apply(self._forward, image, self.data_shape)

    def back_project(self, data: Tensor) -> Tensor:
        """Apply Aᵀ to sinograms of the right shape."""
        return _apply(self._adjoint, data, self.image_shape)


def _sparse_tensor(matrix: scipy.sparse.csr_matrix, device: torch.device) -> Tensor:
    # Of all that is done with it, the product is settled; the beta notice is about the rest.
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    # 32-bit indices halve the memory traffic that bounds a sparse product.
    return torch.sparse_csr_tensor(
        torch.from_numpy(matrix.indptr.astype(np.int32)),
        torch.from_numpy(matrix.indices.astype(np.int32)),
        torch.from_numpy(matrix.data),
        size=matrix.shape,
        device=device,
        check_invariants=False,
    )


def _apply(matrix: Tensor, values: Tensor, target: tuple[int, int]) -> Tensor:
    columns = values.flatten(-2).reshape(-1, matrix.shape[1]).T.contiguous()
    return (matrix @ columns).T.reshape(*values.shape[:-2], *target)
