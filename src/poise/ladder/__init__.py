"""The ladder (tip T25): an autoencoder, a VAE, a GAN and a VAE-GAN with the same decoder, trained and compared.

`plan` makes the four recipes, `run` trains them, `evaluate` measures each run and draws its image grids, `read` loads
the results and `report` writes a page. The last two need only the run folders and import no torch.
"""
