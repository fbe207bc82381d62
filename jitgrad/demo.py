"""``jitgrad demo``: a classifier of handwritten digits, trained on a tape, and the same one by hand in NumPy."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

import jitgrad as jg
from jitgrad import nn
from jitgrad._version import __version__

UNITS, CLASSES, BATCH, RATE = 128, 10, 32, 2e-3
INK, FAINT, RIGHT, WRONG = "#22303c", "#8a97a3", "#1b7f5c", "#c8412b"
Array = np.ndarray


@dataclass
class Data:
    """Digits to train on and digits held out: rows of 64 pixels in [0, 1], and the number each shows."""

    x: Array
    y: Array
    x_test: Array
    y_test: Array


@dataclass
class Outcome:
    """What a training came to."""

    losses: Array              # one a step
    predictions: Array         # class of each held-out digit
    rate: float                # steps a second


class Missing(Exception):
    """A package of the demo extra is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(f'the demo needs {package}; install it with: pip install "jitgrad[demo]"')


def load(seed: int) -> Data:
    """scikit-learn's digits, shuffled; every fifth is held out."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise Missing("scikit-learn") from None
    found = load_digits()
    order = np.random.default_rng(seed).permutation(len(found.target))
    x = (found.data[order] / 16.0).astype(np.float32)
    y = found.target[order].astype(np.int32)
    held_out = np.arange(len(y)) % 5 == 0
    return Data(x[~held_out], y[~held_out], x[held_out], y[held_out])


def batches(data: Data, epochs: int, steps: int | None, seed: int) -> Iterator[list[Array]]:
    """For each epoch, the rows of each of its batches, until there were ``steps`` of them."""
    rng = np.random.default_rng(seed + 1)
    left = steps if steps is not None else epochs * (len(data.y) // BATCH)
    while left > 0:
        order = rng.permutation(len(data.y))
        epoch = [order[i: i + BATCH] for i in range(0, len(order) - BATCH + 1, BATCH)][:left]
        left -= len(epoch)
        yield epoch


def run(name: str, epochs: Sequence[list[Array]], step: Callable[[Array], Any]) -> tuple[list[Any], float]:
    """Take every step under a progress bar: what each returned, and steps a second (after the first epoch, if any)."""
    out: list[Any] = []
    timed = seconds = 0.0
    with tqdm(total=sum(map(len, epochs)), desc=name, unit="step", disable=None) as bar:
        for i, epoch in enumerate(epochs):
            start = time.perf_counter()
            out += [step(rows) for rows in epoch]
            if i > 0 or len(epochs) == 1:
                timed, seconds = timed + len(epoch), seconds + time.perf_counter() - start
            bar.set_postfix(loss=f"{float(out[-1]):.4f}", refresh=False)
            bar.update(len(epoch))
    return out, timed / seconds


def with_jitgrad(data: Data, epochs: Sequence[list[Array]], seed: int) -> tuple[Outcome, list[Array]]:
    """The training on a tape; also the weights it started from."""
    jg.random.set_seed(seed)
    model = nn.Sequential([nn.layers.Dense(UNITS, activation="relu"), nn.layers.Dense(CLASSES)])
    loss_of = nn.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = nn.optimizers.Adam(learning_rate=RATE)
    model.build((None, data.x.shape[1]))
    first = model.get_weights()

    def step(rows: Array) -> Any:
        x, y = jg.asarray(data.x[rows]), jg.asarray(data.y[rows])
        with jg.GradientTape() as tape:
            loss = loss_of(y, model(x))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    losses, rate = run("jitgrad", epochs, step)
    predictions = jg.argmax(model(data.x_test), axis=-1).numpy()
    return Outcome(np.array([float(loss) for loss in losses]), predictions, rate), first


def with_numpy(data: Data, epochs: Sequence[list[Array]], weights: list[Array]) -> Outcome:
    """The same training, its derivatives and Adam written by hand."""
    w1, b1, w2, b2 = weights
    moments = [(np.zeros_like(w), np.zeros_like(w)) for w in weights]
    count = 0

    def step(rows: Array) -> float:
        nonlocal count
        x, y = data.x[rows], data.y[rows]
        hidden = np.maximum(x @ w1 + b1, 0)
        scores = hidden @ w2 + b2
        scores -= scores.max(axis=1, keepdims=True)
        p = np.exp(scores)
        total = p.sum(axis=1, keepdims=True)
        places = np.arange(len(y)), y
        loss = float((np.log(total[:, 0]) - scores[places]).mean())
        g = p / total
        g[places] -= 1
        g /= len(y)
        g_hidden = (g @ w2.T) * (hidden > 0)
        gradients = x.T @ g_hidden, g_hidden.sum(axis=0), hidden.T @ g, g.sum(axis=0)
        count += 1
        rate = np.float32(RATE * np.sqrt(1 - 0.999**count) / (1 - 0.9**count))
        for w, d, (m, v) in zip(weights, gradients, moments, strict=True):
            m += (d - m) * np.float32(0.1)
            v += (d * d - v) * np.float32(0.001)
            w -= rate * m / (np.sqrt(v) + np.float32(1e-7))
        return loss

    losses, rate = run("NumPy", epochs, step)
    predictions = (np.maximum(data.x_test @ w1 + b1, 0) @ w2 + b2).argmax(axis=1)
    return Outcome(np.array(losses), predictions, rate)


def report(data: Data, outcomes: dict[str, Outcome]) -> str:
    """A table of accuracies, losses and speeds."""
    lines = [f"{'':<22}{'test accuracy':>14}{'training loss':>15}{'steps a second':>16}"]
    for name, o in outcomes.items():
        right = float((o.predictions == data.y_test).mean())
        lines.append(f"{name:<22}{right:>13.1%} {float(last_mean(o.losses)):>15.4f}{o.rate:>16,.0f}")
    return "\n".join(lines)


def last_mean(losses: Array) -> Any:
    """The mean loss of the last epoch's worth of steps."""
    return losses[-45:].mean()


def draw(path: str, data: Data, outcomes: dict[str, Outcome], seed: int) -> None:
    """The loss curves, and a sheet of held-out digits with what the network read."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise Missing("matplotlib") from None
    figure = Figure(figsize=(12.0, 5.4), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    panels: Any = figure.subfigures(1, 2, width_ratios=(1.0, 1.2))
    left, sheet = panels
    draw_losses(left, outcomes, dict(zip(outcomes, ("#2b6cb0", "#dd8a2e"), strict=True)))
    draw_digits(sheet, data, next(iter(outcomes.values())).predictions, seed)
    figure.savefig(path)


def draw_losses(panel: Any, outcomes: dict[str, Outcome], colours: dict[str, str]) -> None:
    """Running means of the losses, over the single steps of the first outcome."""
    axes = panel.add_axes((0.14, 0.13, 0.80, 0.68))
    window = max(1, min(45, len(next(iter(outcomes.values())).losses) // 20))
    for (name, o), style in zip(outcomes.items(), ("-", (0, (4, 3))), strict=True):
        smooth = np.convolve(o.losses, np.ones(window) / window, "valid")
        axes.plot(np.arange(len(smooth)) + window, smooth, color=colours[name], linestyle=style, linewidth=2.0,
                  label=f"{name}, {o.rate:,.0f} steps a second")
    ours = next(iter(outcomes.values()))
    axes.plot(np.arange(len(ours.losses)) + 1, ours.losses, color=next(iter(colours.values())), alpha=0.15,
              linewidth=0.7, zorder=0)
    axes.set_yscale("log")
    axes.set_xlabel("step", color=INK)
    axes.set_ylabel("cross-entropy of the batch", color=INK)
    axes.grid(color="#e4e9ee", linewidth=0.8)
    axes.tick_params(colors=FAINT, which="both", length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.legend(frameon=False, labelcolor=INK, loc="upper right")
    titles(panel, 0.14, "Training loss", f"64-{UNITS}-{CLASSES} network, Adam, batches of {BATCH}")


def draw_digits(panel: Any, data: Data, predictions: Array, seed: int) -> None:
    """A sheet of held-out digits with what the network read above each, mistakes first."""
    hits = predictions == data.y_test
    rows, columns = 5, 9
    misses = np.flatnonzero(~hits)[: columns]
    others = np.random.default_rng(seed).permutation(np.flatnonzero(hits))[: rows * columns - len(misses)]
    shown = np.concatenate([misses, others])
    grid = panel.subplots(rows, columns, gridspec_kw={
        "left": 0.02, "right": 0.98, "top": 0.80, "bottom": 0.03, "wspace": 0.18, "hspace": 0.55})
    for place in grid.flat:
        place.axis("off")
    for place, i in zip(grid.flat, shown, strict=False):
        place.imshow(1.0 - data.x_test[i].reshape(8, 8), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        read, truth = int(predictions[i]), int(data.y_test[i])
        place.set_title(str(read) if hits[i] else f"{read}, not {truth}", color=RIGHT if hits[i] else WRONG,
                        fontsize=10, fontweight="bold", pad=3)
    mistakes = "none was wrong" if len(misses) == 0 else f"mistakes come first ({len(misses)} shown)"
    titles(panel, 0.02, f"{int(hits.sum())} of {len(hits)} held-out digits read right ({hits.mean():.1%})",
           f"what the network read, above each digit; {mistakes}")


def titles(panel: Any, x: float, title: str, subtitle: str) -> None:
    panel.text(x, 0.93, title, color=INK, fontsize=14, fontweight="bold", va="center")
    panel.text(x, 0.865, subtitle, color=FAINT, fontsize=10, va="center")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="jitgrad demo", description=__doc__)
    parser.add_argument("--epochs", type=int, default=60, metavar="N", help="rounds through the training digits (60)")
    parser.add_argument("--steps", type=int, metavar="N", help="stop after this many steps instead")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the batches (0)")
    parser.add_argument("--output", default="jitgrad-demo.png", metavar="PATH", help="where to save the picture")
    parser.add_argument("--no-plot", action="store_true", help="save no picture")
    args = parser.parse_args(argv)
    steps = args.epochs if args.steps is None else args.steps
    if steps < 1 or args.seed < 0:
        parser.error("--epochs and --steps must be at least 1, --seed at least 0")
    folder = os.path.dirname(os.path.abspath(args.output))
    if not args.no_plot and not os.access(folder, os.W_OK | os.X_OK):
        parser.error(f"the picture cannot be saved: there is no folder {folder} to write to")
    try:
        data = load(args.seed)
        print(f"jitgrad {__version__}: {len(data.y) + len(data.y_test):,} handwritten digits of 8 x 8 pixels, "
              f"{len(data.y):,} to train on, {len(data.y_test)} held out")
        epochs = list(batches(data, args.epochs, args.steps, args.seed))
        ours, first = with_jitgrad(data, epochs, args.seed)
        outcomes = {"jitgrad": ours, "NumPy by hand": with_numpy(data, epochs, first)}
        print(report(data, outcomes))
        if not args.no_plot:
            draw(args.output, data, outcomes, args.seed)
            print(f"saved {args.output}")
    except Missing as missing:
        print(f"jitgrad: {missing}", file=sys.stderr)
        return 1
    return 0
