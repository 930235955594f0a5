"""``fedbcs-secure``: the application, its verbs and its exit codes.

0 done · 1 failed · 2 usage (a flag or a study file is wrong) · 3 refused by a site's policy · 130
interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fedbcs_protocols.errors import ProtocolError, Refused
from fedbcs_secure import __version__
from fedbcs_secure.cli import (
    budget,
    demo,
    doctor,
    evaluate,
    init,
    keygen,
    lint,
    plan,
    predict,
    simulate,
)
from fedbcs_secure.errors import DataError, FedBCSError, StudyError

app = typer.Typer(
    name="fedbcs-secure",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hospitals train one segmentation model together; nobody shows anyone an image, and the "
    "server sees sums only.",
    epilog="Start with [bold]fedbcs-secure demo[/bold]; then "
    "[bold]fedbcs-secure doctor --data manifest.csv[/bold] on your own images.",
)
app.command("demo", epilog=demo.EPILOG)(demo.demo)
app.command("simulate", epilog=simulate.EPILOG)(simulate.simulate)
app.command("init", epilog=init.EPILOG)(init.init)
app.command("keygen", epilog=keygen.EPILOG)(keygen.keygen)
app.command("plan", epilog=plan.EPILOG)(plan.plan)
app.command("lint", epilog=lint.EPILOG)(lint.lint)
app.command("budget", epilog=budget.EPILOG)(budget.budget)
app.command("evaluate", epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command("predict", epilog=predict.EPILOG)(predict.predict)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedbcs-secure {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _failed(error: Exception, code: int) -> int:
    console = Console(stderr=True, highlight=False)
    if isinstance(error, DataError):
        console.print(f"[bold red]error:[/] {len(error.problems)} problem(s) in the data")
        for problem in error.problems[:50]:
            console.print(f"  • {escape(problem)}", soft_wrap=True)
        if len(error.problems) > 50:
            console.print(f"  … and {len(error.problems) - 50} more; `doctor` lists them all")
    else:
        console.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
    return code


def run() -> None:
    """Entry point: turns the toolkit's own errors into a sentence and an exit code."""
    try:
        app(standalone_mode=True)
    except StudyError as error:
        sys.exit(_failed(error, 2))
    except Refused as error:
        sys.exit(_failed(error, 3))
    except (FedBCSError, ProtocolError) as error:
        sys.exit(_failed(error, 1))
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        sys.exit(_failed(FedBCSError(f"{named}{error.strerror or error}"), 1))
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        sys.exit(130)
