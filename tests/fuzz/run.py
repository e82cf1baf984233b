"""Lets atheris, which watches the code that an input reaches, look for inputs that a target does not stand.

    python -m tests.fuzz.run machine -runs=1000000 -max_len=512

Takes the options of libFuzzer. A finding ends the run, with its traceback and the input in a file `crash-…`.
"""

import importlib
import sys

import atheris


def main() -> None:
    """Fuzzes the target that the first argument names."""
    target = sys.argv.pop(1)
    with atheris.instrument_imports(include=["nyx_stream.isolation.remote"], enable_loader_override=False):
        consume = importlib.import_module(f"tests.fuzz.{target}").consume
    atheris.Setup(sys.argv, consume)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
