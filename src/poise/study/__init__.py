"""Studies: a recipe with and without each tip over paired seeds, and a verdict for each tip (docs/studies.md)."""
