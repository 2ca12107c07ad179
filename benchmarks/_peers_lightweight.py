"""lightweight-gan's networks, losses, augmentation and optimisers, for images of 32 x 32 pixels.

Source: lucidrains/lightweight-gan 1.2.1, `lightweight_gan/lightweight_gan.py` and `diff_augment.py`, with the defaults
of its command in `cli.py`; after Liu et al. 2021 (FastGAN). Taken from there:

- Latents of 256 dimensions, up to 512 channels (`fmap_max`), batches of 10 whose gradients are accumulated four times,
  Adam at 2e-4 with betas 0.5 and 0.9, the hinge loss, a penalty of 10 times the squared gradient of D at real and fake
  images in every fourth step, and D's reconstruction of the real images.
- D's second score, of the images at 32 x 32, which pass through two layers of attention; attention at 32 pixels in D's
  trunk (`attn_res_layers`). G has none at this size, and no skip-layer excitation, which begins at 128 pixels.
- Cutout and translation of all images of a batch with a probability that depends on their number, 3e-6 (1e5 - N), at
  most 0.5, and then also a flip, of digits too, as it can't be turned off.
- Images in [0, 1], and samples clamped to it.
- Averaged weights, which are a copy of G from up to a thousand steps before until step 20,000. Up to there samples are
  drawn from G, which is better; both are what the command writes.

At this size D reconstructs images of 128 x 128, to which the real ones are enlarged, as its decoder always has four
blocks. On a CPU most of the time goes into the attention, of which the options turn off only that in the trunk. So
there is a variant, `small_lightweight`, with the options that make a step cheapest: `--fmap-max 64`, no
`--attn-res-layers` and `--gradient-accumulate-every 1`.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, interpolate, mse_loss, normalize, pad, pixel_unshuffle, relu, unfold
from torch.optim import Adam

from _peers import Draw, Facts, count_parameters, in_blocks

LR, BETAS, PENALTY, PENALTY_EVERY = 2e-4, (0.5, 0.9), 10.0, 4
AVERAGE_FROM, AVERAGE_EVERY, AVERAGE_DECAY, COPY_UNTIL, COPY_EVERY = 20_000, 10, 0.995, 25_000, 1000
SLOPE = 0.1


@dataclass(frozen=True)
class Settings:
    """The options of the command, and what it does not let choose.

    Attributes:
        most: the largest number of channels, `--fmap-max`.
        trunk_attention: whether there is attention at 32 pixels, `--attn-res-layers`.
        accumulated: the number of batches in an update, `--gradient-accumulate-every`.
        batch: the batch size.
        latent: the dimensions of a latent.
        narrow: the channels of the second score's layers.
        heads: the heads of each attention.
    """

    most: int = 512
    trunk_attention: bool = True
    accumulated: int = 4
    batch: int = 10
    latent: int = 256
    narrow: int = 64
    heads: int = 8


class PixelShuffleUp(nn.Sequential):
    """Doubles the sides: a 1 x 1 convolution whose channels become pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(channels, 4 * channels, 1), nn.SiLU(), nn.PixelShuffle(2))
        nn.init.zeros_(self[0].bias)


class GatedUp(nn.Module):
    """A block of G: doubles the sides; a 4 x 4 convolution, noise of learned strength, batch norm and a gate."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.up, self.conv = PixelShuffleUp(inputs), nn.Conv2d(inputs, 2 * outputs, 4)
        self.noise, self.norm = nn.Parameter(torch.zeros(1)), nn.BatchNorm2d(2 * outputs)

    def forward(self, maps: Tensor) -> Tensor:
        """B x inputs x H x W to B x outputs x 2H x 2W."""
        out = self.conv(pad(self.up(maps), (2, 1, 2, 1)))
        out = out + self.noise * torch.randn_like(out[:, :1])
        return glu(self.norm(out), 1)


class Generator(nn.Module):
    """G: 4 x 4 maps of unit length at each place, three blocks and a convolution."""

    def __init__(self, channels: int, settings: Settings) -> None:
        super().__init__()
        latent = settings.latent
        self.start = nn.Sequential(nn.ConvTranspose2d(latent, 2 * latent, 4), nn.BatchNorm2d(2 * latent), nn.GLU(dim=1))
        widths = [latent, *(min(settings.most, 2 ** (12 - level)) for level in (2, 3, 4))]
        self.blocks = nn.Sequential(*(GatedUp(*pair) for pair in pairwise(widths)))
        self.end = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Latents, B x dim, to images around [0, 1]."""
        return self.end(self.blocks(normalize(self.start(latents[:, :, None, None]), dim=1)))


class ChannelNorm(nn.Module):
    """Normalises the channels of each place, with a gain and a bias per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """B x C x H x W to the same."""
        variance, mean = torch.var_mean(maps, dim=1, correction=0, keepdim=True)
        return (maps - mean) / (variance + 1e-5).sqrt() * self.gain + self.bias


class Attention(nn.Module):
    """Adds a combination of linear attention over all places and of attention over the 3 x 3 places around each.

    Args:
        channels: those of its input and its output.
        heads: the number of heads.
        head: the dimensions of each.
    """

    def __init__(self, channels: int, heads: int = 8, head: int = 64) -> None:
        super().__init__()
        inner = heads * head
        self.heads, self.head = heads, head
        self.norm = ChannelNorm(channels)
        self.query, self.linear_query = (nn.Conv2d(channels, inner, 1, bias=False) for _ in range(2))
        self.linear_keys_values = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, 2 * inner, 1, bias=False),
        )
        self.keys_values = nn.Conv2d(channels, 2 * inner, 1, bias=False)
        self.out = nn.Conv2d(2 * inner, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """B x C x H x W to the same."""
        normal = self.norm(maps)
        both = torch.cat((nn.functional.gelu(self.linear(normal)), self.local(normal)), 1)
        return self.out(both) + maps

    def linear(self, maps: Tensor) -> Tensor:
        """Attention over all places, whose softmax is separate for queries and keys, B x inner x H x W."""
        keys, values = self.linear_keys_values(maps).chunk(2, 1)
        query, key, value = (self.by_head(part) for part in (self.linear_query(maps), keys, values))
        summary = key.softmax(3) @ value.transpose(2, 3)
        out = (query.softmax(2) * self.head**-0.5).transpose(2, 3) @ summary
        return out.transpose(2, 3).reshape(len(maps), -1, *maps.shape[2:])

    def local(self, maps: Tensor) -> Tensor:
        """Attention over the places around each, with zeros outside the map, B x inner x H x W."""
        query = self.by_head(self.query(maps)) * self.head**-0.5
        key, value = (self.around(part) for part in self.keys_values(maps).chunk(2, 1))
        weights = torch.einsum("bhdn,bhdjn->bhjn", query, key).softmax(2)
        return torch.einsum("bhjn,bhdjn->bhdn", weights, value).reshape(len(maps), -1, *maps.shape[2:])

    def by_head(self, maps: Tensor) -> Tensor:
        """B x inner x H x W to B x heads x head x HW."""
        return maps.reshape(len(maps), self.heads, self.head, -1)

    def around(self, maps: Tensor) -> Tensor:
        """The 9 places around each, B x heads x head x 9 x HW."""
        return unfold(maps, 3, padding=1).reshape(len(maps), self.heads, self.head, 9, -1)


class PixelUnshuffle(nn.Module):
    """Halves the sides: pixels become channels."""

    def forward(self, maps: Tensor) -> Tensor:
        """B x C x H x W to B x 4C x H/2 x W/2."""
        return pixel_unshuffle(maps, 2)


class Down(nn.Module):
    """A block of D: the sum of two ways to halve the sides."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.deep = nn.Sequential(
            PixelUnshuffle(),
            nn.Conv2d(4 * inputs, outputs, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(outputs, outputs, 3, padding=1),
            nn.LeakyReLU(SLOPE),
        )
        self.plain = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1), nn.LeakyReLU(SLOPE))

    def forward(self, maps: Tensor) -> Tensor:
        """B x inputs x H x W to B x outputs x H/2 x W/2."""
        return self.deep(maps) + self.plain(maps)


class Scores(nn.Module):
    """D: two scores of each image, and a reconstruction of it."""

    def __init__(self, channels: int, settings: Settings) -> None:
        super().__init__()
        narrow, heads = settings.narrow, settings.heads
        widths = [channels, min(settings.most, 256), min(settings.most, 512)]
        attention = [Attention(channels, heads)] if settings.trunk_attention else []
        self.trunk = nn.Sequential(*attention, Down(*widths[:2]), Down(*widths[1:]))
        self.score = nn.Sequential(
            nn.Conv2d(widths[-1], widths[-1], 3, 2, 1), nn.LeakyReLU(SLOPE), nn.Conv2d(widths[-1], 1, 4)
        )
        self.second_score = nn.Sequential(
            nn.Conv2d(channels, narrow, 3, padding=1),
            Attention(narrow, heads),
            Down(narrow, narrow // 2),
            Attention(narrow // 2, heads),
            nn.AdaptiveAvgPool2d(4),
            nn.Conv2d(narrow // 2, 1, 4),
        )
        decoder: list[nn.Module] = []
        for block in range(4):
            width = widths[-1] // 2**block
            outputs = 2 * channels if block == 3 else width
            decoder += [PixelShuffleUp(width), nn.Conv2d(width, outputs, 3, padding=1), nn.GLU(dim=1)]
        self.decoder = nn.Sequential(*decoder)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images in [0, 1] to two scores of each, B, and the maps that `reconstruction_error` starts from."""
        maps = self.trunk(images)
        return self.score(maps).flatten(), self.second_score(images).flatten(), maps

    def reconstruction_error(self, maps: Tensor, images: Tensor) -> Tensor:
        """The mean squared difference between images and what the decoder makes of the trunk's maps."""
        decoded = self.decoder(maps)
        return mse_loss(decoded, interpolate(images, size=decoded.shape[2:]))


def initialize(module: nn.Module) -> None:
    """The initial weights of a convolution."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="leaky_relu")


def cutout(images: Tensor) -> Tensor:
    """Images with a black square of half their side at a random place, cut off at the edges."""
    side = images.shape[2]
    size, places = side // 2, torch.arange(side)
    inside = []
    for _ in range(2):
        first = torch.randint(side + 1 - size % 2, (len(images), 1)) - size // 2
        inside.append((places >= first) & (places < first + size))
    return images * ~(inside[0][:, None, :, None] & inside[1][:, None, None, :])


def translate(images: Tensor) -> Tensor:
    """Images shifted by up to an eighth of their side in each direction, with black where nothing is."""
    count, _, side, _ = images.shape
    most = int(side / 8 + 0.5)
    rows, columns = (torch.randint(-most, most + 1, (count, 1)) + torch.arange(side) + most for _ in range(2))
    padded = pad(images, (most,) * 4).permute(0, 2, 3, 1)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def chance(probability: float) -> bool:
    """True with this probability."""
    return float(torch.rand(())) < probability


class LightweightGAN:
    """lightweight-gan's loop; see `System`."""

    ended = False

    def __init__(self, facts: Facts, settings: Settings) -> None:
        self.batch, self.accumulated, self.latent = settings.batch, settings.accumulated, settings.latent
        self.images_per_step = self.batch * self.accumulated
        self.augmented = max(0.0, min(0.5, (1e5 - facts.count) * 3e-6))
        attention = "" if settings.trunk_attention else ", no attention in the trunk"
        self.settings = f"fmap_max {settings.most}{attention}, batch {self.accumulated} x {self.batch}, Adam {LR:g}"
        self.g, self.d = Generator(facts.channels, settings), Scores(facts.channels, settings)
        self.g.apply(initialize)
        self.d.apply(initialize)
        self.average, self.done = deepcopy(self.g).requires_grad_(False), 0
        self.parameters = count_parameters(self.g, self.d)
        self.optimizer_g, self.optimizer_d = (Adam(net.parameters(), lr=LR, betas=BETAS) for net in (self.g, self.d))

    def augment(self, images: Tensor) -> Tensor:
        """The whole batch augmented, or none of it."""
        if not chance(self.augmented):
            return images
        images = images.flip(3) if chance(0.5) else images
        return translate(cutout(images))

    def d_loss(self, images: Tensor, fakes: Tensor, *, penalized: bool) -> Tensor:
        """D's loss of real and fake images in [0, 1]: hinge losses, reconstruction and penalty."""
        images.requires_grad_(penalized)
        fakes = self.augment(fakes).requires_grad_(penalized)
        fake_scores, augmented = self.d(fakes)[:2], self.augment(images)
        *real_scores, maps = self.d(augmented)
        loss = self.d.reconstruction_error(maps, augmented)
        for real, fake in zip(real_scores, fake_scores, strict=True):
            loss = loss + (relu(1 + real) + relu(1 - fake)).mean()
        if penalized:
            gradients = [
                torch.autograd.grad([score.sum() for score in scores], inputs, create_graph=True)[0]
                for scores, inputs in ((real_scores, images), (fake_scores, fakes))
            ]
            loss = loss + PENALTY * torch.cat(gradients).flatten(1).square().sum(1).mean()
        return loss

    def g_loss(self, fakes: Tensor) -> Tensor:
        """G's loss: the mean of both scores, which D makes small for real images."""
        return sum(score.mean() for score in self.d(self.augment(fakes))[:2])

    def fake(self, n: int) -> Tensor:
        """n samples of G, around [0, 1]."""
        return self.g(torch.randn(n, self.latent))

    def step(self, draw: Draw) -> None:
        """See `System.step`; D's weights also get gradients in G's update, which the next step discards."""
        self.optimizer_d.zero_grad()
        for _ in range(self.accumulated):
            with torch.no_grad():
                fakes = self.fake(self.batch)
            images = (draw(self.batch).images + 1) / 2
            loss = self.d_loss(images, fakes, penalized=self.done % PENALTY_EVERY == 0)
            (loss / self.accumulated).backward()
        self.optimizer_d.step()
        self.optimizer_g.zero_grad()
        for _ in range(self.accumulated):
            (self.g_loss(self.fake(self.batch)) / self.accumulated).backward()
        self.optimizer_g.step()
        self.update_average()
        self.done += 1

    @torch.no_grad()
    def update_average(self) -> None:
        """Copy or average G's weights and statistics, see the module."""
        if self.done % AVERAGE_EVERY == 0 and self.done > AVERAGE_FROM:
            pairs = zip(self.average.state_dict().values(), self.g.state_dict().values(), strict=True)
            for mean, value in pairs:
                mean.copy_(mean * AVERAGE_DECAY + (1 - AVERAGE_DECAY) * value)
        if self.done <= COPY_UNTIL and self.done % COPY_EVERY == 2:
            self.average.load_state_dict(self.g.state_dict())

    def sample(self, n: int) -> Tensor:
        """See `System.sample`."""
        net = self.average if self.done > AVERAGE_FROM else self.g
        net.eval()
        samples = in_blocks(lambda size: net(torch.randn(size, self.latent)), n, self.images_per_step)
        net.train()
        return samples.clamp_(0, 1) * 2 - 1


TINY = Settings(most=8, accumulated=1, batch=2, latent=8, narrow=8, heads=1)


def lightweight(facts: Facts, *, tiny: bool) -> LightweightGAN:
    """The defaults of the command at `--image-size 32`."""
    return LightweightGAN(facts, TINY if tiny else Settings())


def small_lightweight(facts: Facts, *, tiny: bool) -> LightweightGAN:
    """The options that make a step cheapest."""
    return LightweightGAN(facts, TINY if tiny else Settings(most=64, trunk_attention=False, accumulated=1))
