"""Which files of a dataset are corrected, and which others belong to them."""
