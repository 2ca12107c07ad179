"""The catalogue of tips: what is known of each, how it is switched on, whether a recipe follows it. No torch.

`catalogue.toml` holds the facts; `parts.json` the fields of every part with their defaults, written by
`python -m poise.tips.record`, as is the page in the docs.
"""
