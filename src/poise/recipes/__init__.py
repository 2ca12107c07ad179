"""Shipped recipes, as TOML files; `poise recipes` lists them."""
