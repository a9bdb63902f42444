"""Images whose outputs would have one name, or names that differ only in case or Unicode form."""

from __future__ import annotations

import pytest

from n4ax_bids.app.request import Request
from n4ax_bids.app.select import dataset, distinct
from n4ax_bids.app.status import Refusal, Status
from tests.app.select.selecting import select


def test_two_images_that_would_share_an_output_are_both_named(make_dataset, tmp_path):
    root = make_dataset("sub-01/anat/sub-01_T1w.nii", "sub-01/anat/sub-01_T1w.nii.gz", empty=True)
    with pytest.raises(Refusal) as caught:
        select(root, tmp_path)
    assert caught.value.status == Status.INVALID_INPUT
    assert "sub-01/anat/sub-01_T1w.nii and sub-01/anat/sub-01_T1w.nii.gz" in str(caught.value)


@pytest.mark.parametrize(
    ("one", "two", "spellings"),
    [
        ("sub-ab/anat/sub-ab_T1w.nii", "sub-AB/anat/sub-AB_T1w.nii", ("sub-ab", "sub-AB")),
        ("sub-ab/anat/sub-ab_T1w.nii", "sub-AB/anat/sub-AB_T2w.nii", ("sub-ab", "sub-AB")),
        (
            "sub-1/anat/sub-1_acq-x_T1w.nii",
            "sub-1/anat/sub-1_acq-X_T1w.nii.gz",
            ("acq-x", "acq-X"),
        ),
        (
            "sub-1/ses-a/anat/sub-1_ses-a_T1w.nii",
            "sub-1/ses-A/anat/sub-1_ses-A_T1w.nii",
            ("ses-",),
        ),
    ],
)
def test_names_that_some_file_systems_take_for_one(make_dataset, tmp_path, one, two, spellings):
    """Here they are two names; on a file system without case their outputs would be the same."""
    request = Request(make_dataset(one, two, empty=True), tmp_path / "out")
    with pytest.raises(Refusal) as caught:
        dataset.select(request)
    text = str(caught.value)
    assert caught.value.status == Status.INVALID_INPUT
    assert "differ only in case" in text and text.endswith("rename one of them")
    assert all(spelling in text for spelling in spellings)


def test_a_participant_alone_whose_name_differs_from_anothers_in_case(make_dataset, tmp_path):
    """The other one may be processed by a later run, or was processed by an earlier one."""
    names = [f"sub-{label}/anat/sub-{label}_T1w.nii" for label in ("ab", "AB", "cd")]
    root = make_dataset(*names, empty=True)
    with pytest.raises(Refusal, match="sub-AB and sub-ab differ only in case"):
        select(root, tmp_path, participants=("ab",))
    assert len(select(root, tmp_path, participants=("cd",)).jobs) == 1


def test_names_in_two_unicode_forms_are_one():
    """An é as one character or as two; and letters that have no equal length in the other case."""
    for one, two in (("sub-\u00e9", "sub-e\u0301"), ("sub-stra\u00dfe", "sub-STRASSE")):
        assert distinct.folded_name(one) == distinct.folded_name(two)
    assert distinct.folded_name("sub-e") != distinct.folded_name("sub-\u00e9")


def test_names_that_differ_in_more_are_two(make_dataset, tmp_path):
    names = [f"sub-{s}/anat/sub-{s}_acq-{a}_T1w.nii" for s in ("a", "b") for a in ("x", "y")]
    request = Request(make_dataset(*names, empty=True), tmp_path / "out")
    assert len(dataset.select(request).jobs) == 4
