"""Figures, as matplotlib objects; saving them is the caller's business."""

from ddgm.figures.blind import blind_scores
from ddgm.figures.images import comparison, image_grid
from ddgm.figures.prior import prior_samples
from ddgm.figures.sections import slab
from ddgm.figures.spectrum import singular_values
from ddgm.figures.style import grey_limits, round_length, save_figure
from ddgm.figures.sweeps import sweep
from ddgm.figures.training import training_curve
from ddgm.figures.uncertainty import calibration, several_runs, uncertainty_maps

__all__ = [
    "blind_scores",
    "calibration",
    "comparison",
    "grey_limits",
    "image_grid",
    "prior_samples",
    "round_length",
    "save_figure",
    "several_runs",
    "singular_values",
    "slab",
    "sweep",
    "training_curve",
    "uncertainty_maps",
]
