"""The derivative dataset: its files, and what makes an image finished."""
