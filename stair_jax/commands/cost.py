"""Says what finished runs cost, and what a recipe would cost on devices that need not be there."""

import argparse
from pathlib import Path

from stair_jax import storage
from stair_jax.commands.config_file import load_config
from stair_jax.commands.flags import Arguments, listed
from stair_jax.commands.session import Session
from stair_jax.commands.settings_flags import add_settings_flags, read_settings
from stair_jax.errors import UserError
from stair_jax.planning.energy import EnergySettings
from stair_jax.planning.rates import Amounts
from stair_jax.reports.cost_page import cost_json, estimate_section, run_section
from stair_jax.reports.estimates import estimates
from stair_jax.reports.records import read_run
from stair_jax.reports.stage_costs import run_costs
from stair_jax.run.run_config import read_config
from stair_jax.stages import STAGES

SUMMARY = "Says what runs cost by their records, and estimates hours, energy and price of a recipe."
_DEVICES = "h100:8,v5p:2x2x1,h200:1"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `stair-jax cost`."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folder of a run, or of a stage")
    parser.add_argument("--config", metavar="FILE", help="a config or recipe to estimate")
    parser.add_argument(
        "--devices",
        metavar="NAMES",
        default=_DEVICES,
        help=f"kinds of devices with commas between them. Default: {_DEVICES}.",
    )
    parser.add_argument("--out", metavar="FILE", help="write the Markdown to this file")
    parser.add_argument("--json", metavar="FILE", help="write all of it to this file too")
    add_settings_flags(parser, EnergySettings)
    add_settings_flags(parser, Amounts)


def execute(arguments: Arguments, session: Session) -> int:
    """Prints or writes the costs; returns the exit status."""
    options = arguments.options
    if not options.runs and not options.config:
        raise UserError("name a run or a recipe: stair-jax cost runs/a, or --config=llama8b_stair")
    if arguments.overrides and not options.config:
        raise UserError(f"{arguments.overrides[0].flag} changes a config: name it with --config")
    settings, amounts = read_settings(options, EnergySettings), read_settings(options, Amounts)
    wanted = settings, amounts, options.devices
    if wanted != (EnergySettings(), Amounts(), _DEVICES) and not options.config:
        raise UserError("devices, energy and amounts are of an estimate: name a recipe (--config)")
    devices = listed([options.devices])
    if options.config and not devices:
        raise UserError("--devices names none: such as --devices=h100:8,v5p:2x2x2")
    runs = {str(Path(path)): run_costs(read_run(Path(path))) for path in options.runs}
    found = []
    if options.config:
        config = read_config(load_config(options.config), STAGES, arguments.overrides)
        found = estimates(config, devices, amounts, settings)
    parts = [run_section(name, costs) for name, costs in runs.items()]
    parts += [estimate_section(options.config, found, settings)] if found else []
    text = "\n\n".join(["# Costs", *parts]) + "\n"
    if options.json:
        storage.write_json(options.json, cost_json(runs, options.config or "", found, settings))
    if options.out:
        storage.write_text(options.out, text)
        print(f"{options.out} is written")
    else:
        print(text, end="")
    return 0
