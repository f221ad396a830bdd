"""Python in processes of its own: for other settings, for signals."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]


def environment(*, isa=None, threads=None):
    """Environment of a subprocess: an instruction set and a number of threads, if given."""
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    if isa is not None:
        env["KERNELDIFF_ISA"] = isa
    if threads is not None:
        env["OMP_NUM_THREADS"] = str(threads)
    return env


def command(code, *arguments):
    """Command line that runs a piece of Python; -P so that the source tree is never imported."""
    return [sys.executable, "-P", "-c", textwrap.dedent(code), *map(str, arguments)]


def run_python(code, *arguments, isa=None, threads=None, timeout=1200):
    """Run a piece of Python in a process of its own and return what it printed."""
    done = subprocess.run(
        command(code, *arguments),
        env=environment(isa=isa, threads=threads),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def report_interrupt(call):
    """Make a call that Ctrl-C ends, and print when it has, and the processor time that it took.

    For `assert_interruptible`.
    """
    # Shells start jobs in the background with the signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = time.process_time()
    print("ready", flush=True)
    try:
        call()
        print("finished")
    except KeyboardInterrupt:
        print(time.monotonic(), time.process_time() - before)


def assert_interruptible(code, *arguments, isa=None, threads=None):
    """Check that a signal ends a call within a second, from wherever it is.

    The code, run in a process of its own, passes the call to `report_interrupt`. It takes ten
    seconds or more, and what comes before the compiled loops is done in a few milliseconds.
    """
    with subprocess.Popen(
        command(code, *arguments),
        env=environment(isa=isa, threads=threads),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
            time.sleep(0.5)
            sent = time.monotonic()
            process.send_signal(signal.SIGINT)
            said, complaints = process.communicate(timeout=600)
        finally:
            process.kill()
    assert process.returncode == 0, complaints
    assert said != "finished\n"
    # Not a speed, but a promise. The clock is the same for all processes. On a machine that is busy
    # with other things it says little, but then the call has had little of a processor: half a
    # second before the signal and the promised one after it, where it runs in a thread or two.
    ended, used = map(float, said.split())
    assert min(ended - sent, used) < 2


def subnormals_alive():
    """Whether this thread neither flushes subnormal results to zero nor reads them as zero."""
    tiny = np.array([np.finfo(np.float64).smallest_normal])
    small = np.array([np.finfo(np.float64).smallest_subnormal])
    return bool((tiny / 2 > 0).all() and (small * 2.0**60 > 0).all())
