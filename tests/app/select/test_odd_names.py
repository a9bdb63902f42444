"""Names as long as a file system takes, or a little less or more; names like templates."""

from __future__ import annotations

import os

import pytest

from n4ax_bids.app import cli
from n4ax_bids.app.machine import claims, presence
from n4ax_bids.app.outputs import derivatives

TAIL = "_desc-biaslattice_T1w.nii.gz"
LAST_THAT_FITS = 255 - len("_desc-biaslattice")


def long_name(subject: str, n_bytes: int, character: str = "a") -> str:
    """The name of an image of so many bytes."""
    start, end = f"sub-{subject}_acq-", "_T1w.nii.gz"
    n, rest = divmod(n_bytes - len(start + end), len(character.encode()))
    name = start + "b" * rest + character * n + end
    assert len(name.encode()) == n_bytes
    return f"sub-{subject}/anat/{name}"


def run(raw, out, *words):
    flags = ("participant", "--skip-bids-validation", "--device", "cpu", "--n-iterations", "1")
    return cli.main([str(raw), str(out), *flags, *words])


def files_of(out, subject):
    return sorted(path.name for path in (out / subject / "anat").glob("*"))


@pytest.mark.parametrize("words", [(), ("--no-reports",)])
def test_long_names(make_dataset, tmp_path, capsys, words):
    lengths = {"01": 200, "02": 225, "03": 236, "04": LAST_THAT_FITS}
    too_long = {"05": LAST_THAT_FITS + 1, "06": 245, "07": 250, "08": 255}
    names = [long_name(*each) for each in (lengths | too_long).items()]
    raw, out = make_dataset(*names), tmp_path / "out"
    assert run(raw, out, *words) == 1
    printed = capsys.readouterr().err
    for subject in lengths:
        found = files_of(out, f"sub-{subject}")
        assert len(found) == 6 and max(map(len, found)) <= 255
        assert not any(name.startswith(".") for name in found)
    errors = [line for line in printed.splitlines() if " ERROR " in line]
    assert len(errors) == len(too_long)
    for subject, n_bytes in too_long.items():
        assert files_of(out, f"sub-{subject}") == []
        (error,) = (text for text in errors if f"sub-{subject}_" in text)
        assert long_name(subject, n_bytes) in error
        assert f"would have a name of {n_bytes + 17} bytes" in error and "takes 255" in error
        (crash,) = (out / "logs").glob(f"crash-sub-{subject}_*.txt")
        assert f"name of {n_bytes + 17} bytes" in crash.read_text()
    assert "internal error" not in printed and "Errno 36" not in printed
    if not words:
        page = (out / "sub-08.html").read_text()
        assert "would have a name of 272 bytes" in page
    # Once more: what is finished stays, what fails fails in the same way.
    assert run(raw, out, *words) == 1
    again = capsys.readouterr().err
    assert again.count(" ERROR ") == len(too_long) and "Errno 36" not in again
    assert run(raw, out, "--reports-only") == 1
    assert run(raw, out, "--dry-run") == 0
    assert capsys.readouterr().out.count("would have a name of") == len(too_long)


def test_a_long_label_of_the_corrected_image(make_dataset, tmp_path, capsys):
    raw = make_dataset(long_name("01", 200))
    assert run(raw, tmp_path / "out", "--desc", "x" * 60) == 1
    assert f"a name of {200 + len('_desc-') + 60} bytes" in capsys.readouterr().err


def test_names_of_several_bytes_a_character(make_dataset, tmp_path):
    """BIDS has no such labels; Python's and the file system's count differ on them."""
    raw = make_dataset(long_name("01", LAST_THAT_FITS, "\u00e9"), long_name("02", 225, "\u65e5"))
    status = run(raw, tmp_path / "out", "--no-reports")
    assert status == 0
    assert len(files_of(tmp_path / "out", "sub-01")) == 6


@pytest.mark.parametrize("character", ["a", "\u00e9", "\u65e5"])
@pytest.mark.parametrize("n_bytes", [20, 100, 210, 225, 236, 245, 255])
def test_a_hidden_name_is_no_longer_and_the_clean_up_knows_it(tmp_path, n_bytes, character):
    name = long_name("01", max(n_bytes, 30), character).rpartition("/")[2]
    hidden = presence.hidden(tmp_path / name)
    assert len(os.fsencode(hidden.name)) <= max(len(os.fsencode(name)), 120)
    assert presence._HIDDEN.fullmatch(hidden.name)
    assert presence.TOKEN.fullmatch(hidden.name.rpartition(".")[2])
    hidden.touch()
    final = tmp_path / name
    derivatives.publish([(hidden, final)])
    derivatives.write_text(final, "text")
    assert os.listdir(tmp_path) == [name]


def test_hidden_files_of_long_names_go_with_the_killed_run(tmp_path, monkeypatch):
    with presence.at_work(tmp_path / "out") as (here, _):
        name = long_name("01", 255).rpartition("/")[2]
        monkeypatch.setattr(presence.expiry, "start_of", lambda pid: 1)
        hidden = presence.hidden(tmp_path / "out" / name)
        folder = here.folder.with_name(presence.PREFIX + hidden.name.rpartition(".")[2])
        monkeypatch.undo()  # the process of that number has started at another time
        folder.mkdir()
        hidden.touch()
        presence.remove_leftovers(tmp_path / "out", here.folder)
        assert not hidden.exists() and not folder.exists()


def test_claims_on_long_names_are_apart(tmp_path):
    with presence.at_work(tmp_path / "out") as (here, _):
        one, other = (long_name("01", n) for n in (254, 255))
        with claims.claimed(tmp_path / "claims", one, here) as first:
            with claims.claimed(tmp_path / "claims", other, here) as second:
                assert first.holds() and second.holds() and first.path != second.path
        assert claims.key("sub-01/anat/sub-01_T1w.nii.gz").startswith("sub-01_T1w-")


@pytest.mark.parametrize("name", ["100%s", "%(prog)s %d {0} {x} ${HOME}", "[a]*?^|+(", "%%"])
@pytest.mark.parametrize("plugin", [False, True])
def test_a_path_is_no_template(make_dataset, tmp_path, capsys, monkeypatch, name, plugin):
    """Every folder that a run touches has a name that formatting would change or choke on."""
    place = tmp_path / name
    place.mkdir()
    make_dataset("sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz")
    raw, out = (tmp_path / "raw").rename(place / "raw"), place / "out"
    (raw / "sub-02" / "anat" / "sub-02_T1w.nii.gz").write_bytes(b"no image")
    words = ["--work-dir", str(place / "work")]
    if plugin:
        (place / "engine.yml").write_text("plugin: Linear")
        words += ["--use-plugin", str(place / "engine.yml"), "--no-reports"]
    monkeypatch.chdir(place)
    assert run(raw, out, *words) == 1
    printed = "".join(capsys.readouterr())
    assert f"{raw}/sub-02/anat/sub-02_T1w.nii.gz: not a NIfTI file" in printed
    assert len(files_of(out, "sub-01")) == 6 and files_of(out, "sub-02") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert run(raw, out, "--dry-run") == 0
    assert run(raw, out, "--participant-label", name) == 2  # a label that is not there
    assert f"{name}" in capsys.readouterr().err
