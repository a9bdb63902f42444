"""The files of a realignment: motion in several formats, images, a table and a JSON file."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from n4ax_bids.core.motion import rigid
from n4ax_bids.core.motion.register import Motion
from n4ax_bids.io import motion_files, volume
from n4ax_bids.io.atomic import replacing, require_writable, same_place
from n4ax_bids.io.volume import Volume
from n4ax_bids.options.realign import RealignOptions

COLUMNS = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
"""of the motion table, named as fMRIPrep's confounds: mm and radians"""


@dataclass(frozen=True)
class Files:
    """Where the results of a realignment are written; None for what is not wanted."""

    output_image: Path | None = None
    """the realigned series"""
    mean_image: Path | None = None
    """the mean of the realigned volumes"""
    variance_image: Path | None = None
    """the variance over the realigned volumes"""
    sd_image: Path | None = None
    """its square root"""
    bias_image: Path | None = None
    """the bias field by which the volumes were divided, with the option `bias`"""
    reference_image: Path | None = None
    """the image to which the volumes were realigned in the last pass"""
    motion_table: Path | None = None
    """.tsv, a row for each volume"""
    itk_transforms: Path | None = None
    """.txt, a list of ITK's transforms"""
    fsl_matrices: Path | None = None
    """a folder, with MAT_0000 and so on"""
    fsl_parameters: Path | None = None
    """.par, as of MCFLIRT"""
    fsl_absolute_rms: Path | None = None
    """displacement of each volume from the reference, as of MCFLIRT"""
    fsl_relative_rms: Path | None = None
    """displacement of each volume but the first from the one before"""
    spm_parameters: Path | None = None
    """rp_*.txt, as of SPM"""
    afni_matrices: Path | None = None
    """.aff12.1D, as of AFNI"""
    sidecar: Path | None = None
    """.json, options and results"""
    figures: Path | None = None
    """a folder, with motion.svg, slices.png and mosaic.png"""

    @property
    def images(self) -> tuple[Path, ...]:
        """The wanted images."""
        wanted = (getattr(self, name) for name in IMAGES)
        return tuple(path for path in wanted if path is not None)


MOMENTS = ("mean_image", "variance_image", "sd_image")
IMAGES = ("output_image", *MOMENTS, "bias_image", "reference_image")
SPREAD = ("variance_image", "sd_image", "bias_image")
"""images whose values are not intensities of the series"""
RESAMPLED = ("output_image", *MOMENTS, "figures")
"""files that need the series to be resampled"""
FOLDERS = ("fsl_matrices", "figures")


def checked(wanted: Mapping[str, Any], inputs: Mapping[str, Any]) -> Files:
    """Check names and folders before any work is done; no output may overwrite an input.

    Raises
    ------
    OSError, TypeError, ValueError
        If a file cannot be written under its name, or two have the same name.
    """
    names = [field.name for field in dataclasses.fields(Files)]
    for name in wanted:
        if name not in names:
            raise TypeError(f"write takes no {name!r}; expected some of {', '.join(names)}")
    paths = {name: Path(path).absolute() for name, path in wanted.items() if path is not None}
    given: list[Path] = []
    for name, path in paths.items():
        if name in IMAGES:
            volume.require_name(path)
        if name in FOLDERS:
            _require_folder(path)
        else:
            require_writable(path)
        if any(same_place(path, other) for other in given):
            raise ValueError(f"{path}: two outputs have this name; expected different ones")
        given.append(path)
        for kind, other in inputs.items():
            if other is not None and same_place(path, other):
                raise ValueError(
                    f"{path}: is the {kind} itself, which would be overwritten; expected another "
                    "name for the output"
                )
    return Files(**paths)


def _require_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path}: is a file; expected a folder, or a new name")
    if path.is_dir():
        require_writable(path / "MAT_0000")
    else:
        require_writable(path)


def write_texts(
    files: Files,
    mappings: np.ndarray,
    table: Mapping[str, np.ndarray],
    series: Volume,
    reference: np.ndarray,
    record: Mapping[str, Any],
) -> None:
    """Write everything that is text."""
    affine, shape = series.affine, series.data.shape
    matrices = rigid.fsl_matrices(mappings, affine, shape)
    centre = rigid.grid_centre(affine, shape)
    absolute = rigid.rms_displacement(mappings, centre, to="reference")
    texts: dict[Path | None, str] = {
        files.motion_table: table_text(table),
        files.itk_transforms: motion_files.itk_text(rigid.to_lps(mappings)),
        files.fsl_parameters: motion_files.table_text(
            rigid.fsl_parameters(matrices, rigid.fsl_gravity(reference, affine))
        ),
        files.fsl_absolute_rms: motion_files.table_text(absolute[:, None]),
        files.fsl_relative_rms: motion_files.table_text(table["rmsd"][1:, None]),
        files.spm_parameters: motion_files.table_text(rigid.spm_parameters(mappings)),
        files.afni_matrices: motion_files.table_text(
            rigid.afni_rows(mappings), "# matrices (DICOM-to-DICOM, row by row):"
        ),
        files.sidecar: json.dumps(record, indent=2) + "\n",
    }
    if files.fsl_matrices is not None:
        files.fsl_matrices.mkdir(exist_ok=True)
        for i, matrix in enumerate(matrices):
            texts[files.fsl_matrices / f"MAT_{i:04d}"] = motion_files.table_text(matrix)
    with ExitStack() as stack:
        for path, text in texts.items():
            if path is not None:
                stack.enter_context(replacing(path)).write_text(text, encoding="utf-8")


def table_text(table: Mapping[str, np.ndarray]) -> str:
    """Return columns as tab-separated text; n/a for what is unknown, as in BIDS."""
    lines = ["\t".join(table)]
    for row in zip(*table.values(), strict=True):
        lines.append("\t".join(f"{v:.8g}" if np.isfinite(v) else "n/a" for v in row))
    return "\n".join([*lines, ""])


def motion_columns(
    q: np.ndarray, mappings: np.ndarray, centre: np.ndarray, further: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the columns of the motion table: motion, displacements, and further ones."""
    return {
        **dict(zip(COLUMNS, np.asarray(q).T, strict=True)),
        "framewise_displacement": rigid.framewise_displacement(q),
        "rmsd": rigid.rms_displacement(mappings, centre, to="previous"),
        **further,
    }


@dataclass(frozen=True)
class Realigned:
    """The record of a realignment."""

    files: Files
    n_volumes: int
    motion: Motion
    mappings: np.ndarray
    """(n, 4, 4), from positions in the reference to those in each volume, mm, RAS+"""
    flagged: dict[int, str]
    """volumes that were not realigned, which are written as they are, and why"""
    table: dict[str, np.ndarray]
    """the columns of the motion table"""
    options: RealignOptions
    device: str
    notes: tuple[str, ...]
    sha256: str
    """digest of the series' file"""
    bias: dict[str, Any] | None
    """how the bias field was estimated; None if none was wanted"""
    seconds: dict[str, float]

    @property
    def record(self) -> dict[str, Any]:
        """The numbers of the motion, what was flagged, and notes, in types that JSON has."""
        moved = np.delete(self.table["framewise_displacement"], sorted(self.flagged))
        moved = moved[np.isfinite(moved)]
        flagged = [f"volume {i} is not realigned: {why}" for i, why in self.flagged.items()]
        return {
            "device": self.device,
            "flagged": {str(number): why for number, why in self.flagged.items()},
            "iterations": self.motion.n_iterations.tolist(),
            "converged": self.motion.converged.tolist(),
            "bias_field": self.bias,
            "notes": [*self.notes, *flagged],
            "sha256": {"input_image": self.sha256},
            "seconds": self.seconds,
            "details": {
                "n_volumes": self.n_volumes,
                "n_flagged": len(self.flagged),
                "fd_mean": float(moved.mean()) if moved.size else None,
                "fd_max": float(moved.max()) if moved.size else None,
            },
        }


def drawing() -> Any:
    """Return the module that draws figures.

    Raises
    ------
    ValueError
        If matplotlib is not installed.
    """
    try:
        return importlib.import_module("n4ax_bids.report.motion")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"figures need {error.name}, which is not installed; expected n4ax_bids[app]"
        ) from error


def show(volume: np.ndarray, **how: Any) -> Any:
    """Return a figure of one plane of a volume, or of all of its planes.

    Parameters
    ----------
    volume : array (I, J, K)
    **how : plane, zooms, top and grid, as in `n4ax_bids.report.motion.show`

    Raises
    ------
    ValueError
        If matplotlib is not installed, the volume has other axes, or there is no such plane.
    """
    return drawing().show(volume, **how)


def motion_record(
    motion: Motion, flagged: Mapping[int, str], options: RealignOptions, wanted: Files
) -> dict[str, Any]:
    """Return what the sidecar says of the options, the volumes and the files."""
    return {
        "Options": dataclasses.asdict(options),
        "NumberOfVolumes": len(motion.q),
        "Flagged": {str(number): why for number, why in flagged.items()},
        "Iterations": motion.n_iterations.tolist(),
        "Converged": motion.converged.tolist(),
        "Rank": motion.rank.tolist(),
        "Units": {"trans": "mm", "rot": "rad", "framewise_displacement": "mm", "rmsd": "mm"},
        "Outputs": [path.name for path in wanted.images],
    }


def write_images(
    wanted: Files, made: Mapping[str, np.ndarray], like: Volume, series_dtype: str
) -> None:
    """Write the images that are wanted; only the series may have another type than float32."""
    for name in IMAGES:
        path = getattr(wanted, name)
        if path is not None:
            dtype = series_dtype if name == "output_image" else "float32"
            volume.save(path, made[name], like, dtype=dtype, whole=name not in SPREAD)


def write_figures(folder: Path, figures: Mapping[str, Any]) -> None:
    """Write matplotlib's figures into a folder under their names; each appears whole."""
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        with replacing(folder / name) as part:
            figure.savefig(part, dpi=120)
