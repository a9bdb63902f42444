"""Which images are taken, and why others are not: modalities, labels, the filter file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from n4ax_bids.app.command.words import did_you_mean
from n4ax_bids.app.request import Request
from n4ax_bids.app.select.vocabulary import (
    datatypes,
    kind_of,
    maps_and_masks,
    modalities,
    names,
    numbered,
    taken_by,
)
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.arguments import same_number
from n4ax_bids.io.text import read_json
from n4ax_bids.methods import METHODS, Query

log = logging.getLogger("n4ax_bids")

QUERIES = Path(__file__).parents[2] / "data" / "queries.json"
"""entities of an image that is taken; null means that the entity is absent"""
MAGNITUDES = (None, "mag")
ELSEWHERE = ("bold", "sbref", "fmap", "roi", "asl", "pet")
"""keys of a NiPreps filter file that are not for anatomical images"""

Wanted = Mapping[str, Any]
"""for each entity, the label or labels that an image may have"""


def matches(entity: str, value: Any, wanted: Any) -> bool:
    """Return whether an entity has a wanted label.

    None means that the entity must be absent, "*" allows any label, and a list allows each of its
    labels.
    """
    if isinstance(wanted, list | tuple):
        return any(matches(entity, value, each) for each in wanted)
    if wanted is None or value is None:
        return wanted is value
    one, other = str(value), str(wanted)
    if entity in numbered() and same_number(one, other):
        return True
    return other in ("*", one)


def read_filters(path: Path, query: Query = METHODS["n4"].query) -> dict[str, dict[str, Any]]:
    """Read a filter file in fMRIPrep's form: for each modality, entities and their labels.

    Parameters
    ----------
    path : the file
    query : images that the method takes; entries for other images are ignored

    Raises
    ------
    Refusal
        If the file has another form, or an unknown modality or entity; one line that lists the
        known ones.
    """

    def refuse(why: str) -> Refusal:
        return Refusal(Status.USAGE, f"{path}: {why}")

    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise Refusal(Status.USAGE, str(error)) from error
    if not (isinstance(content, dict) and all(isinstance(v, dict) for v in content.values())):
        raise refuse('expected an object for each modality, as {"t1w": {"session": "01"}}')
    known = {suffix.lower(): suffix for suffix in taken_by(query)}
    others = {*ELSEWHERE, *(name.lower() for name in (*datatypes(), *modalities()))}
    found: dict[str, dict[str, Any]] = {}
    for key, entities in content.items():
        if key.lower() not in known:
            if key.lower() not in others:
                near = did_you_mean(key, known)
                raise refuse(f"no modality {key}{near}; there are: {', '.join(sorted(known))}")
            log.info("%s: %s is not for images that the method takes, ignored", path, key)
            continue
        unknown = [name for name in entities if name not in names()]
        if unknown:
            there = ", ".join(sorted(set(names().values())))
            near = _suggested(unknown, names())
            raise refuse(f"{key}: no entity {', '.join(unknown)}{near}; there are: {there}")
        for name, value in entities.items():
            if not _is_wanted(value):
                raise refuse(
                    f"{key}: {name} is {json.dumps(value)}; expected a label, a list of labels, "
                    'null or "*"'
                )
        found[key.lower()] = {names()[name]: value for name, value in entities.items()}
    return found


def queries(request: Request, known: Mapping[str, Iterable[str]]) -> dict[str, Wanted]:
    """Return the entities that an image must have to be taken, for each requested modality.

    Parameters
    ----------
    request : the run
    known : labels of subject, session and run in the dataset, for messages

    Raises
    ------
    Refusal
        If a modality is unknown, or if a flag and the filter file contradict each other.
    """
    method = METHODS[request.method]
    datatypes = list(request.query.datatypes)
    _require_modalities(request.modalities, taken_by(request.query))
    flags = {
        "subject": ("--participant-label", request.participants),
        "session": ("--session-label", request.sessions),
        "run": ("--run-id", request.runs),
    }
    found: dict[str, Wanted] = {}
    for modality in request.modalities:
        own = request.filters.get(modality.lower(), {})
        every = json.loads(QUERIES.read_text(encoding="utf-8"))
        query = {"datatype": datatypes, **every, "extension": list(method.query.endings), **own}
        for entity, (flag, labels) in flags.items():
            if not labels:
                continue
            both = [v for v in labels if entity not in own or matches(entity, v, own[entity])]
            if not both:
                raise Refusal(
                    Status.USAGE,
                    f"{flag} {' '.join(labels)} and {entity} {_words(own[entity])} of the filter "
                    f"file contradict each other for {modality}; "
                    f"there are: {listed(known[entity])}",
                )
            query[entity] = both
        found[modality] = query
    return found


def _require_modalities(asked: Sequence[str], known: Sequence[str]) -> None:
    """Refuse suffixes that the method does not take."""
    unknown = [name for name in asked if name not in known]
    joined = [part for name in unknown for part in name.split(",")]
    if joined != unknown and set(filter(None, joined)) <= set(known):
        raise Refusal(
            Status.USAGE,
            f"no modality {', '.join(unknown)}; expected spaces between them: "
            f"-m {' '.join(filter(None, joined))}",
        )
    if unknown:
        raise Refusal(
            Status.USAGE,
            f"no modality {', '.join(unknown)} that can be corrected"
            f"{_suggested(unknown, known)}; there are: {', '.join(known)}",
        )


def why_not(
    entities: Mapping[str, Any],
    queries: Mapping[str, Wanted],
    query: Query = METHODS["n4"].query,
) -> str | None:
    """Return why an image is left out, or None if it is taken.

    Parameters
    ----------
    entities : pybids' entities of the image
    queries : from `queries`
    query : images that the method takes
    """
    suffix = entities.get("suffix")
    if suffix is None or suffix not in queries:
        if suffix in taken_by(query):
            return f"{suffix} was not asked for; -m {suffix} takes it"
        if suffix in maps_and_masks():
            return f"{suffix} is a map or a mask, which is never corrected"
        if suffix in modalities(query.datatypes):
            return f"{suffix} is not among the images that the method takes"
        return f"{suffix} is not a BIDS suffix of {kind_of(query)} images"
    if entities.get("part") not in MAGNITUDES:
        return f"part is {entities['part']}; only magnitude images are corrected"
    for entity, wanted in queries[suffix].items():
        if not matches(entity, entities.get(entity), wanted):
            value = entities.get(entity) or "none"
            return f"{entity} is {value}; taken are images with {entity} {_words(wanted)}"
    return None


def require_known_labels(request: Request, images: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a run, or a label in the filter file, that no image of the modality has.

    Parameters
    ----------
    request : the run
    images : entities of each image
    """
    asked = [image for image in images if image.get("suffix") in request.modalities]
    require_known("run", request.runs, (image.get("run") for image in asked))
    for modality in request.modalities:
        of_kind = [image for image in asked if image["suffix"] == modality]
        for entity, wanted in request.filters.get(modality.lower(), {}).items():
            labels = [image.get(entity) for image in of_kind]
            if labels and not any(matches(entity, label, wanted) for label in labels):
                raise Refusal(
                    Status.USAGE,
                    f"the filter file wants {modality} images with {entity} {_words(wanted)}; "
                    f"there are: {listed(labels)}",
                )


def require_known(kind: str, labels: Sequence[str], known: Iterable[Any]) -> None:
    """Refuse labels that are not in the dataset, and list those that are.

    "*" is refused too: it is a pattern only in filter files.
    """
    known = set(known) - {None}
    unknown = [
        v for v in labels if v == "*" or not any(matches(kind, there, v) for there in known)
    ]
    joined = [part for label in unknown for part in label.split(",")]
    if joined != unknown and set(filter(None, joined)) <= set(map(str, known)):
        raise Refusal(
            Status.USAGE,
            f"no {kind} {', '.join(unknown)} in the dataset; expected spaces between the labels: "
            f"{' '.join(filter(None, joined))}",
        )
    if unknown:
        raise Refusal(
            Status.USAGE,
            f"no {kind} {', '.join(unknown)} in the dataset{_suggested(unknown, known)}; "
            f"there are: {listed(known)}",
        )


def _suggested(unknown: Sequence[str], known: Iterable[Any]) -> str:
    """Return a suggestion for the first unknown word that resembles a known one, or ""."""
    known = list(known)
    return next(filter(None, (did_you_mean(word, known) for word in unknown)), "")


def listed(labels: Iterable[Any]) -> str:
    """Return labels as a sorted list in words, shortened if it is long."""
    words = sorted({"none" if label is None else str(label) for label in labels})
    more = f" and {len(words) - 50} more" if words[50:] else ""
    return ", ".join(words[:50]) + more or "none"


def _is_wanted(value: Any) -> bool:
    """Return whether a value of a filter file is a label, null, or a list of these."""
    if isinstance(value, list):
        return all(map(_is_wanted, value))
    return value is None or (isinstance(value, str | int) and not isinstance(value, bool))


def _words(wanted: Any) -> str:
    if isinstance(wanted, list | tuple):
        return " or ".join(map(_words, wanted))
    return {None: "none", "*": "any"}.get(wanted, str(wanted))
