"""Makes figures and pages of the images of a run."""
