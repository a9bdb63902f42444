"""The BIDS-App: the nodes of `n4ax_bids.interfaces` over a BIDS dataset."""
