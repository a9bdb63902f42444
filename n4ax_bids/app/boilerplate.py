"""The methods text of the images that were corrected, and what it cites."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from n4ax_bids.app import methods
from n4ax_bids.app.derivatives import NAME, write_text
from n4ax_bids.app.methods import Way
from n4ax_bids.app.request import Request
from n4ax_bids.options import PRESETS

CITATIONS = Path(__file__).parents[1] / "data" / "citations.json"
TITLE = "Methods: bias field correction"
_MARK = re.compile(r"\[@(\w+)\]")


def write(output_dir: Path) -> None:
    """Write the text to `logs/CITATION` as Markdown, HTML and BibTeX, from the images' records.

    Several runs may end at the same time: the last one to write has seen all records.
    """
    ways = methods.ways(output_dir)
    while ways:
        write_text_of(ways, output_dir)
        before, ways = ways, methods.ways(output_dir)
        if ways == before:
            return


def write_text_of(ways: Sequence[Way], output_dir: Path) -> None:
    """Write the text for ways in which images were corrected, or are to be."""
    folder = output_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "CITATION.md", markdown(ways))
    write_text(folder / "CITATION.html", html(ways))
    write_text(folder / "CITATION.bib", bibtex(ways))


def markdown(ways: Sequence[Way]) -> str:
    """Return the text with a list of references."""
    text = "\n\n".join(f"## {line}" if is_heading else line for is_heading, line in _lines(ways))
    references = "\n".join(f"- {entry['text']}" for entry in _cited(text))
    return f"# {TITLE}\n\n{_with_names(text)}\n\n## References\n\n{references}\n"


def html(ways: Sequence[Way]) -> str:
    """Return the same as a page."""
    found = list(_lines(ways))
    tags = {True: "h2", False: "p"}
    body = "\n".join(
        f"<{tags[is_heading]}>{escape(_with_names(text))}</{tags[is_heading]}>"
        for is_heading, text in found
    )
    cited = _cited("".join(text for _, text in found))
    references = "\n".join(f"<li>{escape(e['text'])}</li>" for e in cited)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{TITLE}</title>'
        f"</head>\n<body>\n<h1>{TITLE}</h1>\n{body}\n<h2>References</h2>\n<ul>\n{references}\n"
        "</ul>\n</body>\n</html>\n"
    )


def bibtex(ways: Sequence[Way]) -> str:
    """Return the entries that the text cites, and the software's own."""
    versions = " and ".join(dict.fromkeys(way.version for way in ways))
    own = (
        f"@software{{{NAME},\n  author = {{{{The n4ax_bids contributors}}}},\n"
        f"  title = {{{{{NAME}}}: {{N4}} bias field correction in {{JAX}}}},\n"
        f"  version = {{{versions}}}\n}}"
    )
    entries = [entry["bib"] for entry in _cited("".join(text for _, text in _lines(ways)))]
    return "\n\n".join([own, *entries]) + "\n"


def _lines(ways: Sequence[Way]) -> Iterator[tuple[bool, str]]:
    """Yield whether a line is a heading, and its text; [@key] stands for a citation."""
    for way in ways:
        if len(ways) > 1:
            first, *others = way.images
            more = f" and {len(others)} more" if others else ""
            yield True, f"{len(way.images)} of the images: {first}{more}"
        for text in paragraphs(way):
            yield False, text


def paragraphs(way: Way) -> Iterator[str]:
    """Yield the text about one way; [@key] stands for a citation."""
    request = way.request
    images = _and(request.modalities)
    text = (
        f"The {images} images were corrected for intensity non-uniformity with N4 [@n4], as "
        f"computed by {NAME} {way.version} on JAX {way.jax} [@jax]. "
        f"{_region(request)} {_result(request)}"
    )
    if request.sloppy:
        text += " Few iterations were made, to try the program out: these images are no result."
    yield text
    yield _solver(request)
    yield (
        "Images were found in the BIDS [@bids] dataset by PyBIDS [@pybids] and corrected by a "
        "node of Nipype [@nipype]."
    )


def _region(request: Request) -> str:
    sources = _and(list(request.derivatives)) or "other pipelines"
    places = {
        "otsu": "The field was estimated in the voxels above Otsu's threshold [@otsu]",
        "auto": "The field was estimated inside a mask that was found in each image by "
        "alternating Otsu's threshold [@otsu] and N4: the brain where one was found with "
        "confidence, or else the head or, where neither was found or Otsu's mask served as well, "
        "the voxels above Otsu's threshold",
        "head": "The field was estimated inside the head, which was found in each image by "
        "alternating Otsu's threshold [@otsu] and N4",
        "brain": "The field was estimated inside the brain, which was found by morphology in "
        "the head that alternating Otsu's threshold [@otsu] and N4 found in each image",
        "none": "The field was estimated in all voxels",
        "derivatives": f"The field was estimated inside the brain masks of {sources}, or, where "
        "there was none, weighted by the probability of white matter",
    }
    weight = f", weighted by the probability of {request.weight} tissue of {sources}"
    return places[request.mask] + (weight if request.weight else "") + "."


def _result(request: Request) -> str:
    done = "Each image was divided by its field as a whole and not rescaled."
    if request.rescale:
        done = (
            "Images were divided by their fields inside the masks and, where a mask is 1, "
            "rescaled to the range of intensities that they had there."
        )
    stored = "in the type of the source" if request.output_dtype == "source" else "as float32"
    return f"{done} Voxels were stored {stored}."


def _solver(request: Request) -> str:
    """Say every solver option."""
    o, base = request.options, PRESETS[request.preset]
    changed = "" if o == base else ", some of them changed"
    shrink = f"one in {o.shrink_factor} voxels of each axis"
    if o.shrink_mm is not None:
        shrink = f"voxels about {o.shrink_mm:g} mm apart"
    elif o.shrink_factor == 1:
        shrink = "every voxel"
    if o.shrink_start is not None:
        shrink += f", the first being {_and(o.shrink_start)}"
    knots = "one span on each axis at the first level"
    if o.bspline_fitting_distance is not None:
        knots = f"knots {o.bspline_fitting_distance:g} mm apart at the first level"
    elif o.n_control_points is not None:
        knots = f"{_and(o.n_control_points)} control points at the first level"
    finer = "twice as many spans at each next level" if o.refine else "as many at each next level"
    fwhm, noise, n_bins = o.histogram_sharpening
    statistic = "as ITK keeps it" if o.convergence_statistic == "itk" else "computed exactly"
    return (
        f"The options were those of the preset {request.preset}{changed}. The field was estimated "
        f"from {shrink}, as B-splines [@bsplines] of order {o.bspline_order} with {knots} and "
        f"{finer}. The {len(o.n_iterations)} levels had at most {_and(o.n_iterations)} iterations "
        "and ended early when the coefficient of variation of the field's change, "
        f"{statistic}, was not above {o.convergence_threshold:g}; updates were multiplied by "
        f"{o.over_relaxation:g}. The histogram was sharpened [@n3] with a full width at half "
        f"maximum of {fwhm:g}, a noise of {noise:g} and {n_bins} bins, as in ITK "
        f"{o.itk_version}, in {o.precision}."
    )


def _and(words: Iterable[object]) -> str:
    *first, last = [str(word) for word in words] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _cited(text: str) -> list[dict[str, str]]:
    known = json.loads(CITATIONS.read_text(encoding="utf-8"))
    return [known[key] for key in dict.fromkeys(_MARK.findall(text))]


def _with_names(text: str) -> str:
    known = json.loads(CITATIONS.read_text(encoding="utf-8"))
    return _MARK.sub(lambda found: f"({known[found[1]]['cite']})", text)
