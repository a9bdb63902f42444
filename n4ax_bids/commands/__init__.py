"""The commands, except those of the BIDS-App."""
