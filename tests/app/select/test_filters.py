"""Which image is taken and which is not, and why."""

from __future__ import annotations

import json

import pytest

from n4ax_bids.app.request import Request
from n4ax_bids.app.select import filters
from n4ax_bids.app.status import Refusal, Status

KNOWN = {"subject": ["01"], "session": ["pre", "post"], "run": [1, 2, None]}


def image(suffix="T1w", **entities):
    return {
        "subject": "01",
        "datatype": "anat",
        "extension": ".nii.gz",
        "suffix": suffix,
    } | entities


@pytest.fixture
def request_with(tmp_path):
    return lambda **wanted: Request(tmp_path, tmp_path / "out", **wanted)


@pytest.fixture
def filter_file(tmp_path):
    def write(content):
        path = tmp_path / "filters.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def test_modalities_are_weighted_images_and_never_maps_or_masks():
    known = filters.modalities()
    wanted = {"T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "UNIT1", "MEGRE"}
    assert wanted | {"MESE", "MP2RAGE", "VFA", "IRT1", "MTR", "angio"} <= set(known)
    assert not {"T1map", "R1map", "MTsat", "Chimap", "defacemask"} & set(known)


@pytest.mark.parametrize(
    ("entity", "value", "wanted", "expected"),
    [
        ("acquisition", "a", "a", True),
        ("acquisition", "a", "A", False),
        ("acquisition", None, None, True),
        ("acquisition", "a", None, False),
        ("acquisition", None, "a", False),
        ("acquisition", "a", "*", True),
        ("acquisition", None, "*", False),
        ("part", None, ["mag", None], True),
        ("part", "phase", ["mag", None], False),
        ("acquisition", "01", "1", False),  # a label
        ("run", "01", 1, True),  # an index
        ("run", 1, "01", True),
        ("run", 1, "2", False),
        ("inv", "1", "01", True),
    ],
)
def test_matches(entity, value, wanted, expected):
    assert filters.matches(entity, value, wanted) is expected


@pytest.mark.parametrize(
    ("entities", "why"),
    [
        (image(), None),
        (image(part="mag", run=2, acquisition="x"), None),
        (image("T2w", extension=".nii"), None),
        (image(part="phase"), "part is phase; only magnitude images are corrected"),
        (image(part="imag"), "part is imag; only magnitude images are corrected"),
        (image("FLAIR"), "FLAIR was not asked for; -m FLAIR takes it"),
        (image("T1map"), "T1map is a map or a mask, which is never corrected"),
        (image("photo"), "photo is not a BIDS suffix of anatomical images"),
        (image(desc="x"), "desc is x; taken are images with desc none"),
        (image(space="MNI"), "space is MNI; taken are images with space none"),
        (
            image(extension=".mgz"),
            "extension is .mgz; taken are images with extension .nii or .nii.gz",
        ),
    ],
)
def test_one_reason_for_each_image(request_with, entities, why):
    found = filters.why_not(entities, filters.queries(request_with(), KNOWN))
    assert found == why


def test_phase_is_never_taken_even_by_a_filter(request_with):
    request = request_with(filters={"t1w": {"part": "phase"}})
    found = filters.why_not(image(part="phase"), filters.queries(request, KNOWN))
    assert "only magnitude" in found


def test_unknown_modality_names_those_there_are(request_with):
    for name in ("T1", "T1map", "t1w"):
        with pytest.raises(Refusal, match=f"no modality {name} .*there are: T1w, T2w") as caught:
            filters.queries(request_with(modalities=(name,)), KNOWN)
        assert caught.value.status == Status.USAGE


def test_flags_and_filters_are_both_kept_to(request_with):
    request = request_with(runs=("1", "2"), filters={"t1w": {"run": [2, 3], "acquisition": "*"}})
    queries = filters.queries(request, KNOWN)
    assert filters.why_not(image(run=2, acquisition="a"), queries) is None
    assert "run is 1; taken are images with run 2" in filters.why_not(
        image(run=1, acquisition="a"), queries
    )
    assert "acquisition is none; taken" in filters.why_not(image(run=2), queries)
    assert filters.why_not(image("T2w", run=1), queries) is None  # the filter is for T1w


@pytest.mark.parametrize(
    ("wanted", "own", "words"),
    [
        ({"sessions": ("pre",)}, {"session": "post"}, "--session-label pre and session post"),
        ({"sessions": ("pre",)}, {"session": None}, "--session-label pre and session none"),
        ({"participants": ("01",)}, {"subject": ["02", "03"]}, "--participant-label 01 and sub"),
        ({"runs": ("1",)}, {"run": 2}, "--run-id 1 and run 2"),
    ],
)
def test_flags_and_filters_that_contradict_each_other(request_with, wanted, own, words):
    with pytest.raises(Refusal) as caught:
        filters.queries(request_with(filters={"t1w": own}, **wanted), KNOWN)
    assert caught.value.status == Status.USAGE
    (entity,) = own
    assert words in str(caught.value)
    assert f"there are: {filters.listed(KNOWN[entity])}" in str(caught.value)


def test_labels_that_no_image_has(request_with):
    images = [image(run=1, acquisition="a"), image(acquisition="b"), image("T2w")]
    with pytest.raises(Refusal, match="no run 7 in the dataset; there are: 1$"):
        filters.require_known_labels(request_with(runs=("01", "7")), images)
    request = request_with(filters={"t1w": {"acquisition": ["c", "d"]}})
    with pytest.raises(Refusal, match="acquisition c or d; there are: a, b$"):
        filters.require_known_labels(request, images)
    request = request_with(filters={"t1w": {"acquisition": ["a", "d"]}, "flair": {"run": 9}})
    filters.require_known_labels(request, images)  # a file for many datasets has labels of others


def test_a_filter_file_of_fmriprep_s_form(filter_file):
    path = filter_file(
        {
            "t1w": {"datatype": "anat", "session": "01", "acq": None, "part": ["mag", None]},
            "T2w": {"reconstruction": "*", "rec": "x", "inversion": 1},
            "bold": {"task": "rest"},
            "fmap": {},
        }
    )
    assert filters.read_filters(path) == {
        "t1w": {
            "datatype": "anat",
            "session": "01",
            "acquisition": None,
            "part": ["mag", None],
        },
        "t2w": {"reconstruction": "x", "inv": 1},
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not readable as JSON"),
        ("[]", "expected an object for each modality"),
        ({"t1w": "x"}, "expected an object for each modality"),
        ({"t1": {}}, "no modality t1 (did you mean t1w?); there are: "),
        ({"t1map": {}}, "no modality t1map; there are: "),
        ({"t1w": {"colour": "red"}}, "t1w: no entity colour; there are: acquisition, "),
        ({"t1w": {"acq": {"x": 1}}}, 't1w: acq is {"x": 1}; expected a label, a list of labels'),
        ({"t1w": {"run": [1, True]}}, "t1w: run is [1, true]; expected a label"),
    ],
)
def test_a_filter_file_that_is_none(filter_file, content, words):
    path = filter_file(content)
    with pytest.raises(Refusal) as caught:
        filters.read_filters(path)
    assert caught.value.status == Status.USAGE
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_filter_file_that_is_not_there(tmp_path):
    with pytest.raises(Refusal, match="nothing.json: not readable"):
        filters.read_filters(tmp_path / "nothing.json")


def test_the_query_is_data():
    assert json.loads(filters.QUERIES.read_text())["part"] == ["mag", None]
