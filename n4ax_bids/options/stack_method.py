"""The stack of sections as a method of the BIDS-App: presets, quick trials, methods text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from n4ax_bids.arguments import listed
from n4ax_bids.options.stack import StackOptions

PRESETS: Mapping[str, StackOptions] = {
    "serial": StackOptions(),
    "whole": StackOptions(mode="global", match="none"),
}
PRESET_HELP: Mapping[str, str] = {
    "serial": "each section on its own, then the whole stack; histograms of sections are matched",
    "whole": "only the whole stack, as for a light-sheet volume that was imaged in one piece",
}
PASSES = {
    "two_pass": "in each section on its own and then in the whole stack",
    "per_section": "in each section on its own",
    "global": "in the whole stack",
}


def sloppy(options: StackOptions) -> StackOptions:
    """Return options for quick trials: at most two levels of five iterations, shrink 4 or more."""
    return replace(
        options,
        shrink_factor=max(4, options.shrink_factor),
        n_iterations=tuple(min(n, 5) for n in options.n_iterations[:2]),
    )


def paragraph(o: StackOptions, preset: str, changed: bool) -> str:
    """Return sentences that state every option of a stack; [@key] is a citation.

    Parameters
    ----------
    o : the options
    preset : name of the preset that they are based on
    changed : whether some of them differ from the preset
    """
    some = ", some of them changed" if changed else ""
    return " ".join(
        [
            f"The options were those of the preset {preset}{some}.",
            _before(o),
            _solve(o),
            _after(o),
        ]
    )


def _before(o: StackOptions) -> str:
    sections = "Every plane was a section."
    if isinstance(o.sections, int):
        sections = f"Each stack had {o.sections} {'section' if o.sections == 1 else 'sections'}."
    elif o.sections is not None:
        sections = f"Sections began with the planes {listed(o.sections)}."
    mask = (
        "The tissue was found in each section: a Gaussian filter (standard deviation "
        f"{o.mask_sigma:g} pixels in the plane and {o.mask_sigma_z:g} along Z), Otsu's threshold "
        f"[@otsu], filled holes, and closing by a disk with a radius of {o.mask_closing} pixels "
        f"and along Z over {o.mask_closing_z} planes to both sides."
    )
    tissue = f"intensities above {o.tissue_threshold:g}"
    match = ""
    if o.match != "none":
        match = f" The histogram of each {o.match} ({tissue}) was matched to that of the stack."
    profile = ""
    if o.profile_sigma:
        profile = (
            f" The mean of each plane ({tissue}) was smoothed along Z by a Gaussian of "
            f"{o.profile_sigma:g} planes."
        )
    return f"{sections} {mask}{match}{profile}"


def _solve(o: StackOptions) -> str:
    samples = "the means of blocks of" if o.sampling == "mean" else "one in"
    knots = {
        "two_pass": f"{o.section_spline_mm:g} mm apart within sections and "
        f"{o.global_spline_mm:g} mm apart in the stack",
        "per_section": f"{o.section_spline_mm:g} mm apart",
        "global": f"{o.global_spline_mm:g} mm apart",
    }
    fwhm, noise, n_bins = o.histogram_sharpening
    return (
        f"The field was estimated {PASSES[o.mode]}, from {samples} {o.shrink_factor} voxels on "
        f"each axis, as B-splines [@bsplines] with knots {knots[o.mode]} at the first level and "
        f"twice as many spans at each next level. The {len(o.n_iterations)} levels had at most "
        f"{listed(o.n_iterations)} iterations and ended early when the coefficient of variation "
        f"of the field's change was not above {o.convergence_threshold:g}. The histogram was "
        f"sharpened [@n3] with a full width at half maximum of {fwhm:g}, a noise of {noise:g} and "
        f"{n_bins} bins."
    )


def _after(o: StackOptions) -> str:
    scale = {
        "common": "Sections were scaled to equal medians of the tissue.",
        "trend": "Sections were scaled so that the medians of the tissue follow a trend along Z "
        f"(Gaussian of {o.scale_sigma:g} sections).",
        "none": "The scale of sections was left as N4 gave it.",
    }
    outside = " Voxels outside the mask were set to 0." if o.zero_outside else ""
    share = f"The share of the correction was {o.strength:g}."
    return f"{'' if o.mode == 'global' else scale[o.scale] + ' '}{share}{outside}"
