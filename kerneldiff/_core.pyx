# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True, embedsignature=True
"""Memory and threads: hands tiles of pairs to the compiled functions of ``src/``; nothing else.

Arrays come in through the plain buffer protocol, as the compiled functions are chosen at run time
by instruction set and item size: one code path serves float32 and float64, and a small call does
not pay for the dispatch of fused types.  What is not C-contiguous is refused by the buffer
protocol itself; everything else is checked by the callers, in Python.
"""

import os

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange, threadid
from libc.stdint cimport int32_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy


cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define KD_OPENMP 1
    #else
    #define KD_OPENMP 0
    static int omp_get_max_threads(void) { return 1; }
    #endif
    #if defined(__clang__)
    #define KD_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define KD_COMPILER "gcc " __VERSION__
    #else
    #define KD_COMPILER "unknown"
    #endif
    """
    int KD_OPENMP
    const char *KD_COMPILER
    int omp_get_max_threads() noexcept nogil


# How long, in rough nanoseconds, a task may take, and all tasks between two looks at signals; and
# from what total on threads pay for waking them (measured: about 5 microseconds).
cdef double TASK = 2e5
cdef double BATCH = 5e7
cdef double PARALLEL = 3e4

cdef int chosen_isa = -1
cdef bint threads_used = False
cdef bint forked = False


def _after_fork():
    # The OpenMP runtime of GCC does not survive a fork once it has started threads: the child
    # would wait for threads it does not have.  It works alone instead.
    global forked
    forked = threads_used


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


cdef int isa() except -1:
    """The instruction set in use: the best one, or what KERNELDIFF_ISA names."""
    global chosen_isa
    cdef int k
    if chosen_isa >= 0:
        return chosen_isa
    supported = {
        kd_isa_name(k).decode(): k for k in range(KD_N_ISA) if kd_isa_supported(k)
    }
    wanted = os.environ.get("KERNELDIFF_ISA")
    if not wanted:
        chosen_isa = max(supported.values())
    elif wanted in supported:
        chosen_isa = supported[wanted]
    else:
        raise ValueError(
            f"KERNELDIFF_ISA is {wanted!r}; on this machine it may be one of "
            f"{', '.join(map(repr, supported))}, or unset for the best of them."
        )
    return chosen_isa


cdef int max_threads() noexcept:
    return 1 if forked else omp_get_max_threads()


def config():
    """Return what the library was built with and what it uses, as a dict."""
    names = [kd_isa_name(k).decode() for k in range(KD_N_ISA)]
    return {
        "isa": names[isa()],
        "isa_built": tuple(names[k] for k in range(KD_N_ISA) if kd_isa_built(k)),
        "isa_supported": tuple(names[k] for k in range(KD_N_ISA) if kd_isa_supported(k)),
        "compiler": KD_COMPILER.decode(),
        "openmp": bool(KD_OPENMP),
        "threads": max_threads(),
    }


JETS = {kd_jet_name(number).decode(): number for number in range(kd_n_jets())}


cdef class Buffer:
    """The memory of a C-contiguous array, held while this object lives."""

    cdef Py_buffer view

    def __cinit__(self, array, bint writable=False):
        PyObject_GetBuffer(array, &self.view, PyBUF_C_CONTIGUOUS | (PyBUF_WRITABLE if writable else 0))

    def __dealloc__(self):
        PyBuffer_Release(&self.view)


cdef class Workspace:
    """Zeroed memory on a cache line, freed with this object."""

    cdef void *block
    cdef char *next

    def __cinit__(self, size_t size):
        self.block = calloc(size + 64, 1)
        if self.block == NULL:
            raise MemoryError(f"{size / 2**30:.3g} GiB of workspace could not be allocated")
        self.next = <char *> ((<uintptr_t> self.block + 63) & ~(<uintptr_t> 63))

    cdef void *take(self, size_t size) noexcept:
        cdef void *start = self.next
        self.next += size
        return start

    def __dealloc__(self):
        free(self.block)


cdef inline size_t lines(size_t size) noexcept nogil:
    """A size rounded up to whole cache lines."""
    return (size + 63) & ~(<size_t> 63)


cdef class Program:
    """A kernel as the C core reads it: invariants, steps over buffers, parameters.

    Parameters
    ----------
    invariants : list of (kind, weights)
        kind is "sqdist" or "dot"; weights a float64 array of shape (D,), or None for ones.
    steps : list of (jet, dst, a, b, order, parameters)
        jet is a name of `JETS`; dst, a and b are buffer numbers.
    n_buf : int
        How many buffers there are.
    jet : int
        The buffer at which the kernel's own jet begins.
    """

    cdef kd_program c
    cdef list weights
    cdef void *memory

    def __cinit__(self, invariants, steps, int n_buf, int jet):
        cdef Py_ssize_t k, n_par = 0
        for step in steps:
            n_par += len(step[5])
        cdef size_t inv_bytes = lines(len(invariants) * sizeof(kd_invariant))
        cdef size_t instr_bytes = lines(len(steps) * sizeof(kd_instr))
        self.memory = calloc(inv_bytes + instr_bytes + (n_par + 1) * sizeof(double), 1)
        if self.memory == NULL:
            raise MemoryError("no memory for a kernel's program")
        cdef kd_invariant *inv = <kd_invariant *> self.memory
        cdef kd_instr *instr = <kd_instr *> (<char *> self.memory + inv_bytes)
        cdef double *par = <double *> (<char *> instr + instr_bytes)
        self.weights = []
        for k in range(len(invariants)):
            kind, weights = invariants[k]
            inv[k].kind = KD_DOT if kind == "dot" else KD_SQDIST
            inv[k].plain = weights is None
            self.weights.append(weights)
        n_par = 0
        for k in range(len(steps)):
            name, dst, a, b, order, parameters = steps[k]
            instr[k].op = JETS[name]
            instr[k].dst = dst
            instr[k].a = a
            instr[k].b = b
            instr[k].order = order
            instr[k].par = <int32_t> n_par
            for value in parameters:
                par[n_par] = value
                n_par += 1
        self.c.n_inv = <int32_t> len(invariants)
        self.c.n_instr = <int32_t> len(steps)
        self.c.n_buf = n_buf
        self.c.jet = jet
        self.c.inv = inv
        self.c.instr = instr
        self.c.par = par

    def __dealloc__(self):
        free(self.memory)


cdef inline Py_ssize_t clip(double x, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    return low if x < low else high if x > high else <Py_ssize_t> x


def tensor(Program program, x, y, out, int which, bint mixed, bint stream):
    """Write one derivative of a kernel for all pairs of points.

    Parameters
    ----------
    program : Program
    x, y : ndarray of shape (N, D) and (M, D)
        Of the same type, float32 or float64, C-contiguous.
    out : ndarray of shape (N, M, ...)
    which : int
        What to write: 0 values, 1 gradient, 2 Hessian diagonal, 3 Hessian, 4 packed Hessian.
    mixed : bool
        Whether the derivative is of odd order in y.
    stream : bool
        Whether stores bypass the caches.
    """
    cdef Buffer xb = Buffer(x), yb = Buffer(y), ob = Buffer(out, True)
    cdef Py_ssize_t real_bytes = xb.view.itemsize
    cdef const kd_table *table = kd_get_table(isa(), <int> real_bytes)
    cdef Py_ssize_t n = xb.view.shape[0], m = yb.view.shape[0], d = xb.view.shape[1]
    if n == 0 or m == 0 or ob.view.len == 0:
        return
    cdef Py_ssize_t size = ob.view.len // (real_bytes * n * m)

    # Rough nanoseconds for a pair.
    cdef double cost = 2 + 0.1 * d * program.c.n_inv + 0.05 * real_bytes * size
    cdef double total = cost * n * m
    cdef int threads = max_threads() if total > PARALLEL else 1

    cdef Py_ssize_t panel = KD_PANEL_BYTES // real_bytes, n_panels = (m + panel - 1) // panel
    cdef Py_ssize_t pad = KD_PAD_BYTES // real_bytes, dp = (d + pad - 1) // pad * pad + pad
    cdef size_t work_bytes = lines(table.work_bytes(&program.c, d))
    cdef Workspace space = Workspace(
        lines(n_panels * panel * d * real_bytes) + (program.c.n_inv + 1) * lines(dp * real_bytes)
        + threads * work_bytes
    )
    cdef kd_call call
    cdef char *panels = <char *> space.take(lines(n_panels * panel * d * real_bytes))
    cdef char *last = <char *> space.take(lines(dp * real_bytes))
    cdef char *weights = <char *> space.take(program.c.n_inv * lines(dp * real_bytes))
    cdef char *work = <char *> space.take(threads * work_bytes)
    cdef const double[::1] w
    cdef Py_ssize_t k
    for k in range(program.c.n_inv):
        if program.weights[k] is None:
            table.widen(NULL, d, weights + k * dp * real_bytes)
        else:
            w = program.weights[k]
            table.widen(&w[0], d, weights + k * dp * real_bytes)
    memcpy(last, <const char *> yb.view.buf + (m - 1) * d * real_bytes, d * real_bytes)
    call.prog = &program.c
    call.n = n
    call.m = m
    call.d = d
    call.x = xb.view.buf
    call.y = yb.view.buf
    call.panels = panels
    call.y_last = last
    call.weights = weights
    call.out = ob.view.buf
    call.tensor = which
    call.mixed = mixed
    call.stream = stream

    # Tasks: blocks of rows and columns, 48 rows high where there are enough of them.
    cdef double limit = min(TASK, total / (4 * threads)) / cost
    cdef Py_ssize_t rows = 48, cols
    while rows > KD_ROWS and rows * 2 * panel > limit:
        rows //= 2
    if rows * panel > 50 * limit:
        rows = 1
    cols = clip(limit / rows, 1, m)
    if cols > panel:
        cols = min(m, (cols + panel - 1) // panel * panel)
    cdef Py_ssize_t row_tasks = (n + rows - 1) // rows, col_tasks = (m + cols - 1) // cols
    cdef Py_ssize_t tasks = row_tasks * col_tasks
    cdef Py_ssize_t batch = clip(BATCH * threads / (cost * rows * cols), threads, tasks)
    cdef Py_ssize_t start, stop, t, i, j
    cdef Py_ssize_t pack_batch = clip(BATCH / (panel * (d + 1)), 1, n_panels)
    global threads_used
    threads_used = threads_used or threads > 1

    start = 0
    while start < n_panels:
        stop = min(start + pack_batch, n_panels)
        with nogil:
            for t in prange(start, stop, num_threads=threads, schedule="static"):
                table.pack(call.y, m, d, t, t + 1, panels)
        PyErr_CheckSignals()
        start = stop
    start = 0
    while start < tasks:
        stop = min(start + batch, tasks)
        with nogil:
            for t in prange(start, stop, num_threads=threads, schedule="dynamic"):
                i = t // col_tasks * rows
                j = t % col_tasks * cols
                table.tensor(&call, i, min(i + rows, n), j, min(j + cols, m),
                             work + threadid() * work_bytes)
        PyErr_CheckSignals()
        start = stop


def tanh(x, w, out, bint jacobian, bint stream):
    """Write a tanh basis or its compact Jacobian.

    Parameters
    ----------
    x : ndarray of shape (N, D)
    w : ndarray of shape (D + 1, K)
    out : ndarray of shape (N, K), or (N, D + 1, K) for the Jacobian
    jacobian, stream : bool
    """
    cdef Buffer xb = Buffer(x), wb = Buffer(w), ob = Buffer(out, True)
    cdef const kd_table *table = kd_get_table(isa(), <int> xb.view.itemsize)
    cdef Py_ssize_t n = xb.view.shape[0], d = xb.view.shape[1], k = wb.view.shape[1]
    if ob.view.len == 0:
        return
    cdef kd_tanh_call call
    call.n = n
    call.d = d
    call.k = k
    call.x = xb.view.buf
    call.w = wb.view.buf
    call.out = ob.view.buf
    call.jacobian = jacobian
    call.stream = stream
    cdef double cost = k * (3 + 0.1 * d + (0.4 * (d + 1) if jacobian else 0))
    cdef int threads = max_threads() if cost * n > PARALLEL else 1
    cdef Py_ssize_t rows = clip(min(TASK, cost * n / (4 * threads)) / cost, 1, n)
    cdef Py_ssize_t tasks = (n + rows - 1) // rows
    cdef Py_ssize_t batch = clip(BATCH * threads / (cost * rows), threads, tasks)
    cdef size_t work_bytes = lines(table.tanh_work_bytes(d, k))
    cdef Workspace space = Workspace(threads * work_bytes)
    cdef char *work = <char *> space.take(threads * work_bytes)
    cdef Py_ssize_t start = 0, stop, t
    global threads_used
    threads_used = threads_used or threads > 1
    while start < tasks:
        stop = min(start + batch, tasks)
        with nogil:
            for t in prange(start, stop, num_threads=threads, schedule="dynamic"):
                table.tanh(&call, t * rows, min((t + 1) * rows, n), work + threadid() * work_bytes)
        PyErr_CheckSignals()
        start = stop


VMATH = tuple(kd_vmath_name(number).decode() for number in range(kd_n_vmath()))


def vmath(name, x, double p=0.0):
    """Apply a function of ``src/vmath.h`` to each element; p is its second argument, if any."""
    cdef Buffer xb = Buffer(x)
    y = x.copy()
    cdef Buffer yb = Buffer(y, True)
    cdef const kd_table *table = kd_get_table(isa(), <int> xb.view.itemsize)
    table.vmath(VMATH.index(name), xb.view.buf, p, yb.view.buf, xb.view.len // xb.view.itemsize)
    return y


def fill(out, double value, bint stream, int threads):
    """Fill a contiguous array: the yardstick of the write bandwidth.

    Parameters
    ----------
    out : ndarray
        float32 or float64, C-contiguous.
    value : float
    stream : bool
        Whether stores bypass the caches.
    threads : int
    """
    cdef Buffer ob = Buffer(out, True)
    cdef Py_ssize_t item = ob.view.itemsize, n = ob.view.len // item
    cdef const kd_table *table = kd_get_table(isa(), <int> item)
    cdef char *p = <char *> ob.view.buf
    cdef Py_ssize_t chunk = (n + threads - 1) // threads, t
    with nogil:
        for t in prange(threads, num_threads=threads, schedule="static"):
            if t * chunk < n:
                table.fill(p + t * chunk * item, value, min(chunk, n - t * chunk), stream)
