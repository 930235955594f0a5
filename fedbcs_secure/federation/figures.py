"""Pictures of a run: training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours, told apart by colour-blind readers as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#999999")


def save_curves(rows: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Loss and validation Dice over the rounds, a line a site, as a PNG."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss_axis, dice_axis = figure.subplots(1, 2)
    for number, site in enumerate(sorted({row["site"] for row in rows})):
        mine = [row for row in rows if row["site"] == site]
        colour = _COLOURS[number % len(_COLOURS)]
        style = {"color": colour, "label": site, "marker": ".", "linewidth": 1.4}
        loss_axis.plot([r["round"] + 1 for r in mine], [r["loss"] for r in mine], **style)
        seen = [r for r in mine if r.get("validation_dice") is not None]
        dice_axis.plot(
            [r["round"] + 1 for r in seen], [r["validation_dice"] for r in seen], **style
        )
    loss_axis.set(xlabel="round", ylabel="training loss")
    dice_axis.set(xlabel="round", ylabel="validation Dice", ylim=(0, 1))
    for axis in (loss_axis, dice_axis):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    dice_axis.legend(title="site", frameon=False, loc="lower right")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150, metadata={"Software": None})
