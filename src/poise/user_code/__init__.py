"""Own parts: a generator, a discriminator, an objective or a trick from a Python file of the user's.

    [network.g]
    kind = "python"
    file = "mine.py"            # seen from where the command runs
    name = "Sketcher"           # called with latent, shape and the options
    options = { width = 32 }

Such a file is code, and a recipe may come from anybody: nothing of it runs before `allow` was told that it may
(`--trust-code`, `trust_code=True`). What is read of a recipe without that is text.
"""
