"""Examples for every command, shown by its `--help` and checked by a test."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "recipes": ("poise recipes",),
    "tips": ("poise tips soft-labels", "poise tips --recipe dcgan"),
    "check": ("poise check hinge-sngan --data images/", "poise check ring --warm-up"),
    "train": (
        "poise train",
        "poise train ring --steps 500 --out runs/ring",
        "poise train dcgan --data images/ --set optimizer.d.lr=1e-4",
        "poise train --init-from runs/animals --data images/ --freeze d:1",
        "poise train --resume --out runs/ring",
    ),
    "runs": ("poise runs", "poise runs runs/study --json"),
    "sample": (
        "poise sample runs/ring --n 64 --seed 1 --out samples.png",
        "poise sample runs/images --n 10000 --dir samples",
        "poise sample runs/images --grid 8x8 --gap 0 --out grid.png",
    ),
    "translate": (
        "poise translate runs/maps --data photos/ --out maps --grid grid.png",
        "poise translate runs/horses --data zebra.jpg --out horses --direction b_to_a",
    ),
    "interpolate": (
        "poise interpolate runs/ring --path slerp --out walk.gif",
        "poise interpolate runs/images --through 8 --seconds 20 --out walk.mp4",
    ),
    "project": ("poise project runs/images photo.jpg --out steps.png",),
    "measure": ("poise measure runs/ring --json",),
    "compare": ("poise compare samples.npz images/ --measures fid,kid", "poise compare runs/ring runs/r1"),
    "export": ("poise export runs/ring --out ring.onnx", "poise export runs/ring --format pt2 --raw"),
    "push": ("poise push runs/ring ./ring-model --license mit", "poise push runs/ring OWNER/ring --private"),
    "web": ("poise web", "poise web runs/study --port 9000", "poise web --playground"),
    "watch": ("poise watch runs/ring", "poise watch training.csv --columns step=iter,d=loss_D,g=loss_G"),
    "study": ("poise study plan.toml --dry-run", "poise study plan.toml --out runs/study --workers 2"),
    "report": ("poise report runs/study", "poise report runs/study --json"),
    "align": (
        "poise align english.vec italian.vec --out runs/en-it",
        "poise align english.vec italian.vec --dictionary en-it.txt --json",
    ),
    "ladder": ("poise ladder --data images/ --steps 1000 --out runs/ladder",),
}


def epilog(command: str) -> str:
    """The examples of a command for its help, one paragraph each, so that each has its own line."""
    lines = [example.replace("[", "\\[") for example in EXAMPLES[command]]
    return "\n\n".join(["[bold]Examples[/]" if len(lines) > 1 else "[bold]Example[/]", *lines])
