"""The page of a participant: what is on it, that it needs nothing else, that text stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from n4ax_bids.report import page
from n4ax_bids.report.page import Failure, Image


class Reader(HTMLParser):
    """The elements of a page, their attributes, and the text outside scripts and styles."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.text, self._inside = "", ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data


def figures(stem="x"):
    return {
        label: f"./sub-01/figures/{stem}-{label}" for label in ("before", "after", "field")
    } | {"curves": "./sub-01/figures/c.svg"}


def source_of(images=(), **more) -> str:
    return page.html("sub-01", list(images), generator="us 1", **more)


def write(images=(), **more) -> Reader:
    return Reader(source_of(images, **more))


def test_what_is_on_the_page(make_record, make_sidecar):
    record = make_record("sub-01_T1w", warnings=["look here"], cjv_before=0.55, cjv_after=0.47)
    found = write(
        [Image(record, make_sidecar(EchoTime=0.003, ImageType=["M", "NORM"]), figures())],
        failed=[Failure("sub-01_T2w", "ValueError: broken", "Traceback …")],
        skipped=[("sub-01/anat/sub-01_FLAIR.nii.gz", "not asked for")],
        participant=[("participant_id", "sub-01"), ("age", "44")],
        methods="# Title\n\nImages were\ncorrected.\n\n## References\n\n- One\n- Two\n",
    )
    for words in (
        "look here",
        "0.55",
        "0.47",
        "EchoTime",
        "0.003",
        "M, NORM",
        "ValueError: broken",
        "Traceback …",
        "sub-01_FLAIR.nii.gz",
        "not asked for",
        "age",
        "44",
        "Images were corrected.",
        "References",
        "• Two",
        "shrink_factor",
    ):
        assert words in found.text
    assert "Title" not in found.text
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"] for tag, a in found.elements if tag == "a"]
    assert {target.removeprefix("#") for target in targets if target[0] == "#"} <= set(ids)
    shown = [a["src"] for tag, a in found.elements if tag == "img"]
    assert shown == list(figures().values())


def test_many_images_keep_their_order(make_record, make_sidecar):
    names = [f"sub-01_run-{n}_T1w" for n in range(1, 13)]
    found = write([Image(make_record(n), make_sidecar(), figures(n)) for n in names])
    articles = [a.get("id") for tag, a in found.elements if tag == "article" and a.get("id")]
    assert articles == names


def test_a_participant_without_any_image():
    assert "No image of this participant has been corrected." in write().text


def test_nothing_comes_from_afar(make_record, make_sidecar):
    source = source_of([Image(make_record("sub-01_T1w"), make_sidecar(), figures())])
    assert not re.search(r"(?:src|href)=.?(?:https?:)?//", source)
    assert "url(" not in source and "@import" not in source


def test_text_stays_text(make_record, make_sidecar, evil):
    record = make_record("sub-01_T1w", warnings=[evil])
    record |= {"notes": [evil], "tissues": [evil], "region": evil}
    sidecar = make_sidecar(**{"ProtocolName": evil, evil: evil, "Nested": {"a": [evil]}})
    plain = write([Image(make_record("sub-01_T1w"), make_sidecar(X=1), figures())])
    found = write(
        [Image(record, sidecar, figures())],
        failed=[Failure("sub-01_T2w", evil, evil)],
        skipped=[(evil, evil)],
        participant=[(evil, evil)],
        methods=f"# x\n\n{evil}\n\n- {evil}",
    )
    assert found.text.count("<script>") >= 12
    for tag in ("script", "img"):
        count = sum(each == tag for each, _ in found.elements)
        assert count == sum(each == tag for each, _ in plain.elements)
    assert not any(name.startswith("on") for _, a in found.elements for name in a)


def test_equal_contents_give_equal_pages(make_record, make_sidecar):
    image = Image(make_record("sub-01_T1w"), make_sidecar(), figures())
    assert source_of([image]) == source_of([image])


def test_links_to_neighbours_to_all_images_and_to_files(make_record, make_sidecar):
    files = [("sub-01_desc-biascorr_T1w.nii.gz", "./sub-01/anat/x.nii.gz")]
    image = Image(make_record("sub-01_T1w"), make_sidecar(), figures(), files)
    found = write([image], neighbours=("sub-00", "sub 2"))
    targets = [a["href"] for tag, a in found.elements if tag == "a"]
    for target in ("./sub-00.html", "./group.html", "./sub%202.html", files[0][1]):
        assert target in targets
    ends = [a["href"] for tag, a in write([image]).elements if tag == "a"]
    assert "./group.html" in ends and not any("sub-00" in each for each in ends)


def test_warnings_are_in_the_summary_in_words(make_record, make_sidecar):
    record = make_record("sub-01_T1w", warnings=["The field is odd.", "look here"])
    text = write([Image(record, make_sidecar(), figures())]).text
    assert "The field is odd; look here" in text


def test_the_digest_stands_at_the_top():
    assert "a1b2c3" in source_of(digest="a1b2c3")[:2048]


def test_addresses_are_relative_and_quoted(tmp_path):
    figure = tmp_path / "sub-01" / "figures" / "a b#%.webp"
    assert page.address(figure, tmp_path / "x.html") == "./sub-01/figures/a%20b%23%25.webp"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "yes"),
        (0.5, "0.5"),
        (3, "3"),
        ([1, "a"], "1, a"),
        ({"a": 1}, '{"a": 1}'),
    ],
)
def test_values_in_words(value, text):
    assert page._plain(value) == text


def test_sections_have_their_order_and_empty_ones_are_left_out(make_record, make_sidecar):
    image = Image(make_record("sub-01_T1w"), make_sidecar(), figures())
    failed = [Failure("sub-01_T2w", "ValueError: broken", "Traceback …")]
    for more, names in (
        ({}, ["Summary"]),
        ({"images": [image], "methods": "Text."}, ["Summary", "Images", "Methods"]),
        (
            {"images": [image], "failed": failed, "skipped": [("a.nii", "why")]},
            ["Summary", "Failed", "Images", "Skipped"],
        ),
    ):
        found = write(**more)
        shown = [attributes["id"] for tag, attributes in found.elements if tag == "section"]
        links = [attributes["href"] for tag, attributes in found.elements if tag == "a"]
        assert shown == names
        assert [link for link in links if link[1:] in names] == [f"#{name}" for name in names]
