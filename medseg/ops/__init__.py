"""Pure functions on arrays: no image, no model, no files."""
