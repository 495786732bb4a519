"""Hears signals to stop, in an update that never ends."""

import time

from mtxl_rl.signals import StopSignals


def main() -> None:
    with StopSignals():
        print("ready")
        while True:
            time.sleep(0.01)


if __name__ == "__main__":
    main()
