"""How far the spread of several runs foretells the error of their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr

from ddgm.errors import DdgmError

BINS = 12
MULTIPLES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)


@dataclass(frozen=True)
class Scored:
    """Runs on a set of images of which the truth is known.

    Attributes
    ----------
    error : ndarray
        (count, rows, columns) float64: truth less the mean of the runs.
    std : ndarray
        (count, rows, columns) float64: standard deviation of the runs, S − 1 in the denominator.
    samples : int
        S ≥ 2.

    Notes
    -----
    The mean of S runs misses what they have in common by as much as they scatter, over √S. If the
    truth is one more draw from what the runs are drawn from, as the truth is from the posterior,
    the variance of its difference from their mean is therefore (1 + 1/S) std². That is the
    *predicted deviation*, squared, wherever this module speaks of one.
    """

    error: NDArray[np.float64]
    std: NDArray[np.float64]
    samples: int

    def __post_init__(self) -> None:
        if self.error.shape != self.std.shape or self.error.ndim != 3:
            raise DdgmError(
                f"calibration: errors are {self.error.shape}, deviations {self.std.shape}; "
                "expected (count, rows, columns) twice"
            )
        if len(self.error) < 2:
            raise DdgmError("calibration: standard errors over images need at least 2 images")

    @classmethod
    def of(
        cls,
        mean: NDArray[np.floating],
        std: NDArray[np.floating],
        truth: NDArray[np.floating],
        samples: int,
    ) -> Scored:
        """Compare what `ddgm.posterior.draw_posterior` returned with the truth."""
        return cls(truth.astype(float) - mean, std.astype(float), samples)

    @property
    def predicted(self) -> NDArray[np.float64]:
        """√(1 + 1/S) std, (count, rows, columns)."""
        deviation: NDArray[np.float64] = np.sqrt(1 + 1 / self.samples) * self.std
        return deviation


def dispersion(scored: Scored) -> tuple[float, float]:
    """Return the root-mean-square error over the root-mean-square predicted deviation.

    Returns
    -------
    ratio : float
        1 if the runs scatter as much as they err; above 1 they scatter too little
        (under-dispersed: too sure of themselves), below 1 too much. It is also the factor by which
        to multiply deviations so that they fit, in the mean over these images.
    standard_error : float
        Of the ratio, over images.
    """
    squares = np.square(scored.error).mean(axis=(1, 2))
    variances = np.square(scored.predicted).mean(axis=(1, 2))
    ratio = np.sqrt(squares.mean() / variances.mean())
    # Of a ratio of means by the delta method; half of it for the square root.
    left = squares / variances.mean() - ratio**2 * variances / variances.mean()
    return float(ratio), float(left.std(ddof=1) / np.sqrt(len(left)) / (2 * ratio))


def calibration_curve(scored: Scored, factor: float = 1.0, bins: int = BINS) -> pd.DataFrame:
    """Sort pixels by predicted deviation into bins of equal number, and say how large errors are.

    Parameters
    ----------
    scored : Scored
        Runs with their errors.
    factor : float
        To multiply the predicted deviation by.
    bins : int
        Number of bins.

    Returns
    -------
    DataFrame
        One row a bin: bin, predicted (root mean square of the predicted deviation), rms_error
        and rms_error_se (standard error over images, by the delta method), mean_abs_error, pixels
        and images (those with a pixel in the bin).
    """
    predicted = factor * scored.predicted
    edges = np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1])
    places = np.searchsorted(edges, predicted, side="right")
    count = len(predicted)
    # Sums over each image and bin: pixels of an image are not independent, images are.
    keys = (places + bins * np.arange(count)[:, None, None]).ravel()

    def sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.bincount(keys, values.ravel(), minlength=count * bins)
        return found.reshape(count, bins).astype(float)

    pixels = sums(np.ones_like(predicted))
    squares, variances, sizes = (
        sums(values)
        for values in (np.square(scored.error), np.square(predicted), np.abs(scored.error))
    )
    rows = []
    for at in np.flatnonzero(pixels.sum(0)):
        total = pixels[:, at].sum()
        mse = squares[:, at].sum() / total
        left = squares[:, at] - mse * pixels[:, at]
        error = np.sqrt(count / (count - 1) * np.square(left).sum()) / total
        rms = np.sqrt(mse)
        rows.append(
            {
                "bin": int(at),
                "predicted": np.sqrt(variances[:, at].sum() / total),
                "rms_error": rms,
                "rms_error_se": error / (2 * rms) if rms > 0 else 0.0,
                "mean_abs_error": sizes[:, at].sum() / total,
                "pixels": int(total),
                "images": int((pixels[:, at] > 0).sum()),
            }
        )
    return pd.DataFrame(rows)


def coverage(
    scored: Scored, factor: float = 1.0, multiples: Sequence[float] = MULTIPLES
) -> pd.DataFrame:
    """Return the share of pixels whose truth lies within so many deviations of the mean.

    Parameters
    ----------
    scored : Scored
        Runs with their errors.
    factor : float
        To multiply the predicted deviation by.
    multiples : sequence of float
        How many deviations.

    Returns
    -------
    DataFrame
        One row a multiple: deviations, share with share_se (mean and standard error over images);
        gaussian, the share of a normal distribution; and expected, that of truth and runs drawn
        from one normal distribution of which S runs tell the deviation (Student's t with S − 1
        degrees of freedom).
    """
    ratio = np.abs(scored.error) / np.maximum(factor * scored.predicted, 1e-30)
    rows = []
    for multiple in multiples:
        shares = (ratio <= multiple).mean(axis=(1, 2))
        rows.append(
            {
                "deviations": float(multiple),
                "share": shares.mean(),
                "share_se": shares.std(ddof=1) / np.sqrt(len(shares)),
                "gaussian": 1 - 2 * ndtr(-multiple),
                "expected": 1 - 2 * stdtr(scored.samples - 1, -multiple),
            }
        )
    return pd.DataFrame(rows)


def rank_correlation(scored: Scored) -> NDArray[np.float64]:
    """Return Spearman's correlation of predicted deviation and absolute error, (count,)."""
    tables = [
        pd.DataFrame({"std": std.ravel(), "error": np.abs(error).ravel()})
        for std, error in zip(scored.std, scored.error, strict=True)
    ]
    return np.array([table.corr("spearman").loc["std", "error"] for table in tables])


def mean_of_samples(scored: Scored) -> pd.DataFrame:
    """Return the mean squared error of the mean of fewer runs, and of ever more.

    Means of k of the S runs, over all choices of k, have the mean squared error

        MSE(k) = MSE(S) + (1/k − 1/S) mean std²,

    exactly, by the variance of a mean of draws without replacement. For k > S it is what is to be
    expected of further runs, down to the squared bias for k → ∞.

    Returns
    -------
    DataFrame
        One row an image and number: image, samples (powers of two below S, S, and ∞) and mse.
    """
    counts = [2**power for power in range(scored.samples.bit_length())]
    counts = [*(count for count in counts if count < scored.samples), scored.samples, np.inf]
    squares = np.square(scored.error).mean(axis=(1, 2))
    variances = np.square(scored.std).mean(axis=(1, 2))
    return pd.DataFrame(
        [
            {"image": image, "samples": count, "mse": mse + (1 / count - 1 / scored.samples) * var}
            for image, (mse, var) in enumerate(zip(squares, variances, strict=True))
            for count in counts
        ]
    )


@dataclass(frozen=True)
class Calibration:
    """What is known of a method's spread on test images.

    Attributes
    ----------
    curve : DataFrame
        What `calibration_curve` returns, for the deviations as they are and, where the column
        recalibrated says so, times `factor`.
    shares : DataFrame
        What `coverage` returns, likewise.
    means : DataFrame
        What `mean_of_samples` returns.
    summary : dict
        images, samples; dispersion and factor, that of the validation images, with their standard
        errors; correlation, of Spearman, the mean over images, with its standard error; rms_error
        and rms_predicted.
    """

    curve: pd.DataFrame
    shares: pd.DataFrame
    means: pd.DataFrame
    summary: dict[str, float]


def calibrate(test: Scored, validation: Scored) -> Calibration:
    """Judge deviations on test images, as they are and times a factor from validation images.

    The factor is the `dispersion` of the validation images: with it, errors and deviations of these
    have the same mean square. Whether it holds for others, the test images say.
    """
    factor, factor_se = dispersion(validation)
    ratio, ratio_se = dispersion(test)
    correlation = rank_correlation(test)
    settings = ((False, 1.0), (True, factor))
    return Calibration(
        curve=pd.concat(
            [
                calibration_curve(test, times).assign(recalibrated=changed)
                for changed, times in settings
            ],
            ignore_index=True,
        ),
        shares=pd.concat(
            [coverage(test, times).assign(recalibrated=changed) for changed, times in settings],
            ignore_index=True,
        ),
        means=mean_of_samples(test),
        summary={
            "images": len(test.error),
            "samples": test.samples,
            "rms_error": float(np.sqrt(np.square(test.error).mean())),
            "rms_predicted": float(np.sqrt(np.square(test.predicted).mean())),
            "dispersion": ratio,
            "dispersion_se": ratio_se,
            "validation_images": len(validation.error),
            "factor": factor,
            "factor_se": factor_se,
            "correlation": float(correlation.mean()),
            "correlation_se": float(correlation.std(ddof=1) / np.sqrt(len(correlation))),
        },
    )
