"""Only one run at a time has an image."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import ExitStack

import pytest

from n4ax_bids.app.machine import claims, presence
from n4ax_bids.app.machine.claims import Taken, claimed, holder

NAME = "sub-01/anat/sub-01_T1w.nii.gz"


@pytest.fixture
def runs(tmp_path):
    """Two runs on one output folder, and their claims."""
    with presence.at_work(tmp_path) as (one, _), presence.at_work(tmp_path) as (two, _):
        yield one, two, tmp_path / "logs" / "claims"


@pytest.fixture(params=["links", "files"])
def kind(request, monkeypatch):
    """Some file systems have no symbolic links."""
    if request.param == "files":

        def refused(*_):
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "symlink", refused)


@pytest.mark.usefixtures("kind")
def test_one_at_a_time_and_then_the_other(runs):
    one, two, folder = runs
    with claimed(folder, NAME, one) as claim:
        assert claim.holds()
        assert holder(folder, NAME, two) == one.token
        with pytest.raises(Taken), claimed(folder, NAME, two):
            pass
        assert claim.holds()
        with claimed(folder, NAME.replace("01", "02"), two):  # another image
            pass
    assert holder(folder, NAME, two) is None
    with claimed(folder, NAME, two) as claim:
        assert claim.holds()
    assert list(folder.iterdir()) == []


def test_images_of_the_same_name_in_two_folders(runs):
    one, _, folder = runs
    with claimed(folder, "a/x.nii", one), claimed(folder, "b/x.nii", one):
        assert len(list(folder.iterdir())) == 2


@pytest.mark.usefixtures("kind")
def test_the_claim_of_a_run_that_has_ended_is_taken_over(runs, tmp_path):
    one, two, folder = runs
    with presence.at_work(tmp_path) as (third, _):
        stack = ExitStack()
        stack.enter_context(claimed(folder, NAME, third))
        with pytest.raises(Taken), claimed(folder, NAME, one):
            pass
    # The third has gone without giving back its claim.
    assert holder(folder, NAME, one) is None
    with claimed(folder, NAME, one) as claim:
        assert claim.holds()
        with pytest.raises(Taken), claimed(folder, NAME, two):
            pass
        assert claim.holds()
        stack.close()  # it wakes up, and must not take the other's claim along
        assert claim.holds()
    assert list(folder.iterdir()) == []


def test_who_was_taken_for_dead_notices(runs, monkeypatch):
    one, two, folder = runs
    with claimed(folder, NAME, one) as claim:
        with monkeypatch.context() as asleep:
            asleep.setattr(presence.Presence, "lives", lambda *_: False)
            stack = ExitStack()
            other = stack.enter_context(claimed(folder, NAME, two))
        assert other.holds() and not claim.holds()
    # The first one's number is free now, the second one's is not.
    with pytest.raises(Taken), claimed(folder, NAME, one):
        pass
    assert other.holds()
    stack.close()
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("kind")
def test_many_at_once(runs, tmp_path):
    """Many threads want one image: one has it at a time, even after a run was killed."""
    one, _, folder = runs
    with presence.at_work(tmp_path) as (dead, _):
        stale = ExitStack()
        stale.enter_context(claimed(folder, NAME, dead))
    inside, had, wrong = [], [], []
    start = threading.Barrier(8)

    def work():
        with presence.at_work(tmp_path) as (here, _):
            start.wait()
            for _ in range(50):
                try:
                    with claimed(folder, NAME, here) as claim:
                        inside.append(here.token)
                        if len(inside) > 1 and claim.holds():
                            wrong.append(list(inside))
                        had.append(here.token)
                        inside.remove(here.token)
                except Taken:
                    pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert had and not wrong


def test_a_file_whose_maker_was_killed_before_it_wrote(runs):
    one, _, folder = runs
    folder.mkdir(parents=True)
    empty = folder / f"{claims.key(NAME)}.0"
    empty.touch()
    with pytest.raises(Taken), claimed(folder, NAME, one):
        pass
    os.utime(empty, (0, 0))
    with claimed(folder, NAME, one) as claim:
        assert claim.holds()
    assert list(folder.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_error(runs):
    one, _, folder = runs
    folder.parent.mkdir(parents=True)
    folder.touch()
    with pytest.raises(OSError), claimed(folder, NAME, one):
        pass


def test_names_are_kept_short_and_apart():
    assert claims.key(NAME).startswith("sub-01_T1w-")
    assert claims.key(NAME) != claims.key(NAME.replace("anat", "x"))


def spoil_nothing(path):
    path.touch()


def spoil_text(path):
    path.write_bytes(b"\xff\xfe../../x\x00")


def spoil_link(path):
    path.symlink_to("/etc/passwd")


def spoil_token(path):
    path.symlink_to("00000000-1-1-00000000/../x")


def spoil_folder(path):
    path.mkdir()


def spoil_pipe(path):
    os.mkfifo(path)


SPOILT = [spoil_nothing, spoil_text, spoil_link, spoil_token, spoil_folder, spoil_pipe]


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_is_no_claim_holds_an_image_for_the_time_of_silence_alone(runs, spoil):
    one, two, folder = runs
    folder.mkdir(parents=True)
    place = folder / f"{claims.key(NAME)}.0"
    spoil(place)
    assert holder(folder, NAME, one) is not None
    with pytest.raises(Taken), claimed(folder, NAME, one):
        pass
    os.utime(place, (0, 0), follow_symlinks=False)
    assert holder(folder, NAME, one) is None
    with claimed(folder, NAME, one) as claim:
        assert claim.holds()
        with pytest.raises(Taken), claimed(folder, NAME, two):
            pass
    with claimed(folder, NAME, two) as claim:
        assert claim.holds()


@pytest.mark.parametrize("spoil", SPOILT)
def test_what_is_no_claim_and_comes_from_the_future(runs, spoil):
    one, _, folder = runs
    folder.mkdir(parents=True)
    place = folder / f"{claims.key(NAME)}.0"
    spoil(place)
    os.utime(place, (2**33, 2**33), follow_symlinks=False)
    assert holder(folder, NAME, one) is not None  # and from now on its age counts
    now = one.folder.stat().st_mtime
    assert place.lstat().st_mtime <= now + 1
    os.utime(place, (now - 400, now - 400), follow_symlinks=False)
    assert holder(folder, NAME, one) is None


@pytest.mark.parametrize("number", ["007", "00", "9" * 20, "1" * 180, "-1", "²"])
def test_what_has_no_number_of_ours_is_no_claim(runs, number):
    """The next number could be too long for a file name, and 007 is not the name of claim 7."""
    one, _, folder = runs
    folder.mkdir(parents=True)
    strange = folder / f"{claims.key(NAME)}.{number}"
    strange.symlink_to("00000000-1-1-00000000")
    assert holder(folder, NAME, one) is None
    with claimed(folder, NAME, one) as claim:
        assert claim.holds() and claim.number == 0
    assert strange.is_symlink()


@pytest.mark.parametrize("token", ["{m}-{long}-5-00000000", "{m}-5-{long}-00000000"])
@pytest.mark.parametrize("length", [40, 230, 3000])
@pytest.mark.parametrize("own", [True, False])
def test_a_claim_with_endless_numbers_is_of_no_run(runs, token, length, own):
    """No run has such a token, and a folder with this name could not even be looked up."""
    one, _, folder = runs
    folder.mkdir(parents=True)
    machine = one.token.partition("-")[0] if own else "01234567"
    place = folder / f"{claims.key(NAME)}.0"
    place.symlink_to(token.format(m=machine, long="9" * length))
    os.utime(place, (0, 0), follow_symlinks=False)
    with claimed(folder, NAME, one) as claim:
        assert claim.holds() and claim.number == 1


def test_a_claim_that_comes_and_goes_ends_in_words(runs, monkeypatch):
    one, _, folder = runs
    monkeypatch.setattr(claims, "_read", lambda *_: None)
    with pytest.raises(OSError, match="comes and goes"), claimed(folder, NAME, one):
        pass


def test_a_run_does_not_spin_while_an_empty_claim_stands(
    fake_node, make_dataset, tmp_path, monkeypatch
):
    from n4ax_bids.app import cli
    from n4ax_bids.app.images import attempt

    root, out = make_dataset(NAME), tmp_path / "out"
    folder, looks = out / attempt.CLAIMS, []
    folder.mkdir(parents=True)
    (folder / f"{claims.key(NAME)}.0").touch()
    once = attempt.attempt
    monkeypatch.setattr(attempt, "attempt", lambda *a, **k: looks.append(1) or once(*a, **k))
    words = [str(root), str(out), "participant", "--no-reports", "--nprocs", "1"]
    assert cli.main(words) == 0
    assert len(looks) == 1
