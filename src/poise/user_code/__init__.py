"""Custom components: a generator, discriminator, objective or trick from a Python file of the user.

    [network.g]
    kind = "python"
    file = "mine.py"            # relative to the working directory of the command
    name = "Sketcher"           # constructed with latent, shape and the options
    options = { width = 32 }

Such a file is code, and a recipe may come from anyone: nothing of it is executed until the user allows it with
`--trust-code` (`trust_code=True`). Without that, a recipe is only read as text.
"""
