"""The tricks: one file each, with the formula, then the recipe entry, then the module that acts."""
