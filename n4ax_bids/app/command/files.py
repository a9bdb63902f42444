"""The command line of `n4ax-files`: files, folders and patterns in place of a BIDS dataset."""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Iterator
from pathlib import Path

from n4ax_bids.app.command.flag import absolute
from n4ax_bids.app.command.parser import Program
from n4ax_bids.app.status import Refusal, Status

DESCRIPTION = """\
Correct NIfTI images in any files and folders for intensity non-uniformity (N4, as ANTs computes
it). OUT_DIR gets the same folders as the inputs; for scan.nii.gz it gets scan_biascorr.nii.gz, the
field scan_biasfield.nii.gz and its lattice scan_biaslattice.nii.gz, each with a .json file, and
pages that show the images. Images, masks, restarts and reports are those of n4ax-bids, which is
for BIDS datasets. --dry-run shows what would be done.
"""

EXAMPLES = """\
examples:
  n4ax-files scans corrected --dry-run
  n4ax-files scans/anna.nii.gz scans/bert.nii.gz corrected
  n4ax-files 'scans/**/*T1*.nii.gz' corrected --mask brain
"""

MASK = (
    "where the field is estimated. auto: in the brain that is found in the image, or in the head "
    "where no brain is found with confidence; head, brain: in this one; otsu: in the voxels above "
    "Otsu's threshold; none: in all voxels, as the ANTs program does without a mask; synthstrip, "
    "hd-bet: in the brain that this program finds, where it is installed (default: %(default)s)"
)
SAVE_MASK = (
    "write the mask that --mask auto, head, brain or otsu finds, with brainmask, headmask or "
    "otsumask at the end of its name"
)

LACKS = frozenset(
    {
        "participants",
        "sessions",
        "runs",
        "modalities",
        "filters",
        "realign_4d",
        "validate",
        "bids_database_dir",
        "weight",
        "derivatives",
        "rescale",
        "use_plugin",
        "apply_to",
    }
)
"""fields of the request that have no meaning without a dataset, or none yet"""


def _add_words(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs",
        type=Path,
        nargs="+",
        metavar="IN",
        help="NIfTI files (.nii, .nii.gz), folders, which are searched to any depth, or patterns "
        "such as 'scans/**/*T1*.nii.gz'",
    )
    parser.add_argument(
        "output_dir",
        type=Path,
        metavar="OUT_DIR",
        help="folder for the outputs, in which the folders of the inputs are repeated; it is made "
        "if it does not exist",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="folder above all inputs, whose folders are repeated (default: the nearest one)",
    )
    parser.set_defaults(analysis_level="participant")


FILES = Program(
    "n4ax-files",
    DESCRIPTION,
    EXAMPLES,
    _add_words,
    LACKS,
    lambda method: not method.app and not method.streams,
    {"mask": MASK, "save_mask": SAVE_MASK},
)


def located(arguments: argparse.Namespace) -> tuple[Path, ...]:
    """Return the absolute files and folders that were given; set `bids_dir` to their root.

    Raises
    ------
    Refusal
        If one of them does not exist, or lies outside --root.
    """
    found: dict[Path, Path] = {}
    for given in arguments.inputs:
        for path, folder in _matching(absolute(given)):
            found.setdefault(path, folder)
    root = Path(os.path.commonpath([str(folder) for folder in found.values()]))
    if arguments.root:
        root = absolute(arguments.root)
        for path in found:
            if root not in (path, *path.parents):
                raise Refusal(Status.USAGE, f"{path}: is not in --root {root}; expected it there")
    arguments.bids_dir = root
    return tuple(found)


def _matching(path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a file or folder, or those that a pattern matches, and the folder to repeat."""
    if os.path.lexists(path):
        yield path, path if path.is_dir() else path.parent
        return
    if not glob.has_magic(str(path)):
        raise Refusal(Status.INVALID_INPUT, f"{path}: no such file or folder")
    fixed = path
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    some = False
    for name in sorted(glob.iglob(str(path), recursive=True)):
        each = Path(name)
        between = each.parents[: len(each.parents) - len(fixed.parents) - 1]
        if any(folder.is_symlink() for folder in between):
            continue
        if not each.is_dir():
            some = True
            yield each, fixed
    if not some:
        raise Refusal(Status.INVALID_INPUT, f"{path}: no file matches this pattern")
