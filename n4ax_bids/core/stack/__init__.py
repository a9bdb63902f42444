"""Serial-section stacks: planes in order, in sections that were imaged one after another."""
