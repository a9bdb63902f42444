"""The BIDS-App: runs the nodes of `n4ax_bids.interfaces` on a BIDS dataset."""
