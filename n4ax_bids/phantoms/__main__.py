"""Write the dataset of phantoms: python -m n4ax_bids.phantoms DIR."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from n4ax_bids.phantoms.dataset import make_dataset


def main(argv: Sequence[str] | None = None) -> None:
    """Write the dataset that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m n4ax_bids.phantoms", description=__doc__)
    parser.add_argument("directory", type=Path, help="root of the BIDS dataset to write")
    parser.add_argument("--step", type=int, default=1, help="voxel size in mm (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of fields and noise (default: 0)")
    arguments = parser.parse_args(argv)
    for item in make_dataset(arguments.directory, step=arguments.step, seed=arguments.seed):
        print(item.image)


if __name__ == "__main__":
    main()
