"""Prints the help of commands, and of each the modules that it has imported by then."""

import runpy
import sys
import warnings


def main(commands: str, modules: str) -> None:
    warnings.simplefilter("ignore")  # runpy's, of what another command has imported
    for command in commands.split(","):
        sys.argv = [command, "--help"]
        try:
            runpy.run_module(command, run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            if stop.code != 0:
                raise
        loaded = [name for name in modules.split(",") if name in sys.modules]
        print(command, loaded, file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
