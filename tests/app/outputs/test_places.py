"""Where a run may write, depending on what is there already."""

from __future__ import annotations

import json

import pytest

from n4ax_bids.app.outputs import derivatives, places
from n4ax_bids.app.request import Request
from n4ax_bids.app.status import Refusal, Status

OTHER = {"GeneratedBy": [{"Name": "fMRIPrep"}]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "dataset_description.json: not readable as JSON"),
        ("[]", "holds another dataset, made by an unknown program"),
        ('{"GeneratedBy": []}', "holds another dataset, made by an unknown program"),
        (json.dumps(OTHER), "holds another dataset, made by fMRIPrep"),
    ],
)
def test_a_folder_that_is_not_ours_is_refused(make_dataset, tmp_path, text, words):
    root, out = make_dataset(), tmp_path / "out"
    out.mkdir()
    places.check_places(Request(root, out))  # nothing is there
    (out / "dataset_description.json").write_text(text)
    with pytest.raises(Refusal) as caught:
        places.check_places(Request(root, out))
    assert caught.value.status == Status.USAGE
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [".bidsignore", "descriptions.tsv", "dataset_description.json"])
def test_a_file_at_the_root_that_is_a_link_to_outside_is_refused(make_dataset, tmp_path, name):
    """A run writes such a file again with the lines that it has read."""
    root, out = make_dataset(), tmp_path / "out"
    out.mkdir()
    text = {"dataset_description.json": '{"GeneratedBy": [{"Name": "n4ax_bids"}]}'}
    (tmp_path / "secret").write_text(text.get(name, "secret\n"))
    (out / name).symlink_to(tmp_path / "secret")
    with pytest.raises(Refusal) as caught:
        places.check_places(Request(root, out))
    assert caught.value.status == Status.USAGE
    assert f"{out / name}: a link that leads out of the output folder" in str(caught.value)
    kept = out / ".git" / "annex" / "objects" / "x"
    kept.parent.mkdir(parents=True)
    (tmp_path / "secret").rename(kept)
    (out / name).unlink()
    (out / name).symlink_to(kept)
    places.check_places(Request(root, out))


def test_our_own_folder_is_taken(make_dataset, tmp_path):
    root, out = make_dataset(), tmp_path / "out"
    out.mkdir()
    ours = {"GeneratedBy": [{"Name": derivatives.NAME}]}
    (out / "dataset_description.json").write_text(json.dumps(ours))
    places.check_places(Request(root, out))
