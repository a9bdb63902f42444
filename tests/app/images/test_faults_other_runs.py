"""Images that another run has too: this run was taken for dead, or the other one was killed."""

from __future__ import annotations

from tests.app.images.twelve_images import TWELVE, images_of, main


def test_a_run_that_was_taken_for_dead_gives_up_its_image(
    fake_node, make_dataset, tmp_path, capsys, monkeypatch
):
    """Another run takes over the image while this run sleeps during its processing."""
    from n4ax_bids import interfaces
    from n4ax_bids.app.images import attempt
    from n4ax_bids.app.machine import claims, presence

    root, out = make_dataset(TWELVE[0]), tmp_path / "out"
    run = interfaces.BiasFieldCorrection.run
    with presence.at_work(out) as (other, _):
        taken = []

        def asleep(node, cwd):
            with monkeypatch.context() as dead:
                dead.setattr(presence.Presence, "lives", lambda *_: False)
                claim = claims.claimed(out / attempt.CLAIMS, TWELVE[0], other)
                taken.append((claim, claim.__enter__()))
            return run(node, cwd)

        monkeypatch.setattr(interfaces.BiasFieldCorrection, "run", asleep)
        assert main(root, out) == 0
        assert "0 of 1 images corrected, 0 failed, 1 left to other runs" in capsys.readouterr().err
        assert images_of(out) == {}
        ((claim, held),) = taken
        assert held.holds()
        claim.__exit__(None, None, None)
    monkeypatch.setattr(interfaces.BiasFieldCorrection, "run", run)
    assert main(root, out) == 0
    assert images_of(out) == {"sub-01": 6}


def test_what_another_run_has_is_looked_at_again_at_the_end(
    fake_node, make_dataset, tmp_path, capsys, monkeypatch
):
    """The other run holds the first image and ends without correcting it."""
    from n4ax_bids import interfaces
    from n4ax_bids.app.images import attempt
    from n4ax_bids.app.machine import claims, presence

    root, out = make_dataset(*TWELVE[:2]), tmp_path / "out"
    run, there = interfaces.BiasFieldCorrection.run, presence.at_work(out)
    other, _ = there.__enter__()
    claim = claims.claimed(out / attempt.CLAIMS, TWELVE[0], other)
    claim.__enter__()

    def meanwhile(node, cwd):
        there.__exit__(None, None, None)  # its folder goes, its claim stays: it was killed
        monkeypatch.setattr(interfaces.BiasFieldCorrection, "run", run)
        return run(node, cwd)

    monkeypatch.setattr(interfaces.BiasFieldCorrection, "run", meanwhile)
    assert main(root, out, "--nprocs", "1") == 0
    text = capsys.readouterr().err
    assert text.index("sub-02_T1w: corrected") < text.index("sub-01_T1w: corrected")
    assert images_of(out) == {"sub-01": 6, "sub-02": 6}
    assert list((out / attempt.CLAIMS).iterdir()) == []
