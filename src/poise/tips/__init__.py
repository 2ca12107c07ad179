"""The catalogue of tips: the evidence for each, how to enable it, and whether a recipe follows it. No torch.

`catalogue.toml` holds what the sources say, and `verdicts.json` what was measured here, written by
`python -m poise.study.publish`. `parts.json` lists the fields of all components with their defaults;
`python -m poise.tips.record` writes it and the page in the documentation.
"""
