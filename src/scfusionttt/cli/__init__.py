"""The command line: one short function per verb; files in, files out, no prompts.

Exit codes: 0 done, 1 internal error, 2 the input or the call is at fault (one line on stderr), 130 interrupted,
143 terminated.
"""

import logging
import signal
import sys
import warnings
from typing import Annotated, Any

import typer

from scfusionttt.cli.compare import ablate, benchmark
from scfusionttt.cli.large import plan, store
from scfusionttt.cli.look import demo, doctor, genes, report, validate
from scfusionttt.cli.results import embed, evaluate, explain, predict
from scfusionttt.cli.stages import finetune, pretrain, transfer
from scfusionttt.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
VERBS = (
    demo, validate, pretrain, finetune, transfer, embed, predict, evaluate, explain, report, store, plan, benchmark,
    ablate, genes, doctor,
)  # fmt: skip
for verb in VERBS:
    app.command()(verb)
INTERRUPTED, TERMINATED = 130, 143


class Terminated(BaseException):
    """SIGTERM came: a cluster's time limit, or a shutdown."""


def main() -> None:
    """Run the command line."""
    notes = logging.getLogger("scfusionttt")
    notes.handlers, notes.propagate = [logging.StreamHandler()], False
    notes.setLevel(logging.INFO)
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", category=UserWarning, module=r"scfusionttt\.|__main__")
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False, prog_name="scfusionttt") or 0
        if code == INTERRUPTED:  # how the argument parser tells of Ctrl+C
            raise KeyboardInterrupt
        sys.exit(code)
    except UserError as error:
        _fail(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; a training run goes on with --resume", INTERRUPTED)
    except Terminated:
        _fail("terminated; a training run goes on with --resume", TERMINATED)
    except Exception as error:
        # Usage errors of the argument parser: they have a message of their own.
        if not hasattr(error, "format_message"):
            raise
        told, context = error.format_message(), getattr(error, "ctx", None)
        verb = context.command_path if context else "scfusionttt"
        _fail(f"{told.splitlines()[0].rstrip('.')}; see {verb} --help", 2) if told else sys.exit(2)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="show the version and leave")] = False,
) -> None:
    """Fuse RNA and surface proteins of CITE-seq cells, name the cells, and carry that over to RNA-only data."""
    if version:
        from scfusionttt import __version__

        typer.echo(__version__)
        raise typer.Exit


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    typer.echo(f"warning: {message}", err=True)


def _terminate(*_: Any) -> None:
    raise Terminated


def _fail(message: str, code: int) -> None:
    typer.echo(f"scfusionttt: {' '.join(message.split())}", err=True)
    sys.exit(code)
