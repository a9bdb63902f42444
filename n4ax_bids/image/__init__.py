"""One image file, from its header to its outputs: what `n4ax_bids.correct` is made of."""
