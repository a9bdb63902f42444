"""`python -m n4ax_bids` is the command `n4ax-bids`."""

from __future__ import annotations

import sys

from n4ax_bids.app.cli import program

if __name__ == "__main__":
    sys.exit(program())
