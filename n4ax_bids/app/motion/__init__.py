"""Realignment of series in the BIDS-App: which volumes, the names, the sidecars, the report."""
