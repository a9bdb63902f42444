"""The command `n4ax-realign`: realigns one file with a series."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n4ax_bids import __version__
from n4ax_bids.commands import process
from n4ax_bids.io.names import printable
from n4ax_bids.options.realign import RealignOptions

DESCRIPTION = (
    "Estimates the rigid motion of a series of volumes (BOLD, ASL, DWI with b = 0, repeated "
    "measurements) by least squares and resamples every volume once. The options and most of "
    "their defaults are those of SPM12's realignment."
)
FILES = {
    "mean_image": "mean of the realigned volumes, NIfTI",
    "variance_image": "variance over the realigned volumes, NIfTI",
    "sd_image": "standard deviation over the realigned volumes, NIfTI",
    "bias_image": "bias field by which the volumes were divided, NIfTI; needs --bias",
    "reference_output": "image to which the volumes were realigned, NIfTI",
    "motion_table": "motion with the names of fMRIPrep's confounds: tab-separated values",
    "itk_transforms": "list of ITK's transforms, text",
    "fsl_matrices": "folder for FSL's matrices, MAT_0000 and so on",
    "fsl_parameters": "motion as in MCFLIRT's .par files",
    "fsl_absolute_rms": "displacement from the reference, as of MCFLIRT",
    "fsl_relative_rms": "displacement from the volume before, as of MCFLIRT",
    "spm_parameters": "motion as in SPM's rp files",
    "afni_matrices": "matrices as in AFNI's .aff12.1D files",
    "sidecar": "options and results, JSON",
    "figures": "folder for motion.svg, slices.png and mosaic.png; needs n4ax_bids[app]",
}
"""The outputs besides the realigned series."""


def program() -> int:
    """Run the command as a process of its own, which signals end immediately."""
    return process.run(main)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser: files by hand, options from their dataclass."""
    parser = argparse.ArgumentParser("n4ax-realign", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("input_image", type=Path, help="a series, NIfTI")
    parser.add_argument(
        "output_image", type=Path, nargs="?", help="the realigned series, .nii or .nii.gz"
    )
    files = parser.add_argument_group("files")
    for name in ("reference_image", "weight_image"):
        what = "in place of a volume of the series" if name[0] == "r" else "in proportion to 1/sd"
        files.add_argument(_flag(name), type=Path, metavar="FILE", help=f"NIfTI, {what}")
    for name, help_text in FILES.items():
        files.add_argument(_flag(name), type=Path, metavar="PATH", help=help_text)
    files.add_argument(
        "--output-dtype",
        choices=("float32", "source"),
        default="float32",
        help="type of the voxels of the realigned series, or that of the input: %(default)s",
    )
    _add_options(parser.add_argument_group("options"))
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, gpu or gpu:N; default: %(default)s"
    )
    parser.add_argument(
        "--nthreads", type=int, help="threads on the CPU; default: one for each core"
    )
    parser.add_argument("--version", action="version", version=f"n4ax_bids {__version__}")
    return parser


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _add_options(group: Any) -> None:
    hints = typing.get_type_hints(RealignOptions)
    for field in dataclasses.fields(RealignOptions):
        unit = field.metadata["unit"]
        text = field.metadata["help"] + (f" ({unit})" if unit else "")
        if field.default is not None:
            text = f"{text}; default: {field.default}"
        text = text.replace("%", "%%")
        if hints[field.name] is bool:
            group.add_argument(
                _flag(field.name),
                action=argparse.BooleanOptionalAction,
                default=field.default,
                help=text,
            )
            continue
        kind = hints[field.name] if hints[field.name] in (int, float) else _word
        choices = field.metadata["choices"] or None
        group.add_argument(
            _flag(field.name),
            type=str if choices else kind,
            choices=choices,
            default=field.default,
            metavar=None if choices else field.name.upper(),
            help=text,
        )


def _word(text: str) -> float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 with a line on stderr, or 2."""
    given = vars(build_parser().parse_args(argv))
    try:
        names = [field.name for field in dataclasses.fields(RealignOptions)]
        options = RealignOptions(**{name: given.pop(name) for name in names})
        n_threads = given.pop("nthreads")
        if n_threads is not None and n_threads < 1:
            raise ValueError(f"nthreads is {n_threads}; expected at least 1")
        # Several commands may share a GPU; by default the first would reserve most of its memory.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from n4ax_bids.realign import realign
        from n4ax_bids.runtime import device, startup

        startup.end()
        device.start(n_threads)
        done = realign(**given, options=options)
    except (OSError, ValueError, device_error()) as error:
        _say(error)
        return 1
    except KeyboardInterrupt:
        return 130
    for note in done.notes:
        _say(note)
    for number, why in done.flagged.items():
        _say(f"{given['input_image']}: volume {number} is not realigned: {why}")
    return 0


def device_error() -> type[Exception]:
    """Return the class of errors of a device, which is known once JAX is."""
    module = sys.modules.get("n4ax_bids.runtime.device")
    found: type[Exception] = getattr(module, "DeviceError", ValueError)
    return found


def _say(message: Any) -> None:
    print(printable(f"n4ax-realign: {message}"), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(program())
