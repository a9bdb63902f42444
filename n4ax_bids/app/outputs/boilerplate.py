"""The methods text about the corrected images, and its citations."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from n4ax_bids import methods
from n4ax_bids.app.outputs import provenance
from n4ax_bids.app.outputs.derivatives import NAME, write_text
from n4ax_bids.app.outputs.provenance import Way
from n4ax_bids.app.request import Request
from n4ax_bids.arguments import listed

CITATIONS = Path(__file__).parents[2] / "data" / "citations.json"
TITLE, MOTION_TITLE = "Methods: bias field correction", "Methods: motion correction"
_MARK = re.compile(r"\[(@\w+(?:; @\w+)*)\]")
"""one or more citations, such as [@n4] or [@wells; @unified]"""


def write(output_dir: Path) -> None:
    """Write the text to `logs/CITATION` as Markdown, HTML and BibTeX, from the images' records.

    Several runs may end at the same time. Each one writes until the records stay unchanged, so
    the last one to write has seen all of them.
    """
    ways = provenance.ways(output_dir)
    while ways:
        write_text_of(ways, output_dir)
        before, ways = ways, provenance.ways(output_dir)
        if ways == before:
            return


def write_text_of(ways: Sequence[Way], output_dir: Path) -> Path:
    """Write the text about the ways in which images were corrected, or will be; return where."""
    folder = output_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "CITATION.md", markdown(ways))
    write_text(folder / "CITATION.html", html(ways))
    write_text(folder / "CITATION.bib", bibtex(ways))
    return folder / "CITATION.md"


def markdown(ways: Sequence[Way]) -> str:
    """Return the text with a list of references."""
    text = "\n\n".join(f"## {line}" if is_heading else line for is_heading, line in _lines(ways))
    references = "\n".join(f"- {entry['text']}" for entry in _cited(text))
    return f"# {_title(ways)}\n\n{_with_names(text)}\n\n## References\n\n{references}\n"


def _title(ways: Sequence[Way]) -> str:
    """Return the title of the text: motion correction, if nothing else was done."""
    motion = all(methods.METHODS[way.request.method].app for way in ways)
    return MOTION_TITLE if motion else TITLE


def html(ways: Sequence[Way]) -> str:
    """Return the text with a list of references as an HTML page."""
    found = list(_lines(ways))
    tags, title = {True: "h2", False: "p"}, _title(ways)
    body = "\n".join(
        f"<{tags[is_heading]}>{escape(_with_names(text))}</{tags[is_heading]}>"
        for is_heading, text in found
    )
    cited = _cited("".join(text for _, text in found))
    references = "\n".join(f"<li>{escape(e['text'])}</li>" for e in cited)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>'
        f"</head>\n<body>\n<h1>{title}</h1>\n{body}\n<h2>References</h2>\n<ul>\n{references}\n"
        "</ul>\n</body>\n</html>\n"
    )


def bibtex(ways: Sequence[Way]) -> str:
    """Return the BibTeX entry of this software and those of the cited works."""
    versions = " and ".join(dict.fromkeys(way.version for way in ways))
    own = (
        f"@software{{{NAME},\n  author = {{{{The n4ax_bids contributors}}}},\n"
        f"  title = {{{{{NAME}}}: {{N4}} bias field correction in {{JAX}}}},\n"
        f"  version = {{{versions}}}\n}}"
    )
    entries = [entry["bib"] for entry in _cited("".join(text for _, text in _lines(ways)))]
    return "\n\n".join([own, *entries]) + "\n"


def _lines(ways: Sequence[Way]) -> Iterator[tuple[bool, str]]:
    """Yield (whether it is a heading, text) for each line; [@key] is a citation."""
    for way in ways:
        if len(ways) > 1:
            first, *others = way.images
            more = f" and {len(others)} more" if others else ""
            yield True, f"{len(way.images)} of the images: {first}{more}"
        for text in paragraphs(way):
            yield False, text


def paragraphs(way: Way) -> Iterator[str]:
    """Yield the paragraphs about one way; [@key] is a citation."""
    request = way.request
    method, own = methods.METHODS[request.method], methods.outputs_of(request.method)
    if own:
        yield from own.paragraphs(way)
        return
    cited = f" [@{method.cited}]" if method.cited else ""
    images = f"{listed(request.modalities)} images" if request.is_bids else "images"
    text = (
        f"The {images} were corrected for intensity non-uniformity with "
        f"{method.title}{cited}, as computed by {NAME} {way.version} on JAX {way.jax} [@jax]. "
        f"{_region(request)} {_result(request)}"
    )
    if request.sloppy:
        text += " Few iterations were made, to try the program out: these images are no result."
    yield text
    changed = request.options != method.presets[request.preset]
    yield methods.load(method.paragraph)(request.options, request.preset, changed)
    if way.applied:
        yield (
            f"The {listed(way.applied)} images were divided by the field of the first "
            f"{' or '.join(request.modalities)} image of their session, evaluated at the place of "
            "each voxel in the scanner's frame."
        )
    if not request.is_bids:
        yield "Images were corrected by a node of Nipype [@nipype]."
        return
    yield (
        "Images were found in the BIDS [@bids] dataset by PyBIDS [@pybids] and corrected by a "
        "node of Nipype [@nipype]."
    )


def _region(request: Request) -> str:
    sources = listed(list(request.derivatives)) or "other pipelines"
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
        "synthstrip": "The field was estimated inside the brain that SynthStrip [@synthstrip]"
        f"{_program(request)} found in each image",
        "hd-bet": f"The field was estimated inside the brain that HD-BET [@hdbet]"
        f"{_program(request)} found in each image, without test-time augmentation",
        "none": "The field was estimated in all voxels",
        "derivatives": f"The field was estimated inside the brain masks of {sources}, or, where "
        "there was none, weighted by the probability of white matter",
    }
    if methods.METHODS[request.method].streams and request.mask != "none":
        places[request.mask] = "The field was estimated in the tissue that was found in each stack"
    weight = f", weighted by the probability of {request.weight} tissue of {sources}"
    return places[request.mask] + (weight if request.weight else "") + "."


def _program(request: Request) -> str:
    return f" (the program {request.mask_program})" if request.mask_program else ""


def _result(request: Request) -> str:
    level = f", after the field was divided by its {request.field_scale} inside the mask"
    if request.field_scale == "as-is" or methods.METHODS[request.method].streams:
        level = " as a whole and not rescaled"
    done = f"Each image was divided by its field{level}."
    if request.rescale:
        done = (
            "Images were divided by their fields inside the masks and, where a mask is 1, "
            "rescaled to the range of intensities that they had there."
        )
    stored = "in the type of the source" if request.output_dtype == "source" else "as float32"
    return f"{done} Voxels were stored {stored}."


def _known() -> dict[str, Mapping[str, str]]:
    """Return all known citations by their keys."""
    known = json.loads(CITATIONS.read_text(encoding="utf-8"))
    for method in methods.METHODS.values():
        known |= method.citations
    return known


def _cited(text: str) -> list[Mapping[str, str]]:
    known = _known()
    keys = (key for marks in _MARK.findall(text) for key in _keys(marks))
    return [known[key] for key in dict.fromkeys(keys)]


def _with_names(text: str) -> str:
    known = _known()

    def names(found: re.Match[str]) -> str:
        return f"({'; '.join(known[key]['cite'] for key in _keys(found[1]))})"

    return _MARK.sub(names, text)


def _keys(marks: str) -> list[str]:
    return [mark.removeprefix("@") for mark in marks.split("; ")]
