"""The command `n4ax-apply`: divides images by a field that was estimated before."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from n4ax_bids import __version__
from n4ax_bids.commands import process
from n4ax_bids.io.names import printable

DESCRIPTION = (
    "Divides images by a bias field that was estimated in another image of the same scan. The "
    "field is evaluated at the place of each voxel, so resolution and orientation may differ; all "
    "volumes of a series get the same field."
)


def program() -> int:
    """Run the command as a process of its own, which signals end immediately."""
    return process.run(main)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser("n4ax-apply", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument(
        "field",
        type=Path,
        help="a lattice (desc-biaslattice), an image of the field, or a corrected image "
        "(desc-biascorr) with one of them beside it",
    )
    parser.add_argument("images", type=Path, nargs="+", help="images or series, NIfTI")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="name of the result; for several images a folder, in which they keep their names",
    )
    parser.add_argument(
        "--multiply", action="store_true", help="multiply by the field, which undoes a division"
    )
    parser.add_argument(
        "--bias-image", type=Path, metavar="FILE", help="write the field on the grid of the image"
    )
    parser.add_argument("--version", action="version", version=f"n4ax_bids {__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 1 with a line on stderr, or 2."""
    given = build_parser().parse_args(argv)
    try:
        from n4ax_bids.apply import apply_field, load_field
        from n4ax_bids.runtime import startup

        startup.end()
        field = load_field(given.field)
        for image, output in _pairs(given.images, given.output, given.bias_image):
            done = apply_field(
                image, field, output, bias_image=given.bias_image, multiply=given.multiply
            )
            for note in done.notes:
                _say(note)
    except (OSError, ValueError) as error:
        _say(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _pairs(images: Sequence[Path], output: Path, bias_image: Path | None) -> list[Any]:
    """Return each image with the name of its result."""
    if len(images) == 1 and not output.is_dir():
        return [(images[0], output)]
    if bias_image:
        raise ValueError(f"--bias-image {bias_image}: is for one image, not for {len(images)}")
    names = [image.name for image in images]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"{output / twice}: two images have this name; expected different names")
    output.mkdir(parents=True, exist_ok=True)
    return [(image, output / image.name) for image in images]


def _say(message: Any) -> None:
    print(printable(f"n4ax-apply: {message}"), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(program())
