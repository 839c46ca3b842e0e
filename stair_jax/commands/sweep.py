"""Runs a config with several values of some fields, each cell in a folder of its own."""

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stair_jax.commands.cluster_flag import add_cluster_flag, with_cluster
from stair_jax.commands.config_file import load_config, load_sweep
from stair_jax.commands.flags import Arguments, listed
from stair_jax.commands.running import (
    add_redo_flags,
    agreement,
    join,
    keep_programs,
    leave,
    report,
)
from stair_jax.commands.seed_tables import TableSettings, write_tables
from stair_jax.commands.session import Session
from stair_jax.errors import UserError
from stair_jax.monitoring import say
from stair_jax.parallel.processes import cluster, collectives
from stair_jax.run import sweep_grid
from stair_jax.run.override import Override
from stair_jax.run.sweep_manifest import Manifest, read_manifest
from stair_jax.stages import STAGES

SUMMARY = "Runs a config with several values of some fields; cells share what they have in common."


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax sweep`."""
    parser.add_argument(
        "--config", metavar="FILE", help="config file, or a recipe; it may have cells (get_sweep)"
    )
    parser.add_argument(
        "--workdir", metavar="DIR", help="folder of the sweep, a cell below it each"
    )
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="FIELD=VALUES",
        help="values of a field of the config, with commas between them, or with ; where a value "
        "has commas; may be repeated: then all combinations are run",
    )
    parser.add_argument(
        "--pairs",
        action="store_true",
        help="the first values of all --vary together, then the second ones, and so on",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="CELL",
        help="run these cells alone, * for any text; so that several processes share a sweep",
    )
    parser.add_argument(
        "--list", action="store_true", help="print the cells and their values, and end"
    )
    parser.add_argument(
        "--tables", action="store_true", help="make the tables and figures of what is there alone"
    )
    parser.add_argument(
        "--reuse",
        action="append",
        default=[],
        metavar="WORKDIR",
        help="take over finished stages of other runs too, as in `run`",
    )
    add_redo_flags(parser)
    add_cluster_flag(parser)


def execute(arguments: Arguments, session: Session) -> int:
    """Runs what is not finished of all cells; returns the exit status."""
    options = arguments.options
    cluster.read_flags(options)
    if not options.workdir and (options.tables or not options.list):
        raise UserError("--workdir is missing: name the folder of the sweep, e.g. --workdir=runs/b")
    if options.tables:
        _write_tables(Path(options.workdir))
        return 0
    config = load_config(options.config)
    cells = _cells(options)
    from stair_jax.run import sweep

    folder = Path(options.workdir or ".")
    overrides = with_cluster(arguments).overrides
    found = sweep.read_cells(config, STAGES, overrides, cells, folder)
    if options.list:
        print(format_cells(cells))
        return 0
    join(options, session)
    from stair_jax.run.reuse import donor_folders

    written = tuple(map(_written, arguments.overrides))
    manifest = sweep.merged_manifest(folder, Manifest(options.config, written, cells))
    donors = donor_folders(listed(options.reuse), folder)
    chosen = sweep_grid.chosen(list(cells), listed(options.only))
    donors += [folder / name for name in manifest.cells if name not in chosen]
    checked = sweep.check([cell for cell in found if cell.name in chosen], options.redo)
    sweep.clear(checked, options.redo, agreement(options))
    sweep.save_manifest(folder, manifest)
    keep_programs(checked[0].config, folder)
    failed = sweep.run(checked, donors, lambda cell: report(cell.config, cell.workdir))
    done = [cell for cell in checked if cell.name not in failed]
    if collectives.is_main() and not options.only and sweep.evaluate_something(done):
        _write_tables(folder)
    leave(session)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(checked)} cells failed, and the others are done: "
            + "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        )
    return 0


def _write_tables(folder: Path) -> None:
    """Writes sweep.md, sweep.csv, table.json and figures of the cells that are evaluated."""
    if read_manifest(folder) is None:
        raise UserError(f"{folder} is no folder of a sweep: run it first, without --tables")
    write_tables(folder, "sweep", TableSettings([str(folder)]))
    say(f"tables of the sweep: {folder / 'sweep.md'}, sweep.csv, table.json, figures")


def format_cells(cells: Mapping[str, Mapping[str, str]]) -> str:
    """The cells, a line each, with their values as flags of `run` in a shell."""
    width = max(map(len, cells))
    return "\n".join(
        f"{name:<{width}}  " + shlex.join(f"--config.{f}={text}" for f, text in values.items())
        for name, values in cells.items()
    )


def _cells(options: argparse.Namespace) -> dict[str, dict[str, str]]:
    """Those of the config file, each with all that the flags vary."""
    values = sweep_grid.parse_vary(options.vary)
    varied = (sweep_grid.pairs if options.pairs else sweep_grid.grid)(values)
    own: Any = load_sweep(options.config)
    if own is None and not values:
        raise UserError(
            "nothing is varied: name a field and its values, e.g. --vary=dpo.beta=0.1,0.2, or "
            "give the config file a function get_sweep()"
        )
    if own is None:
        return varied
    return sweep_grid.product(sweep_grid.read_own(own, options.config), varied)


def _written(override: Override) -> str:
    """An override as it can be given again."""
    text = "True" if override.text is None else override.text
    return f"--config.{override.field}={text}"
