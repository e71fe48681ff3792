"""The command line: one short function per verb; files in, files out, no prompts.

Exit codes: 0 success, 1 internal error, 2 invalid input or call (one line on stderr), 130 interrupted, 143 terminated.
"""

import inspect
import io
import logging
import os
import re
import signal
import sys
import warnings
from threading import Timer
from typing import Annotated, Any

import typer

from scfusionttt.cli.cohorts import map as map_query
from scfusionttt.cli.compare import ablate, benchmark
from scfusionttt.cli.counts import background, differential
from scfusionttt.cli.flags import FlagFormatter, with_flags
from scfusionttt.cli.interrupts import INTERRUPTED, TERMINATED, Stopped
from scfusionttt.cli.large import plan, store
from scfusionttt.cli.look import demo, doctor, genes, report, validate
from scfusionttt.cli.references import annotate, reference
from scfusionttt.cli.results import denoise, embed, evaluate, explain, impute, predict
from scfusionttt.cli.stages import finetune, pretrain, transfer
from scfusionttt.errors import UserError

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
VERBS = (
    annotate, demo, validate, pretrain, finetune, transfer, embed, map_query, predict, impute, denoise, evaluate,
    explain, background, differential, report, store, plan, benchmark, ablate, reference, genes, doctor,
)  # fmt: skip
for verb in VERBS:
    # paragraphs without line breaks, which the terminal wraps at its own width; each example has a line
    app.command(help=re.sub(r"(?<!\n)\n(?!\n|Example:)", " ", inspect.getdoc(verb) or ""))(verb)
#: Verbs that continue if they are run again.
_CONTINUING = ("benchmark", "ablate")


def main() -> None:
    """Run the command line."""
    handler, log = logging.StreamHandler(), logging.getLogger("scfusionttt")
    handler.setFormatter(FlagFormatter())
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", category=UserWarning, module=r"scfusionttt\.|__main__")
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _send_again
    if isinstance(sys.stdout, io.TextIOWrapper):  # names that a console of another encoding lacks, as for stderr
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False, prog_name="scfusionttt") or 0
        if code == INTERRUPTED:  # the argument parser catches Ctrl+C
            raise KeyboardInterrupt
        sys.exit(code)
    except UserError as error:
        _fail(with_flags(str(error)), 2)
    except (KeyboardInterrupt, typer.Abort):
        _stop(Stopped(INTERRUPTED))
    except Stopped as stop:
        _stop(stop)
    except Exception as error:
        if not hasattr(error, "format_message"):  # only usage errors of the argument parser have one
            raise
        message, context = error.format_message().replace("Value error, ", ""), getattr(error, "ctx", None)
        verb = context.command_path if context else "scfusionttt"
        _fail(f"{message.splitlines()[0].rstrip('.')}; see {verb} --help", 2) if message else sys.exit(2)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="show the version and exit")] = False,
) -> None:
    """Fuse RNA and surface proteins of CITE-seq, predict cell types, and transfer both to RNA-only data."""
    if version:
        from scfusionttt import __version__

        typer.echo(__version__)
        raise typer.Exit


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    typer.echo(f"warning: {with_flags(str(message))}", err=True)


def _stop(stop: Stopped) -> None:
    verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    advice = "; continue the run with --resume" if stop.resumable else ""
    advice = "; run the same command again to continue" if verb in _CONTINUING else advice
    _fail(f"{'terminated' if stop.code == TERMINATED else 'interrupted'}{advice}", stop.code)


def _terminate(*_: Any) -> None:
    raise Stopped(TERMINATED)


def _send_again(ignored: Any) -> None:
    """Send a signal again if compiled code swallowed its exception, as Numba's compiler does in its callbacks."""
    number = {Stopped: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}.get(ignored.exc_type)
    if number is None:
        sys.__unraisablehook__(ignored)
    else:
        Timer(0.1, os.kill, (os.getpid(), number)).start()


def _fail(message: str, code: int) -> None:
    typer.echo(f"scfusionttt: {' '.join(message.split())}", err=True)
    sys.exit(code)
