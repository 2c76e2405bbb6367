"""Run both emulators until Ctrl-C, and print their environment variables: ``python -m run_log.testing``."""

from __future__ import annotations

import signal
import sys

from run_log.core.errors import EmulatorError

from ._emulators import FirestoreEmulator, PubSubEmulator


def main() -> int:
    """Start both emulators, print their environment as shell commands, and wait for a signal."""
    signals = (signal.SIGINT, signal.SIGTERM)
    # Blocked from here on, so that a signal while the emulators start waits for sigwait, and ends them too.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        with FirestoreEmulator() as firestore, PubSubEmulator() as pubsub:
            for name, value in {**firestore.environment, **pubsub.environment}.items():
                sys.stdout.write(f"export {name}={value}\n")
            sys.stdout.write("export GOOGLE_CLOUD_PROJECT=run-log-local\n")
            sys.stdout.flush()
            signal.sigwait(signals)
    except EmulatorError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
