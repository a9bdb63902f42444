"""Zero-shot correction: a small network that is fitted to the one image at hand."""
