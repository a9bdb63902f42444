"""The commands, but for the BIDS-App's."""
