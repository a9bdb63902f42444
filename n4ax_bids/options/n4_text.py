"""N4's options in sentences, for the methods text."""

from __future__ import annotations

from n4ax_bids.arguments import listed
from n4ax_bids.options.n4 import NO_STOP, N4Options


def paragraph(o: N4Options, preset: str, changed: bool) -> str:
    """Return sentences that state every option of N4; [@key] is a citation.

    Parameters
    ----------
    o : the options
    preset : name of the preset that they are based on
    changed : whether some of them differ from the preset
    """
    shrink = f"one in {o.shrink_factor} voxels of each axis"
    if o.shrink_mm is not None:
        shrink = f"voxels about {o.shrink_mm:g} mm apart"
    elif o.shrink_factor == 1:
        shrink = "every voxel"
    if o.shrink_start is not None:
        shrink += f", the first being {listed(o.shrink_start)}"
    knots = "one span on each axis at the first level"
    if o.bspline_fitting_distance is not None:
        knots = f"knots {o.bspline_fitting_distance:g} mm apart at the first level"
    elif o.n_control_points is not None:
        knots = f"{listed(o.n_control_points)} control points at the first level"
    if o.adapt:
        shrink = "about 30,000 voxels inside the mask"
        knots = "knots 1.8 lengths of the mask apart at the first level"
    finer = "twice as many spans at each next level" if o.refine else "as many at each next level"
    fwhm, noise, n_bins = o.histogram_sharpening
    statistic = "as ITK keeps it" if o.convergence_statistic == "itk" else "computed exactly"
    counts = f"The {len(o.n_iterations)} levels had {listed(o.n_iterations)} iterations."
    if o.convergence_threshold > NO_STOP:
        counts = (
            f"The {len(o.n_iterations)} levels had at most {listed(o.n_iterations)} iterations "
            "and ended early when the coefficient of variation of the field's change, "
            f"{statistic}, was not above {o.convergence_threshold:g}."
        )
    if o.over_relaxation != 1:
        counts += f" Updates were multiplied by {o.over_relaxation:g}."
    some = ", some of them changed" if changed else ""
    return (
        f"The options were those of the preset {preset}{some}. The field was estimated "
        f"from {shrink}, as B-splines [@bsplines] of order {o.bspline_order} with {knots} and "
        f"{finer}. {counts} The histogram was sharpened [@n3] with a full width at half "
        f"maximum of {fwhm:g}, a noise of {noise:g} and {n_bins} bins, as in ITK "
        f"{o.itk_version}, in {o.precision}."
    )
