"""`benchmarks/parity.py`: its arguments, which tensors correspond, and that a difference is found.

The authors' code is not at hand in the tests. With POISE_STYLEGAN2 or POISE_BIGGAN set to a checkout,
`test_benchmarks.py` runs the comparison itself. Here the authors' networks are stood for by a table of their tensors,
and by small modules in a folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    import _parity_authors
    import _parity_biggan
    import _parity_pairs
    import _parity_stylegan2
    import parity
finally:
    sys.path.remove(str(BENCHMARKS))

CASES = [(family, size) for family in (_parity_stylegan2, _parity_biggan) for size in family.SIZES]
IDS = [f"{family.__name__.removeprefix('_parity_')}-{size.side}" for family, size in CASES]


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(("family", "size"), CASES, ids=IDS)
def test_every_tensor_corresponds_to_one_of_equal_shape(family: Any, size: Any) -> None:
    redundant = family.redundant_biases(size).keys() if family is _parity_biggan else set()
    modules = family.generator_modules(size), family.discriminator_modules(size)
    tables = family.generator_shapes(size), family.discriminator_shapes(size)
    networks = family.our_networks(size)
    for net, mapping, shapes, only_theirs in zip(networks, modules, tables, (redundant, set()), strict=True):
        state = net.state_dict()
        names = _parity_pairs.counterparts(state, mapping)
        assert dict(net.named_parameters()).keys() <= names.keys()
        assert all(name.endswith(_parity_pairs.ONLY_OURS) for name in state.keys() - names.keys())
        assert len(set(names.values())) == len(names)
        assert shapes.keys() - set(names.values()) == only_theirs
        expected = {other: squeezed(shapes[other]) for other in names.values()}
        assert {other: squeezed(tuple(state[name].shape)) for name, other in names.items()} == expected


@pytest.mark.parametrize("size", _parity_biggan.SIZES, ids=lambda size: size.side)
def test_a_bias_without_effect_is_a_part_of_the_mean_after_it(size: Any) -> None:
    shapes = _parity_biggan.generator_shapes(size)
    biases = _parity_biggan.redundant_biases(size)
    assert len(biases) == len(size.g_channels) - 1
    assert all(shapes[bias] == shapes[mean] for bias, mean in biases.items())


def test_a_tensor_without_counterpart_is_an_error() -> None:
    names = _parity_pairs.counterparts(
        ["a.weight", "a.b.weight", "a.c", "a.num_batches_tracked"], {"a": "x", "a.b": "y"}
    )
    assert names == {"a.weight": "x.weight", "a.b.weight": "y.weight", "a.c": "x.c"}
    with pytest.raises(LookupError, match=r"ab\.weight"):
        _parity_pairs.counterparts(["ab.weight"], {"a": "x"})


# ---------------------------------------------------------------- pairs


def test_a_pair_has_equal_states_and_unequal_networks_are_found() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.ReLU(), nn.Linear(3, 2))
    pair = _parity_pairs.pair(ours, theirs, {"0": "1"}, {"1.weight": (2, 3), "1.bias": (2,)})
    assert torch.equal(ours[0].weight, theirs[1].weight)
    assert ours[0].bias.abs().min() > 0
    x = torch.rand(4, 3)
    assert _parity_pairs.compare("", [ours(x)], [theirs(x)]).difference == 0
    assert pair.gradients("", ours(x).sum(), theirs(x).sum()).agrees(1e-6)
    assert not pair.gradients("", ours(-x).sum(), theirs(-x).sum()).agrees(0.1)


def test_another_checkout_is_refused() -> None:
    ours, theirs = nn.Sequential(nn.Linear(3, 2)), nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(_parity_pairs.UnknownCheckoutError, match=r"0\.bias, 0\.weight"):
        _parity_pairs.pair(ours, theirs, {"0": "0"}, {"0.weight": (2, 3), "0.bias": (2,)})


def test_singular_vectors_are_exact() -> None:
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 4))
    _parity_pairs.randomise_(nn.Sequential(layer))
    before = layer.weight.detach().clone()  # in training mode with a power iteration
    assert torch.linalg.matrix_norm(before, 2).item() == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(layer.weight, before)


@pytest.mark.parametrize(
    ("difference", "largest", "expected"),
    [(0.09, 1.0, True), (0.11, 1.0, False), (0.0, 0.0, False), (float("nan"), 1.0, False), (1.0, float("nan"), False)],
)
def test_agreement_is_relative_to_the_largest_value(difference: float, largest: float, expected: bool) -> None:
    assert _parity_pairs.Comparison("", difference, largest).agrees(0.1) == expected


# ---------------------------------------------------------------- imports


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    files = {
        "BigGAN.py": "import layers\nvalue = layers.value\nprint('noise')\n",
        "layers.py": "value = 7\n",
        "training/__init__.py": "",
        "training/networks.py": "import torch, dnnlib\nfrom torch_utils.ops import upfirdn2d, conv2d_resample\n"
        "spec = dnnlib.EasyDict(gain=2)\n",
        "torch_utils/__init__.py": "",
        "torch_utils/custom_ops.py": "raise ImportError('custom operations')\n",
        "torch_utils/ops/__init__.py": "",
        "torch_utils/ops/upfirdn2d.py": "import torch\nfrom .. import custom_ops\n",
        "torch_utils/ops/conv2d_resample.py": "import torch\n",
        "dnnlib/__init__.py": "import packages_that_are_not_installed\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    names = ("BigGAN", "layers", "training", "training.networks", "dnnlib", "torch_utils")
    before = {name: sys.modules.get(name) for name in names}  # `training` may be the folder of tests
    yield tmp_path
    assert str(tmp_path) not in sys.path
    assert {name: sys.modules.get(name) for name in names} == before


def test_stylegan2_is_imported_without_custom_operations_and_in_any_dtype(checkout: Path) -> None:
    with _parity_authors.stylegan2_networks(checkout, torch.float64) as networks:
        assert networks.torch.float32 is networks.upfirdn2d.torch.float32 is torch.float64
        assert networks.torch.float16 is torch.float16
        assert networks.conv2d_resample.torch.Tensor is torch.Tensor
        assert networks.spec.gain == 2
        assert not hasattr(networks.spec, "slope")
    assert torch.float32 is not torch.float64


def test_biggan_is_imported_and_forgotten(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "BigGANlike", sys)
    with _parity_authors.biggan_networks(checkout) as networks:
        assert networks.value == 7
    assert capsys.readouterr().out == ""
    assert sys.modules["BigGANlike"] is sys


# ---------------------------------------------------------------- command line


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the benchmark with these arguments; returns the exit code and the text on both streams."""
    threads = torch.get_num_threads()
    for name in ("POISE_STYLEGAN2", "POISE_BIGGAN"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["parity.py", *arguments])
        code: Any = 0
        try:
            parity.main()
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    yield run
    torch.set_num_threads(threads)


def test_without_a_checkout_it_says_what_it_needs(main: Any, tmp_path: Path) -> None:
    code, _, err = main()
    assert code == 2
    assert "--stylegan2 DIR or --biggan DIR" in err
    code, _, err = main("--biggan", str(tmp_path))
    assert code == 2
    assert f"{tmp_path} is not the checkout that is needed: it has no file BigGAN.py" in err


def test_the_environment_names_checkouts(main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POISE_STYLEGAN2", str(tmp_path))
    assert "no file training" in main()[2]


@pytest.mark.parametrize("quick", [True, False])
def test_every_size_and_dtype_is_reported_and_a_difference_fails(
    main: Any, checkout: Path, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    def compare(authors: Any, size: Any) -> list[Any]:
        difference = 1e-7 if size.side == 64 else 0.0
        return [_parity_pairs.Comparison("images", difference, 1.0), _parity_pairs.Comparison("scores", 0.0, 1.0)]

    monkeypatch.setattr(parity, "compare_biggan", compare)
    code, out, err = main("--biggan", str(checkout), *(["--quick"] if quick else []))
    lines = [line.split() for line in out.splitlines() if line.startswith("biggan")]
    expected = [("32", "float64")] if quick else [(s, t) for t in ("float64", "float32") for s in ("32", "64", "128")]
    assert [(line[1], line[2]) for line in lines] == [key for key in expected for _ in range(2)]
    assert code == (0 if quick else 1)
    assert ("within the tolerance" in out) == quick
    assert [line.split()[2:6] for line in err.splitlines()] == [["biggan", "64", "float64", "images"]] * (not quick)
    assert torch.get_default_dtype() is torch.float32


def test_another_commit_is_refused(main: Any, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(authors: Any, size: Any) -> list[Any]:
        raise _parity_pairs.UnknownCheckoutError("its networks have tensors of other names or shapes: a, b")

    monkeypatch.setattr(parity, "compare_stylegan2", compare)
    code, _, err = main("--stylegan2", str(checkout))
    assert code == 2
    assert "not the commit that is needed: its networks have tensors of other names or shapes: a, b" in err
