"""SimpleITK's names for N4, computed by this package.

A script that corrects with SimpleITK needs to change one import: `import n4ax_bids.simpleitk as
sitk`. The class and the function below have the settings, the defaults, the events and the numbers
of SimpleITK's; every other name is SimpleITK's own. What SimpleITK refuses is passed on to it, so
the error is its own. jax is imported at the first solve.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from n4ax_bids.foreign.simpleitk_steps import divided, is_ours, placed, prepared, sampled

if TYPE_CHECKING:
    from n4ax_bids.core.estimator import Estimate, Report
    from n4ax_bids.core.field import LogField

__all__ = ["N4BiasFieldCorrection", "N4BiasFieldCorrectionImageFilter"]

NOT_YET = float(np.finfo(np.float32).max)
"""ITK's convergence measurement at the beginning of a level"""


def __getattr__(name: str) -> Any:
    return getattr(sitk, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(sitk)})


@dataclass
class _Run:
    """The progress of one execution, and its result."""

    n_axes: int
    level: int = 0
    elapsed: int = 0
    value: float | None = 0.0
    """None: not computed yet"""
    field: LogField | None = None
    """on the grid of the image that was corrected"""


class N4BiasFieldCorrectionImageFilter(sitk.N4BiasFieldCorrectionImageFilter):
    """SimpleITK's filter for N4, computed by this package.

    Setters, getters and defaults are inherited from SimpleITK. These points differ: an empty mask,
    an image without contrast and values that are not finite inside the mask are a RuntimeError;
    and without a command, `GetCurrentConvergenceMeasurement` solves again at its first call after
    an execution, because ITK's own measurement is not needed otherwise.
    """

    def __init__(self) -> None:
        super().__init__()
        self._commands: list[tuple[int, Callable[[], Any]]] = []
        self._run: _Run | None = None
        self._again: Callable[[Report], Estimate] | None = None

    def Execute(self, *args: Any) -> sitk.Image:
        """Correct an image.

        Parameters
        ----------
        image : SimpleITK.Image, 2 or 3 axes, float32 or float64
        mask : SimpleITK.Image of uint8 in the same place; optional

        Returns
        -------
        SimpleITK.Image of the image's type and place, without metadata

        Raises
        ------
        RuntimeError
            If an image or a setting does not fit.
        """
        self._run = self._again = None
        if not is_ours(self, *args):
            return super().Execute(*args)
        image, mask = args if len(args) == 2 else (args[0], None)
        self._run = run = _Run(image.GetDimension())
        self._tell(sitk.sitkStartEvent)
        watched = any(kind in (sitk.sitkIterationEvent, sitk.sitkAnyEvent) for kind in self._kinds)

        def report(level: int, iteration: int, value: float) -> None:
            run.level, run.elapsed, run.value = level - 1, iteration, value
            self._tell(sitk.sitkIterationEvent)

        try:
            solve = prepared(self, image, mask)
            estimate = solve(report if watched else None)
        except ValueError as error:
            self._run = None
            raise RuntimeError(f"{self.GetName()}: {error}") from error
        _warn(estimate)
        run.field = estimate.log_field
        counts = estimate.details.n_iterations
        run.level, run.elapsed = len(counts), counts[-1] + 1
        if counts[-1] == 0:
            run.value = NOT_YET
        elif not watched:
            run.value, self._again = None, solve
        self._tell(sitk.sitkEndEvent)
        return divided(image, run.field)

    def GetCurrentLevel(self) -> int:
        """Return the level, from 0; after an execution, the number of levels."""
        return super().GetCurrentLevel() if self._run is None else self._run.level

    def GetElapsedIterations(self) -> int:
        """Return the iteration of the level, from 1; after an execution, the last one plus 1."""
        return super().GetElapsedIterations() if self._run is None else self._run.elapsed

    def GetCurrentConvergenceMeasurement(self) -> float:
        """Return ITK's coefficient of variation of the last change of the field."""
        if self._run is None:
            return super().GetCurrentConvergenceMeasurement()
        if self._run.value is None and self._again is not None:
            values: list[float] = []
            self._again(lambda level, iteration, value: values.append(value))
            self._run.value = values[-1]
        return float(self._run.value or 0.0)

    def GetLogBiasFieldAsImage(self, referenceImage: sitk.Image) -> sitk.Image:
        """Return ln b on the grid of another image.

        As in SimpleITK, the field is stretched over the reference from its first to its last
        voxel, wherever the reference lies.

        Parameters
        ----------
        referenceImage : SimpleITK.Image with as many axes as the image that was corrected

        Returns
        -------
        SimpleITK.Image of float32 in the place of the reference
        """
        run = self._run
        if run is None or run.field is None:
            return super().GetLogBiasFieldAsImage(referenceImage)
        if not isinstance(referenceImage, sitk.Image):
            raise TypeError(f"referenceImage is {type(referenceImage)}; expected SimpleITK.Image")
        if referenceImage.GetDimension() < run.n_axes:
            raise RuntimeError(
                f"{self.GetName()}: referenceImage has {referenceImage.GetDimension()} axes; "
                f"expected {run.n_axes}, as the image that was corrected"
            )
        return placed(sampled(run.field, referenceImage.GetSize()), referenceImage)

    def AddCommand(self, event: int, command: Any) -> int:
        """Call a function or a SimpleITK.Command at each event of a kind.

        Start, iteration and end are events of an execution. Inside a command the level, the
        iteration and the convergence measurement are those of the event. An error in a command
        ends the execution with a RuntimeError.
        """
        added: int = super().AddCommand(event, command)
        self._commands.append((event, _caller(command)))
        return added

    def RemoveAllCommands(self) -> None:
        """Remove the commands of all events."""
        super().RemoveAllCommands()
        self._commands.clear()

    @property
    def _kinds(self) -> set[int]:
        return {kind for kind, _ in self._commands}

    def _tell(self, event: int) -> None:
        for kind, call in tuple(self._commands):
            if kind in (event, sitk.sitkAnyEvent):
                try:
                    call()
                except Exception as error:
                    raise RuntimeError(
                        f"{self.GetName()}: a command failed: {type(error).__name__}: {error}"
                    ) from error


def _caller(command: Any) -> Callable[[], Any]:
    """Return a function that calls a command; a Command ends when nobody else keeps it."""
    if not isinstance(command, sitk.Command):
        return command
    kept = weakref.ref(command)

    def call() -> None:
        found = kept()
        if found is not None:
            found.Execute()

    return call


def N4BiasFieldCorrection(image: Any, *args: Any, **keywords: Any) -> sitk.Image:
    """Correct an image, as SimpleITK's function of this name.

    Parameters
    ----------
    image : SimpleITK.Image, 2 or 3 axes, float32 or float64
    args : the mask (optional), convergenceThreshold, maximumNumberOfIterations,
        biasFieldFullWidthAtHalfMaximum, wienerFilterNoise, numberOfHistogramBins,
        numberOfControlPoints, splineOrder, useMaskLabel, maskLabel, in this order
    keywords : the same by name; the mask is `maskImage`

    Returns
    -------
    SimpleITK.Image, as from the class above
    """
    masks = args[:1] if args and isinstance(args[0], sitk.Image) else ()
    if "maskImage" in keywords:
        masks = (*masks, keywords.pop("maskImage"))
    values = args[1:] if args and isinstance(args[0], sitk.Image) else args
    given = dict(zip(_SETTINGS, values, strict=False))
    unknown = [name for name in keywords if name not in _SETTINGS or name in given]
    if len(masks) > 1 or len(values) > len(_SETTINGS) or unknown:
        what = f"unexpected {', '.join(unknown)}" if unknown else "too many arguments"
        raise TypeError(f"N4BiasFieldCorrection: {what}; expected {', '.join(_SETTINGS)}")
    n4 = N4BiasFieldCorrectionImageFilter()
    for name, value in (given | keywords).items():
        getattr(n4, f"Set{name[0].upper()}{name[1:]}")(value)
    return n4.Execute(image, *(mask for mask in masks if mask is not None))


_SETTINGS = (
    "convergenceThreshold",
    "maximumNumberOfIterations",
    "biasFieldFullWidthAtHalfMaximum",
    "wienerFilterNoise",
    "numberOfHistogramBins",
    "numberOfControlPoints",
    "splineOrder",
    "useMaskLabel",
    "maskLabel",
)


def _warn(estimate: Estimate) -> None:
    from n4ax_bids.core.call import N4Warning

    for note in estimate.notes:
        warnings.warn(note, N4Warning, stacklevel=3)
