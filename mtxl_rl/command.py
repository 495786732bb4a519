"""How a command talks and ends.

Bad input is one line on stderr and exit code 2, what fails later is 1; a warning is one line. What
all ranks of a run say is said once.
"""

from __future__ import annotations

import ast
import ctypes
import dataclasses
import gc
import inspect
import io
import os
import signal
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise

from agents import ranks
from envs.wrapped.guarded_env import EnvError
from mtxl_rl.signals import Stopped


class RunFailed(Exception):  # noqa: N818
    """A run has failed after it began; the message says what is left of it."""


@contextmanager
def fail_with_one_line(when_interrupted: str = "") -> Iterator[None]:
    """Turn errors that are the user's, the environment's or the disk's into one line.

    Args:
        when_interrupted: what a Ctrl-C leaves behind, in words.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # while it was imported: see mtxl_rl
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.getfilesystemencoding() != "utf-8" and "utf8" not in sys._xoptions:
        # an ASCII locale: libraries that open files by their names in UTF-8 would not find them
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    gc.freeze()  # what is imported stays: to look through it at the end takes half a second
    for stream in (sys.stdout, sys.stderr):  # names have any script, and a console may be ASCII
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = _one_line
    try:
        yield
    except (ValueError, RunFailed, EnvError, OSError) as error:
        if isinstance(error, BrokenPipeError) and error.errno:  # who reads, head say, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is still to be flushed
            sys.exit(128 + signal.SIGPIPE)
        if os.environ.get("MTXL_RL_TRACEBACK"):
            raise
        # spaces, and what others raise, have lines of their own
        _say_once(f"error: {_joined(str(error))}")
        sys.exit(2 if isinstance(error, ValueError) else 1)
    except Stopped as stopped:
        if ranks.is_first():  # all ranks stop together
            print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
    except ranks.RankFailed:  # which says why
        sys.exit(1)
    except ranks.RankLost as error:
        if ranks.is_first_to_say("a rank is lost"):
            print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("; ".join(filter(None, ("interrupted", when_interrupted))), file=sys.stderr)
        sys.exit(130)


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    line = f"warning: {_joined(str(message))}\n"
    return line if ranks.is_first_to_say(line) else ""


def _say_once(line: str) -> None:
    if ranks.is_first_to_say(line):
        print(line, file=sys.stderr, flush=True)


def _joined(text: str) -> str:
    return " ".join(map(str.strip, text.splitlines()))


def fill_help(config_class: type) -> None:
    """Let the help of a dataclass, and of those in it, fill the width of the terminal.

    tyro keeps the line breaks of the docstrings below the fields.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    for owner in config_class.__mro__:
        if not dataclasses.is_dataclass(owner):
            continue
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        except (OSError, SyntaxError):  # made where there is no file
            continue
        assert isinstance(tree, ast.ClassDef)
        for statement, below in pairwise([*tree.body, ast.Pass()]):
            if not (
                isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
            ):
                continue
            field = fields.get(statement.target.id)
            if field is None or field.metadata:  # of the class, or filled
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                field.metadata = {"help": " ".join(str(below.value.value).split())}  # type: ignore[assignment]
            elif dataclasses.is_dataclass(field.default_factory):
                fill_help(field.default_factory)  # type: ignore[arg-type]


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send to stderr what is printed to stdout within, by Python or by a library in C."""
    if sys.stdout is None:  # closed
        yield
        return
    _flush_stdout()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _flush_stdout()
        os.dup2(saved, 1)
        os.close(saved)


def _flush_stdout() -> None:
    sys.stdout.flush()
    ctypes.CDLL(None).fflush(None)
