"""The ladder (tip T25): autoencoder, VAE, GAN and their hybrid on one decoder, side by side.

`plan` makes the four recipes, `climb` trains them, `look` measures and draws each run into its own folder, `report`
reads these folders and writes a page. Only the last is needed to read a ladder, and it imports no torch.
"""
