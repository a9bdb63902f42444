"""One image after another: through the node, and its files in place."""
