"""Which image is taken and which is not, and why: modalities, labels, the filter file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from n4ax_bids.app.command.words import did_you_mean
from n4ax_bids.app.request import Request
from n4ax_bids.app.status import Refusal, Status
from n4ax_bids.arguments import same_number
from n4ax_bids.io.text import read_json

log = logging.getLogger("n4ax_bids")

QUERIES = Path(__file__).parents[2] / "data" / "queries.json"
"""entities of an image that is taken; null means that the entity is absent"""
WEIGHTED_MAPS = ("UNIT1",)
"""of the schema's parametric images, those whose contrast is that of a weighted image"""
MAGNITUDES = (None, "mag")
ELSEWHERE = ("bold", "sbref", "fmap", "roi", "asl", "pet")
"""keys of a NiPreps filter file that are not for anatomical images"""

Query = Mapping[str, Any]


@cache
def modalities() -> tuple[str, ...]:
    """Return the suffixes of anatomical images that can be corrected, as BIDS has them."""
    rules = _schema().rules.files.raw.anat
    known = [suffix for rule in rules.values() for suffix in rule.suffixes]
    return tuple(suffix for suffix in known if suffix not in _maps_and_masks())


@cache
def datatypes() -> frozenset[str]:
    """Return the names of folders of a kind of data, as BIDS has them: anat, func, dwi, …"""
    return frozenset(_schema().objects.datatypes)


@cache
def _maps_and_masks() -> frozenset[str]:
    rules = _schema().rules.files.raw.anat
    return frozenset([*rules.parametric.suffixes, *rules.defacemask.suffixes]) - set(WEIGHTED_MAPS)


@cache
def _schema() -> Any:
    from bidsschematools.schema import load_schema

    return load_schema()


@cache
def _names() -> Mapping[str, str]:
    """Return pybids' name of each entity by all the names that it has."""
    from bids.layout import Config

    known = {name for config in ("bids", "derivatives") for name in Config.load(config).entities}
    names = {name: name for name in known}
    for long, entity in _schema().objects.entities.items():
        theirs = next((name for name in (long, entity.name) if name in known), None)
        if theirs:
            names |= {long: theirs, entity.name: theirs}
    return names


@cache
def numbered_keys() -> frozenset[str]:
    """Return the keys of names whose labels are numbers: run-1 and run-01 are the same run."""
    entities = _schema().objects.entities.values()
    return frozenset(entity.name for entity in entities if entity.format == "index")


@cache
def _numbered() -> frozenset[str]:
    """Return pybids' names of these entities."""
    return frozenset(_names()[key] for key in numbered_keys() if key in _names())


def matches(entity: str, value: Any, wanted: Any) -> bool:
    """Tell whether an entity's label is wanted: null for none, "*" for any, a list for either."""
    if isinstance(wanted, list | tuple):
        return any(matches(entity, value, each) for each in wanted)
    if wanted is None or value is None:
        return wanted is value
    one, other = str(value), str(wanted)
    if entity in _numbered() and same_number(one, other):
        return True
    return other in ("*", one)


def read_filters(path: Path) -> dict[str, dict[str, Any]]:
    """Read a filter file in fMRIPrep's form: for each modality, entities and their labels.

    Raises
    ------
    Refusal
        If it is not of that form, or names what is unknown; one line that names what is known.
    """

    def refuse(why: str) -> Refusal:
        return Refusal(Status.USAGE, f"{path}: {why}")

    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise Refusal(Status.USAGE, str(error)) from error
    if not (isinstance(content, dict) and all(isinstance(v, dict) for v in content.values())):
        raise refuse('expected an object for each modality, as {"t1w": {"session": "01"}}')
    known = {suffix.lower(): suffix for suffix in modalities()}
    others = {*ELSEWHERE, *(name.lower() for name in _schema().objects.datatypes)}
    found: dict[str, dict[str, Any]] = {}
    for key, entities in content.items():
        if key.lower() not in known:
            if key.lower() not in others:
                near = did_you_mean(key, known)
                raise refuse(f"no modality {key}{near}; there are: {', '.join(sorted(known))}")
            log.info("%s: %s is not for anatomical images, passed over", path, key)
            continue
        unknown = [name for name in entities if name not in _names()]
        if unknown:
            there = ", ".join(sorted(set(_names().values())))
            near = _suggested(unknown, _names())
            raise refuse(f"{key}: no entity {', '.join(unknown)}{near}; there are: {there}")
        for name, value in entities.items():
            if not _is_wanted(value):
                raise refuse(
                    f"{key}: {name} is {json.dumps(value)}; expected a label, a list of labels, "
                    'null or "*"'
                )
        found[key.lower()] = {_names()[name]: value for name, value in entities.items()}
    return found


def queries(request: Request, known: Mapping[str, Iterable[str]]) -> dict[str, Query]:
    """Return for each modality that was asked for the entities of an image that is taken.

    Parameters
    ----------
    request : the run
    known : labels in the dataset of subject, session and run, for messages

    Raises
    ------
    Refusal
        If a modality is unknown, or flags and filter file leave nothing between them.
    """
    unknown = [name for name in request.modalities if name not in modalities()]
    joined = [part for name in unknown for part in name.split(",")]
    if joined != unknown and set(filter(None, joined)) <= set(modalities()):
        raise Refusal(
            Status.USAGE,
            f"no modality {', '.join(unknown)}; expected spaces between them: "
            f"-m {' '.join(filter(None, joined))}",
        )
    if unknown:
        raise Refusal(
            Status.USAGE,
            f"no modality {', '.join(unknown)} that can be corrected"
            f"{_suggested(unknown, modalities())}; there are: {', '.join(modalities())}",
        )
    flags = {
        "subject": ("--participant-label", request.participants),
        "session": ("--session-label", request.sessions),
        "run": ("--run-id", request.runs),
    }
    found = {}
    for modality in request.modalities:
        own = request.filters.get(modality.lower(), {})
        query = json.loads(QUERIES.read_text(encoding="utf-8")) | own
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


def why_not(entities: Mapping[str, Any], queries: Mapping[str, Query]) -> str | None:
    """Return why an image is left out; None where it is taken."""
    suffix = entities.get("suffix")
    if suffix is None or suffix not in queries:
        if suffix in modalities():
            return f"{suffix} was not asked for; -m {suffix} takes it"
        if suffix in _maps_and_masks():
            return f"{suffix} is a map or a mask, which is never corrected"
        return f"{suffix} is no suffix of an anatomical image in BIDS"
    if entities.get("part") not in MAGNITUDES:
        return f"part is {entities['part']}; only magnitude images are corrected"
    for entity, wanted in queries[suffix].items():
        if not matches(entity, entities.get(entity), wanted):
            value = entities.get(entity) or "none"
            return f"{entity} is {value}; taken are images with {entity} {_words(wanted)}"
    return None


def require_known_labels(request: Request, images: Sequence[Mapping[str, Any]]) -> None:
    """Refuse runs and labels of the filter file that no image of the modality has.

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
    """Refuse labels that are not in the dataset; name those that are.

    A label of the command line is no pattern: "*" is for filter files.
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
    """Return the first word near one that is unknown, as a question, or nothing."""
    known = list(known)
    return next(filter(None, (did_you_mean(word, known) for word in unknown)), "")


def listed(labels: Iterable[Any]) -> str:
    """Return labels in order, as words."""
    words = sorted({"none" if label is None else str(label) for label in labels})
    more = f" and {len(words) - 50} more" if words[50:] else ""
    return ", ".join(words[:50]) + more or "none"


def _is_wanted(value: Any) -> bool:
    """Tell whether a value can be looked for: a label, null, or a list of such."""
    if isinstance(value, list):
        return all(map(_is_wanted, value))
    return value is None or (isinstance(value, str | int) and not isinstance(value, bool))


def _words(wanted: Any) -> str:
    if isinstance(wanted, list | tuple):
        return " or ".join(map(_words, wanted))
    return {None: "none", "*": "any"}.get(wanted, str(wanted))
