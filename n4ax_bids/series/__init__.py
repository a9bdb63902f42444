"""One file with a series of volumes: what `n4ax_bids.realign` is made of."""
