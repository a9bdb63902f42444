"""Where `correct` may write: no output takes the place of an input or of another output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from n4ax_bids.commands import ants_cli
from n4ax_bids.correct import correct
from n4ax_bids.image import steps as correct_steps
from n4ax_bids.interfaces import FixN4BiasFieldCorrection, N4BiasFieldCorrection
from tests.image.files import run


def linked(folder, kind):
    """Another path to the image."""
    image, other = folder / "image.nii.gz", folder / "sub" / "other.nii.gz"
    other.parent.mkdir(exist_ok=True)
    if kind == "link":
        other.symlink_to(image)
    elif kind == "link to a link":
        (folder / "sub" / "first.nii.gz").symlink_to("../image.nii.gz")
        other.symlink_to("first.nii.gz")
    elif kind == "hard link":
        os.link(image, other)
    elif kind == "folder link":
        (folder / "there").symlink_to(folder)
        return folder / "there" / "image.nii.gz"
    elif kind == "dots":
        return f"{folder}/./sub/../image.nii.gz"
    elif kind == "relative":
        return "image.nii.gz"
    elif kind == "case":
        return folder / "IMAGE.nii.gz"
    return image if kind == "same" else other


KINDS = (
    *("same", "link", "link to a link", "hard link", "folder link", "dots", "relative", "case"),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output", ["output_image", "bias_image", "lattice_image"])
def test_no_output_replaces_the_image(folder, monkeypatch, kind, output):
    monkeypatch.chdir(folder)
    if kind == "case":  # a disk that knows no case, in the only point that matters here
        kept = os.path.samefile

        def samefile(*paths):
            return kept(*(Path(path).with_name(Path(path).name.lower()) for path in paths))

        monkeypatch.setattr(os.path, "samefile", samefile)
    image = folder / "image.nii.gz"
    before = image.read_bytes()
    place = linked(folder, kind)
    monkeypatch.setattr(correct_steps, "load_image", None)  # it is refused before any work
    for source, target in ((image, place), (place, image)):
        with pytest.raises(ValueError, match="is the input image itself") as raised:
            correct(source, **{"output_image": None, output: target})
        assert str(raised.value).startswith(f"{Path(target).absolute()}: ")
        assert "\n" not in str(raised.value)
    assert image.read_bytes() == before


def test_each_door_refuses_to_replace_the_image(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for output in ("image.nii.gz", "[out.nii,./image.nii.gz]", "[,image.nii.gz]"):
        assert ants_cli.main(["-i", "image.nii.gz", "-o", output]) == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "image.nii.gz: is the input image itself" in error
    for node_class in (N4BiasFieldCorrection, FixN4BiasFieldCorrection):
        for output in ("output_image", "bias_image", "lattice_image"):
            node = node_class(input_image="image.nii.gz", **{output: "image.nii.gz"})
            with pytest.raises(ValueError, match="is the input image itself"):
                node.run(cwd=str(folder))
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_mask_and_weight_are_kept_as_well(folder):
    os.link(folder / "mask1.nii.gz", folder / "linked.nii.gz")
    for kind in ("mask", "weight"):
        for name in ("mask1.nii.gz", "linked.nii.gz"):
            with pytest.raises(ValueError, match=f"is the {kind} itself, which would be"):
                run(folder, bias_image=folder / name, **{f"{kind}_image": folder / "mask1.nii.gz"})


def test_two_outputs_need_two_names(folder, monkeypatch):
    monkeypatch.setattr(correct_steps, "load_image", None)
    (folder / "there").symlink_to(folder)
    for other in ("out.nii", "there/out.nii", "./out.nii", "OUT.nii"):
        for output in ("bias_image", "lattice_image"):
            with pytest.raises(ValueError, match="two outputs have this name"):
                correct(
                    folder / "image.nii.gz", folder / "out.nii", **{output: f"{folder}/{other}"}
                )
    accents = ("cafe\u0301.nii", "caf\u00e9.nii")
    with pytest.raises(ValueError, match="two outputs have this name"):
        correct(folder / "image.nii.gz", folder / accents[0], bias_image=folder / accents[1])


def test_a_name_in_another_case_is_another_file_where_the_disk_says_so(folder):
    if (folder / "IMAGE.nii.gz").exists():
        pytest.skip("the disk knows no case")
    assert run(folder, output_image=folder / "IMAGE.nii.gz").output_image.is_file()


def test_other_links_may_be_replaced(folder):
    """A link to a file that is no input, such as an earlier result, gives way to the new one."""
    (folder / "earlier.nii").write_bytes(b"earlier")
    (folder / "corrected.nii").symlink_to("earlier.nii")
    done = run(folder)
    assert not done.output_image.is_symlink()
    assert (folder / "earlier.nii").read_bytes() == b"earlier"
