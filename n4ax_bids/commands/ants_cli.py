"""The command `n4ax-n4`: ANTs' `N4BiasFieldCorrection` for one image."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from n4ax_bids import __version__
from n4ax_bids.commands import process
from n4ax_bids.foreign import ants
from n4ax_bids.io.names import printable
from n4ax_bids.options import N4Options

DESCRIPTION = """\
Corrects the bias field of an MR image by N4 (N. Tustison et al., N4ITK: Improved N3 Bias
Correction, IEEE Transactions on Medical Imaging 29(6), 1310-1320, 2010). The flags, their
defaults and the numbers are those of ANTs' N4BiasFieldCorrection. Blanks may stand within
brackets; where a flag is given twice the last one counts."""


ANTS_NAME = "N4BiasFieldCorrection"
"""the ANTs program's name, which a link to this command may have"""

HELP: dict[str, tuple[str, str]] = {
    "image-dimensionality": (
        "2/3",
        "Number of axes that the image has to have. Default: as many as the file has.",
    ),
    "input-image": (
        "image",
        "The image to correct, a NIfTI file. Intensities should be positive: those that "
        "are not enter the estimate without a logarithm.",
    ),
    "mask-image": (
        "image",
        "The field is estimated, and the image corrected, where this image is not 0; "
        "elsewhere the output is the input. Default: everywhere. No mask is made from "
        "the image.",
    ),
    "rescale-intensities": (
        "0/(1)",
        "With a mask: whether to map the corrected intensities, where the mask is 1, to "
        "the range that the image had inside the mask.",
    ),
    "weight-image": (
        "image",
        "Weight of each voxel in the fit of the field, e.g. a probability of white "
        "matter. Voxels with a weight of 0 or less take no part in the estimate; all are "
        "corrected.",
    ),
    "shrink-factor": (
        "1/2/3/(4)/...",
        "The field is estimated on every n-th voxel of each axis.",
    ),
    "convergence": (
        "[iterations=50x50x50x50,<threshold=0>]",
        "Most iterations at each fitting level. A level ends early when the coefficient "
        "of variation of the change of the field is not above the threshold.",
    ),
    "bspline-fitting": (
        "[distance,<order=3>] or [mesh,<order=3>]",
        "Knots of the field at the first level: their distance in mm, e.g. [200], or the "
        "number of spans on each axis, e.g. [1x1x1,3], which is the default. Each level "
        "has twice the spans of the one before.",
    ),
    "histogram-sharpening": (
        "[<fwhm=0.15>,<noise=0.01>,<bins=200>]",
        "Full width at half maximum of the histogram of the field (ln of intensity), "
        "noise of the Wiener filter, number of bins of the histogram.",
    ),
    "output": (
        "corrected or [corrected,<field>]",
        "The corrected image, and the field that the image was divided by; .nii or "
        ".nii.gz. Without this flag all is computed and nothing written.",
    ),
    "field-scale": (
        "(as-is)/mean/median",
        "Divide the field by its mean or median inside the mask, so that the image keeps its "
        "level. The ANTs program has no such flag.",
    ),
    "device": (
        "(auto)/cpu/gpu/gpu:N",
        "Where to compute; auto is a GPU where JAX sees one. The ANTs program has no such flag.",
    ),
    "version": ("", "Print the version."),
    "verbose": ("(0)/1", "Print each iteration and its convergence value."),
    "h": ("", "Print the flags."),
    "help": ("", "Print this text."),
}
"""How each flag is used and what it means, by long name."""


def program() -> int:
    """Run the command as a process of its own, which signals end immediately."""
    return process.run(main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, or 1 with a line on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        print(menu(full=True), file=sys.stderr)
        return 1
    try:
        given, notes = ants.parse(words)
        settings = {name: value for part in given.values() for name, value in part.items()}
        if settings.pop("help", False):
            print(menu(full=True))
        elif settings.pop("flags", False):
            print(menu(full=False))
        elif settings.pop("version", False):
            print(version())
        else:
            for note in notes:
                _say(note)
            _correct(settings)
    except (OSError, ValueError) as error:
        _say(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def version() -> str:
    """Return the line of --version.

    Under ANTs' name it begins as the ANTs program's does, because scripts read the number there.
    The number is this package's, and the line names the package.
    """
    if _name() == ANTS_NAME:
        return f"ANTs Version: v{__version__} of n4ax_bids, in place of ANTs"
    return f"n4ax_bids {__version__}, in place of ANTs' {ANTS_NAME}"


def menu(*, full: bool) -> str:
    """Return the list of flags, with their meaning if `full`."""
    lines = ["", "COMMAND:", f"     {_name()}"]
    if full:
        lines.append(_wrapped(DESCRIPTION))
    lines += ["", "OPTIONS:"]
    for name, (usage, meaning) in HELP.items():
        short = ants.FLAGS[name].short
        spellings = [f"-{short}"] if short else []
        if name != short:
            spellings.append(f"--{name}")
        lines.append(f"     {', '.join(spellings)} {usage}".rstrip())
        if full:
            lines += [_wrapped(meaning), ""]
    return "\n".join(lines)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 90, initial_indent=" " * 10, subsequent_indent=" " * 10)


def _name() -> str:
    """Return the name of the command as it was called; a link may have ANTs' name."""
    name = Path(sys.argv[0]).name
    return "n4ax-n4" if name.endswith(".py") or name.startswith("-") else name


def _say(message: Any) -> None:
    print(printable(f"{_name()}: {message}"), file=sys.stderr, flush=True)


def _correct(settings: dict[str, Any]) -> None:
    """Correct the image according to the flags.

    Raises
    ------
    OSError, ValueError
        As `n4ax_bids.correct.correct`, and if no image is named.
    """
    if "input_image" not in settings:
        raise ValueError("no input image; name one with -i")
    settings.setdefault("output_image", None)
    verbose = settings.pop("verbose", False)
    names = {field.name for field in fields(N4Options)} & settings.keys()
    options = N4Options(**{name: settings.pop(name) for name in names})
    # Several commands may share a GPU; by default the first would reserve most of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from n4ax_bids.correct import correct
    from n4ax_bids.runtime import device, startup

    startup.end()
    device.start(_n_threads())
    start = time.perf_counter()
    report = reporter(options) if verbose else None
    done = correct(**settings, options=options, report=report)
    for note in done.notes:
        _say(note)
    if verbose:
        if done.non_positive:
            print(f"Warning: {done.non_positive} voxels with an intensity of 0 or less took part")
        print(f"Device: {done.device}")
        print(f"Elapsed time: {time.perf_counter() - start:g}", flush=True)


def _n_threads() -> int | None:
    """Return the number of threads that ITK's environment variable requests; None without one."""
    asked = os.environ.get("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) > 0 else None


def reporter(options: N4Options) -> Callable[[int, int, float], None]:
    """Return a function that prints an iteration in the format of the ANTs program."""

    def report(level: int, iteration: int, value: float) -> None:
        if iteration == 1:
            print(f"Current level = {level}")
        print(
            f"  Iteration {iteration} (of {options.n_iterations[level - 1]}).  "
            f" Current convergence value = {value:g}"
            f" (threshold = {options.convergence_threshold:g})",
            flush=True,
        )

    return report


if __name__ == "__main__":
    sys.exit(program())
