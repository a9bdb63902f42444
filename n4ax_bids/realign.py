"""Realign one file with a series: load, estimate the motion, resample once, save."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np

from n4ax_bids.arguments import is_among, kind, shown
from n4ax_bids.callable_module import CallableModule
from n4ax_bids.core.motion import rigid, samples, smoothing
from n4ax_bids.core.motion.register import Motion, register
from n4ax_bids.core.motion.reslice import finite
from n4ax_bids.core.motion.series import Realignment, estimate, first_reference, flaws
from n4ax_bids.io import series
from n4ax_bids.io.series import Series
from n4ax_bids.options.realign import RealignOptions, require_options
from n4ax_bids.runtime import compilation
from n4ax_bids.runtime import device as devices
from n4ax_bids.runtime.timing import timed
from n4ax_bids.series import outputs, steps
from n4ax_bids.series.outputs import Realigned

_log = logging.getLogger(__name__)


class Realign:
    """The realignment of one file, step by step.

    Parameters
    ----------
    input_image : NIfTI file with a series
    reference_image : NIfTI file on the same grid, in place of a volume of the series
    weight_image : NIfTI file on the same grid, in proportion to 1/sd of each voxel's noise
    options : RealignOptions
    device : "auto", "cpu", "gpu" or "gpu:N"
    volumes : numbers of the volumes that are taken, in rising order, such as those of a DWI series
        with b = 0; default: all. The outputs have these volumes alone

    Raises
    ------
    OSError, TypeError, ValueError
        If an input does not fit; one line that names the file.

    Examples
    --------
    >>> from n4ax_bids import Realign
    >>> run = Realign("bold.nii.gz")  # doctest: +SKIP
    >>> run.estimate_all().motion.q  # doctest: +SKIP
    >>> run.write(output_image="realigned.nii.gz")  # doctest: +SKIP
    """

    def __init__(
        self,
        input_image: str | Path,
        *,
        reference_image: str | Path | None = None,
        weight_image: str | Path | None = None,
        options: RealignOptions | None = None,
        device: str = "auto",
        volumes: Sequence[int] | None = None,
    ) -> None:
        self.options = require_options(options)
        self.inputs = {"input": input_image, "reference": reference_image, "weight": weight_image}
        for name, path in self.inputs.items():
            if not (isinstance(path, str | Path) or (path is None and name != "input")):
                raise TypeError(f"{name}_image is {kind(path)}; expected the path of an image")
        self._where = devices.resolve(device)
        self.seconds: dict[str, float] = {}
        self.path = Path(input_image)
        self._volumes = volumes
        self._loaded: Series | None = None
        with timed(self.seconds, "decode"):
            self.series  # noqa: B018
            self._reference = steps.on_grid(reference_image, self.series)
            self._weight = steps.on_grid(weight_image, self.series)
        with self._naming():
            self.grid = smoothing.grid_of(self.series.volume.affine, self.shape)
        self._found: Realignment | None = None

    @property
    def series(self) -> Series:
        """The series as in its file; read again after `write`, which works in its memory."""
        if self._loaded is None:
            found = series.load(self.path)
            self._loaded = found if self._volumes is None else found.only(self._volumes)
        return self._loaded

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels of each axis of a volume."""
        return tuple(self.series.volume.data.shape[:3])

    def estimate(self, index: int) -> Motion:
        """Return the motion of one volume, against the reference of the first pass.

        Raises
        ------
        ValueError
            If there is no such volume, or it cannot be registered.
        """
        n_volumes = self.series.n_volumes
        if isinstance(index, bool) or not 0 <= index < n_volumes:
            raise ValueError(f"{self.path}: volume {index}; expected 0 to {n_volumes - 1}")
        if index in self._flagged:
            raise ValueError(f"{self.path}: volume {index}: {self._flagged[index]}")
        with self._naming(), self._computing("estimate"):
            volume = finite(self.series.at(index))
            found = register(lambda _: volume, [index], self._first_model, self.grid, self.options)
        return found

    @functools.cached_property
    def _flagged(self) -> dict[int, str]:
        return {**flaws(self.series.at, self.series.n_volumes), **self.series.missing}

    @functools.cached_property
    def _first_model(self) -> samples.Model:
        """The samples of the reference of the first pass."""
        at, n_volumes, options = self.series.at, self.series.n_volumes, self.options
        reference = self._reference
        if reference is None:
            reference = first_reference(at, n_volumes, options, self._flagged)
        return samples.model_of(reference, self.grid, options, self._weight)

    def estimate_all(self) -> Realignment:
        """Return the motion of every volume; a second call returns the same."""
        if self._found is None:
            with self._naming(), self._computing("estimate"):
                self._found = estimate(
                    self.series.at,
                    self.series.n_volumes,
                    self.grid,
                    self.options,
                    reference=self._reference,
                    weight=self._weight,
                    known_flaws=self.series.missing,
                )
            for number, why in self._found.flagged.items():
                _log.warning("%s: volume %d is not realigned: %s", self.path, number, why)
        return self._found

    def write(
        self,
        *,
        output_dtype: Literal["float32", "source"] = "float32",
        **files: str | Path | None,
    ) -> Realigned:
        """Resample the series once, and write what is wanted.

        A volume that was flagged is written as it is.

        Parameters
        ----------
        output_dtype : type of the voxels of the realigned series, or "source" for the input's
        files : paths by the names of the fields of `n4ax_bids.series.outputs.Files`

        Returns
        -------
        Realigned, the record of what was done
        """
        if not is_among(output_dtype, ("float32", "source")):
            raise ValueError(f"output_dtype is {shown(output_dtype)}; expected float32 or source")
        wanted = outputs.checked(files, self.inputs)
        steps.require_field(wanted.bias_image, self.options)
        drawing = outputs.drawing() if wanted.figures else None
        found, field = self.estimate_all(), self._field
        motion, whole = found.motion, self.series.volume
        before = drawing.look_at(whole.data) if drawing else None
        record = {
            "Sources": [str(path) for path in self.inputs.values() if path is not None],
            "SourceSHA256": whole.sha256,
            "Device": devices.describe(self._where),
            **outputs.motion_record(motion, found.flagged, self.options, wanted),
            **({"BiasField": field.record} if field else {}),
        }
        mappings = rigid.mapping(motion.q, whole.affine, self.shape)
        centre = rigid.grid_centre(whole.affine, self.shape)
        further = {"scale": motion.scale, "residual": motion.residual_after}
        table = outputs.motion_columns(motion.q, mappings, centre, further)
        made: dict[str, np.ndarray] = {"reference_image": found.reference}
        made |= {"bias_image": field.values} if field else {}
        if any(getattr(wanted, name) for name in outputs.RESAMPLED):
            made |= self._resampled(found)
        with timed(self.seconds, "encode"):
            outputs.write_images(wanted, made, whole, output_dtype)
            outputs.write_texts(wanted, mappings, table, whole, found.reference, record)
            if drawing is not None and wanted.figures is not None:
                after = drawing.look_at(made["output_image"])
                figures = drawing.drawn(table, before, after, tuple(self.grid.zooms))
                outputs.write_figures(wanted.figures, figures)
        return Realigned(
            files=wanted,
            n_volumes=len(motion.q),
            motion=motion,
            mappings=mappings,
            flagged=dict(found.flagged),
            table=table,
            options=self.options,
            device=devices.describe(self._where),
            notes=whole.notes + (field.notes if field else ()),
            sha256=whole.sha256,
            bias=field.record if field else None,
            seconds=dict(self.seconds),
        )

    def _resampled(self, found: Realignment) -> dict[str, np.ndarray]:
        """Return the realigned series and its moments.

        The result takes the memory of the series, which is read again where it is needed again.
        """
        data, field = self.series.volume.data, self._field.values if self._field else None
        self._loaded = None
        with self._naming(), self._computing("resample"):
            return steps.resampled(data, found, self.grid, self.options, field)

    @functools.cached_property
    def _field(self) -> steps.Field | None:
        """The bias field of the series, if the options want one."""
        if self.options.bias == "none":
            return None
        found = self.estimate_all()
        with self._naming(), self._computing("bias field"):
            return steps.field_of(self.series, self.grid, found, self.options)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Prefix errors of the array functions, which know no file, with the series' name."""
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    @contextmanager
    def _computing(self, stage: str) -> Iterator[None]:
        with devices.use(self._where), compilation.kept(), timed(self.seconds, stage):
            yield


def realign(
    input_image: str | Path,
    output_image: str | Path | None = None,
    *,
    reference_image: str | Path | None = None,
    weight_image: str | Path | None = None,
    options: RealignOptions | None = None,
    device: str = "auto",
    volumes: Sequence[int] | None = None,
    output_dtype: Literal["float32", "source"] = "float32",
    reference_output: str | Path | None = None,
    **files: str | Path | None,
) -> Realigned:
    """Realign one file with a series, and write what is wanted.

    Parameters
    ----------
    input_image, reference_image, weight_image, options, device, volumes : as `Realign`
    output_image : the realigned series, .nii or .nii.gz
    output_dtype : as `Realign.write`
    reference_output : the image to which the volumes were realigned
    files : further outputs, by the names of `n4ax_bids.series.outputs.Files`

    Returns
    -------
    Realigned, the record of what was done

    Raises
    ------
    OSError, TypeError, ValueError
        If an input, an option or an output does not fit; one line that names the file.
    """
    wanted = {**files, "output_image": output_image, "reference_image": reference_output}
    inputs = {"input": input_image, "reference": reference_image, "weight": weight_image}
    outputs.checked(wanted, inputs)
    run = Realign(
        input_image,
        reference_image=reference_image,
        weight_image=weight_image,
        options=options,
        device=device,
        volumes=volumes,
    )
    return run.write(output_dtype=output_dtype, **wanted)


__signature__ = inspect.signature(realign)
sys.modules[__name__].__class__ = CallableModule
