"""Memory where a mistake shows: beside forbidden pages, without end, or counted.

For processes of their own, as forbidden pages end those that touch them.
"""

import ctypes
import math
import mmap
import os

import numpy as np

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
PAGE = mmap.PAGESIZE
PIECE = 2**26
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_NORESERVE = 1, 2, 16, 16384  # on Linux


def guarded(array, side):
    """A copy with its end, or its begin, at a page that must not be touched (POSIX)."""
    pages = -(-max(array.nbytes, 1) // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for address in (start, start + (pages + 1) * PAGE):
        assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), 0) == 0
    offset = PAGE if side == "begin" else (pages + 1) * PAGE - array.nbytes
    copy = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    copy[...] = array
    return copy


def assert_stays_inside(function, *arrays):
    """Check a function with such copies and such an output; the system ends it if it strays."""
    expected = function(*arrays)
    for side in ("begin", "end"):
        out = guarded(np.full_like(expected, np.nan), side)
        function(*[guarded(array, side) for array in arrays], out=out)
        np.testing.assert_array_equal(out, expected)


def huge(shape, dtype):
    """An array larger than any memory, of which what is written is of no interest (Linux).

    The same 64 MiB are mapped again and again, one behind the other.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    whole = -(-size // PIECE) * PIECE
    file = os.memfd_create("out")
    os.ftruncate(file, PIECE)
    start = libc.mmap(
        None, whole, mmap.PROT_READ, MAP_PRIVATE | mmap.MAP_ANON | MAP_NORESERVE, -1, 0
    )
    for address in range(start, start + whole, PIECE):
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        found = libc.mmap(address, PIECE, protection, MAP_SHARED | MAP_FIXED, file, 0)
        assert found == address
    return np.frombuffer((ctypes.c_char * size).from_address(start), dtype).reshape(shape)


def peak_growth(call):
    """How many bytes this process grows by while a call lasts, at most; and its result (Linux)."""

    def status(name):
        with open("/proc/self/status") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # forget the peak so far
    before = status("VmRSS")
    result = call()
    return status("VmHWM") - before, result
