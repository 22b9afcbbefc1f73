"""Tables of a budget for people, and the same as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from llava_lite.budget.estimate import Hardware, StageBudget, Way, budget_stage
from llava_lite.budget.hardware import CONTEXT_GIB, GIB, HOST_ADAM_PER_S, HOST_BYTES_PER_S, RESERVE, BudgetError, usable
from llava_lite.budget.stages import read_stages
from llava_lite.budget.workload import find_workload


def show_budget(
    path: Path,
    overrides: Sequence[str],
    hardware: Hardware,
    *,
    num_samples: int | None,
    tokens_per_sample: int | None,
    as_json: bool,
    console: Console,
) -> bool:
    """Reckon the stages of a configuration and print what they come to; return whether all of them fit in some way.

    num_samples, tokens_per_sample: of the data of a single stage, in place of what is found of it.
    """
    stages = read_stages(path, overrides)
    if len(stages) > 1 and (num_samples or tokens_per_sample):
        raise BudgetError(f"--samples and --tokens-per-sample are of one stage; name its file, as {stages[-1].path}")
    budgets = []
    for stage in stages:
        load = find_workload(stage, num_samples=num_samples, tokens_per_sample=tokens_per_sample)
        budgets.append(budget_stage(stage, load, hardware))
    if as_json:
        console.print_json(json.dumps(plain(budgets, hardware)))
    else:
        print_budget(budgets, hardware, console)
    return all(budget.best is not None for budget in budgets)


def print_budget(budgets: Sequence[StageBudget], hardware: Hardware, console: Console) -> None:
    """Print a table a stage, the sum, and what was assumed."""
    gpus = f"{hardware.count} x {hardware.name}"
    device = hardware.device
    console.print(
        Text(
            f"{gpus}: {device.tflops:g} TFLOP/s and {device.memory_gib:g} GiB each, "
            f"{usable(device, hardware.count) / GIB:.1f} GiB of them to be filled"
        )
    )
    for budget in budgets:
        console.print(Text(), _stage(budget, hardware), sep="\n")
    console.print(Text(), _sum(budgets, hardware), sep="\n")
    console.print(Text(), *[Text(f"- {line}") for line in assumptions(budgets, hardware)], sep="\n")


def plain(budgets: Sequence[StageBudget], hardware: Hardware) -> dict[str, Any]:
    """The same as plain values: bytes, hours, kWh, money."""
    return {
        "gpu": hardware.name,
        "count": hardware.count,
        "usable_bytes": round(usable(hardware.device, hardware.count)),
        "stages": [
            {
                "config": str(budget.stage.path),
                "parameters": budget.sizes.numbers,
                "trained": budget.sizes.trained,
                "own": _way_as_json(budget.own, hardware),
                "others": [_way_as_json(way, hardware) for way in budget.others],
                "best": _way_as_json(budget.best, hardware) if budget.best else None,
                "overrides": overrides(budget),
            }
            for budget in budgets
        ],
        "assumed": assumptions(budgets, hardware),
    }


def overrides(budget: StageBudget) -> list[str]:
    """What to write behind the command to get the best way; nothing where it is the configuration's own."""
    best, own = budget.best, budget.own
    if best is None:
        return []
    changed = []
    if best.strategy != own.strategy:
        changed += [f"parallel.strategy={best.strategy.name}"]
        if best.strategy.offload != own.strategy.offload:
            changed += [f"parallel.offload={best.strategy.offload or 'null'}"]
    if best.checkpointing != own.checkpointing:
        changed += [f"gradient_checkpointing={best.checkpointing}"]
    if best.row_tokens != own.row_tokens:
        changed += [f"batch.tokens={best.row_tokens}"]
        changed += [f"batch.rows={best.rows}"] if budget.stage.config.batch.rows else []
    return changed


def assumptions(budgets: Sequence[StageBudget], hardware: Hardware) -> list[str]:
    """All that was not read off a configuration, a line each."""
    lines = [f"{budget.stage.name}: {budget.workload.told}" for budget in budgets]
    lines += [
        f"while a GPU computes it reaches {hardware.hfu:.0%} of its peak (--hfu), of which MFU is the useful part. Not "
        "measured: LLaVA-1.5's published hours on A100s come to 43 % in stage one, 34 % in stage two",
        f"of a GPU's memory {RESERVE:.0%} is lost between blocks, and {CONTEXT_GIB:g} GiB go to CUDA"
        + (f", {CONTEXT_GIB:g} GiB to NCCL" if hardware.count > 1 else ""),
        "the fullest row that the data may fill; what GPUs send each other is hidden behind arithmetic; data is never "
        "waited for; boards run at their limit, the rest of the machine is not counted",
    ]
    if any(way.strategy.offload for budget in budgets for way in (budget.own, *budget.others)):
        lines.append(
            f"offload: {HOST_BYTES_PER_S / 1e9:g} GB/s between a GPU and the CPU's memory, whose cores bring "
            f"{HOST_ADAM_PER_S / 1e9:g} billion weights a second up to date"
        )
    return lines


def _stage(budget: StageBudget, hardware: Hardware) -> RenderableType:
    sizes, stage = budget.sizes, budget.stage
    config = stage.config.batch
    step = f"{config.rows} rows" if config.rows else f"{config.samples} samples"
    title = (
        f"{stage.name}: {_billions(sizes.trained)} of {_billions(sizes.numbers)} weights learn, "
        f"{step} a step, rows of {config.tokens:,}"
    )
    unit = "kWh" if hardware.price is None else "cost"
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("GiB of a GPU", no_wrap=True)
    table.add_column("ckpt", no_wrap=True)
    for name in ("weights", "grads", "optim.", "activ.", "logits", "engine", "all", "fits", "longest", "hours", unit):
        table.add_column(name, justify="right", no_wrap=True)
    ways = [budget.own, *budget.others]
    if budget.best is not None and budget.best not in ways:
        ways.append(budget.best)
    for way in ways:
        mark = "*" if way is budget.own else ">" if way is budget.best else " "
        table.add_row(
            *_cells(way, budget.own, hardware, mark), style="bold" if way in (budget.own, budget.best) else None
        )
    return Group(Text(title, "bold"), table, Text(_verdict(budget, hardware)))


def _cells(way: Way, own: Way, hardware: Hardware, mark: str) -> list[str]:
    states = way.states
    engine = max(states.buffers, states.update - way.activations.total)
    parts = (states.weights, states.gradients, states.optimizer, way.activations.other, way.activations.logits, engine)
    money = _money(way, hardware)
    return [
        f"{mark} {way.strategy}" + (f", {way.row_tokens}" if way.row_tokens != own.row_tokens else ""),
        str(way.checkpointing),
        *(f"{part / GIB:.1f}" for part in parts),
        f"{way.total / GIB:.1f}",
        "yes" if way.fits else "no",
        f"{way.largest_row:,}" if way.largest_row else "-",
        f"{way.hours:,.1f}",
        f"{money:,.0f}" if money is not None else f"{_energy(way, hardware):,.0f}",
    ]


def _verdict(budget: StageBudget, hardware: Hardware) -> str:
    best, own = budget.best, budget.own
    if best is None:
        return (
            "Nothing fits. Take more or larger GPUs, or in stage two lora.rank=128, and model.quantize=4bit with it; "
            f"the least that is needed is {min(way.total for way in (own, *budget.others)) / GIB:.0f} GiB a GPU."
        )
    share = f"{best.rows} rows a step on {hardware.count} GPUs" if hardware.count > 1 else f"{best.rows} rows a step"
    host = f", {best.states.host / GIB:.0f} GiB of the CPU's memory" if best.states.host else ""
    what = f"{best.num_steps:,} steps, {share}, {best.mfu:.0%} MFU{host}"
    if best is own:
        return f"* as configured: {what}"
    return f"> {'cheaper' if own.fits else 'fits'}: {' '.join(overrides(budget))}\n  {what}"


def _sum(budgets: Sequence[StageBudget], hardware: Hardware) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("way", no_wrap=True)
    for name in ("hours", "GPU hours", "kWh", *(["cost"] if hardware.price is not None else [])):
        table.add_column(name, justify="right", no_wrap=True)
    own, best = (_add(ways, hardware) for ways in zip(*((b.own, b.best or b.own) for b in budgets), strict=True))
    for budget in budgets:
        if budget.best is None:
            return Text(f"No sum: {budget.stage.name} fits in no way.", "bold")
        what = f"{budget.best.strategy}, ckpt {budget.best.checkpointing}, rows of {budget.best.row_tokens:,}"
        table.add_row(budget.stage.name, what, *_figures(_add([budget.best], hardware), hardware))
    table.add_row("all", "", *_figures(best, hardware), style="bold")
    if own != best and all(budget.own.fits for budget in budgets):
        table.add_row("all", "as configured", *_figures(own, hardware))
    return table


def _add(ways: Sequence[Way], hardware: Hardware) -> list[float]:
    """Hours, GPU hours, kWh and money of several."""
    figures = [[w.hours, w.gpu_hours(hardware), _energy(w, hardware), _money(w, hardware) or 0.0] for w in ways]
    return [sum(column) for column in zip(*figures, strict=True)]


def _figures(figures: Sequence[float], hardware: Hardware) -> list[str]:
    cells = [f"{figure:,.1f}" for figure in figures[:2]] + [f"{figures[2]:,.0f}"]
    return [*cells, f"{figures[3]:,.0f}"] if hardware.price is not None else cells


def _way_as_json(way: Way, hardware: Hardware) -> dict[str, Any]:
    states = way.states
    return {
        "strategy": way.strategy.name,
        "offload": way.strategy.offload,
        "gradient_checkpointing": way.checkpointing,
        "row_tokens": way.row_tokens,
        "largest_row": way.largest_row,
        "fits": way.fits,
        "bytes": {
            "weights": round(states.weights),
            "gradients": round(states.gradients),
            "optimizer": round(states.optimizer),
            "activations": way.activations.other,
            "logits": way.activations.logits,
            "engine": round(max(states.buffers, states.update - way.activations.total)),
            "total": round(way.total),
            "host": round(states.host),
        },
        "steps": way.num_steps,
        "hours": way.hours,
        "mfu": way.mfu,
        "kwh": _energy(way, hardware),
        "cost": _money(way, hardware),
    }


def _energy(way: Way, hardware: Hardware) -> float:
    return way.gpu_hours(hardware) * hardware.device.watts / 1000


def _money(way: Way, hardware: Hardware) -> float | None:
    return way.gpu_hours(hardware) * hardware.price if hardware.price is not None else None


def _billions(number: int) -> str:
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"
