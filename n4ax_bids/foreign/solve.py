"""One solve of N4 for an image of another package, on the device and the threads it asks for."""

from __future__ import annotations

from n4ax_bids.core.estimator import Estimate, Given, Report
from n4ax_bids.core.n4.method import prepare
from n4ax_bids.options import N4Options
from n4ax_bids.runtime import compilation
from n4ax_bids.runtime import device as devices


def solve(
    given: Given, options: N4Options, report: Report | None = None, n_threads: int | None = None
) -> Estimate:
    """Estimate the field of an image: on a GPU if JAX sees one, else on the CPU.

    Parameters
    ----------
    given : Given, the arrays of the image with axes in NIfTI order
    options : N4Options
    report : called after each iteration; see `n4ax_bids.core.estimator.Report`
    n_threads : threads on the CPU. The first solve of a process decides their number.

    Raises
    ------
    ValueError
        If an array or an option does not fit; one line.
    """
    run = prepare(given, options)
    devices.start(n_threads)
    with devices.use(devices.resolve()), compilation.kept():
        return run(report)
