# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True, embedsignature=True
"""Memory and threads: hands tiles of pairs to the compiled functions of ``src/``; nothing else.

Arrays come in through the plain buffer protocol, as the compiled functions are chosen at run time
by instruction set and item size: one code path serves float32 and float64, and a small call does
not pay for the dispatch of fused types.  What is not C-contiguous is refused by the buffer
protocol itself; everything else is checked by the callers, in Python.
"""

import array
import os
from time import perf_counter_ns

import numpy as np

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetContext, PyCapsule_GetName, PyCapsule_GetPointer
from cython.parallel cimport prange, threadid
from libc.math cimport exp, fabs, isinf, isnan, log, sqrt
from libc.stdint cimport int8_t, int32_t, int64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from scipy.special.cython_special cimport gammaln, kve


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


# How long, in rough nanoseconds, a task may take; from what total on threads are woken (measured:
# it takes 5 microseconds on an idle machine, and 150 where other work wants the cores); and about
# how often to look at signals, in nanoseconds: first by that rough measure, as fresh memory may be
# ten times slower, then by the clock. CACHED: how many bytes of points should stay in the
# second-level cache. LANES: bytes for sums of which each part of the points has its own.
cdef double TASK = 2e5
cdef double PARALLEL = 3e5
cdef double FIRST_LOOK = 1e7
cdef Py_ssize_t CACHED = 2**18
cdef double LANES = 2**27
cdef double LOOK = 5e7

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


MAX_INVARIANTS = KD_MAX_INV
MAX_ORDER = KD_MAX_ORDER

# What a step of a program may do, by name.
OPS = {kd_jet_name(number).decode(): number for number in range(kd_n_jets())}
OPS |= {
    "set": KD_OP_SET,
    "add": KD_OP_ADD,
    "scale": KD_OP_SCALE,
    "scale_add": KD_OP_SCALE_ADD,
    "mul": KD_OP_MUL,
    "mul_add": KD_OP_MUL_ADD,
    "reciprocal": KD_OP_RECIPROCAL,
    "callback": KD_OP_CALLBACK,
}


cdef class Buffer:
    """The memory of a C-contiguous array, held while this object lives."""

    cdef Py_buffer view

    def __cinit__(self, owner, bint writable=False):
        cdef int flags = PyBUF_C_CONTIGUOUS | (PyBUF_WRITABLE if writable else 0)
        PyObject_GetBuffer(owner, &self.view, flags)

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


cdef class Callback:
    """A jet that is not compiled in: a function of Python, or one found by its address."""

    cdef kd_callback c
    cdef object function
    cdef object error


cdef void call_python(
    const double *a, Py_ssize_t n, int order, double *f, void *data
) noexcept with gil:
    cdef Callback self = <Callback> data
    cdef double[:, ::1] result = <double[:order + 1, :n]> f
    cdef const double[::1] argument
    cdef const double[:, :] returned
    result[:, :] = 0
    if self.error is not None or n == 0:
        return
    try:
        argument = <double[:n]> (<double *> a)
        values = np.asarray(self.function(np.array(argument), order))
        if values.dtype.kind not in "biuf":
            raise ValueError(
                f"jet returned an array of type {values.dtype}; it must hold real numbers"
            )
        values = values.astype(np.float64, copy=False)
        if values.shape != (order + 1, n):
            raise ValueError(
                f"jet returned an array of shape {values.shape} for order={order} and {n} "
                f"arguments; it must have shape {(order + 1, n)}"
            )
        returned = values
        result[:, :] = returned
    except BaseException as error:
        self.error = error


cdef void call_matern(
    const double *a, Py_ssize_t n, int order, double *f, void *data
) noexcept nogil:
    """Matern kernel of any nu > 0, and derivatives: with t = sqrt(2 nu s),

        F^(q)(s) = (-nu)^q 2^(1 - nu) / Gamma(nu) t^(nu - q) K_(nu - q)(t)

    (d/dt t^p K_p = -t^p K_(p - 1), Abramowitz and Stegun 9.6.28, and dt/ds = nu / t)."""
    cdef double nu = (<double *> data)[0], log_c = (1 - nu) * log(2.0) - gammaln(nu)
    cdef double t, p, k, value, c
    cdef Py_ssize_t i
    cdef int q
    for i in range(n):
        t = sqrt(2 * nu * a[i])
        c = 1
        for q in range(order + 1):
            p = nu - q
            if t == 0:
                # The limit, or 0 where there is none.
                value = exp(log_c + (p - 1) * log(2.0) + gammaln(p)) if p > 0 else 0
            else:
                k = kve(fabs(p), t)
                if isinf(k) and p > 0:
                    # K_p(t) ~ Gamma(p) / 2 (2 / t)^p is beyond the range of numbers.
                    value = exp(log_c + (p - 1) * log(2.0) + gammaln(p))
                elif k == 0 or isinf(k) or isnan(k):
                    # Far away: SciPy has no value beyond t of about 2e9.
                    value = 0
                else:
                    value = exp(log_c + p * log(t) + log(k) - t)
            f[q * n + i] = c * value
            c *= -nu


def python_callback(function):
    """A jet computed by ``function(a, order)``, an array of shape (order + 1, n)."""
    cdef Callback self = Callback()
    self.function = function
    self.c.jet = call_python
    self.c.data = <void *> self
    return self


def matern_callback(double nu):
    """The jet of a Matern kernel in s, of length scale 1."""
    cdef Callback self = Callback()
    self.function = array.array("d", [nu])
    cdef const double[::1] data = self.function
    self.c.jet = call_matern
    self.c.data = <void *> &data[0]
    return self


SIGNATURE = "void (double *, ptrdiff_t, int, double *, void *)"

# Other spellings of that type, as scipy.LowLevelCallable makes them from ctypes and numba.
_SIGNATURES = {
    SIGNATURE.replace("ptrdiff_t", name)
    for name in ("ptrdiff_t", "npy_intp", "intptr_t", "Py_ssize_t", "ssize_t")
    + tuple(
        spelling
        for spelling, size in (("long", sizeof(long)), ("long long", sizeof(long long)))
        if size == sizeof(Py_ssize_t)
    )
}


def compiled_callback(function):
    """A jet computed by a `scipy.LowLevelCallable` of the signature `SIGNATURE`."""
    cdef Callback self = Callback()
    if function.signature not in _SIGNATURES:
        raise ValueError(f"jet has the signature {function.signature!r}; it must be {SIGNATURE!r}")
    self.function = function
    capsule = tuple.__getitem__(function, 0)
    cdef const char *name = PyCapsule_GetName(capsule)
    self.c.jet = <void (*)(const double *, Py_ssize_t, int, double *, void *) noexcept nogil> (
        PyCapsule_GetPointer(capsule, name))
    self.c.data = PyCapsule_GetContext(capsule)
    return self


cdef class Program:
    """A kernel as the C core reads it: invariants, steps over buffers, parameters.

    Parameters
    ----------
    invariants : list of (kind, left, right, weights)
        kind is "sqdist", "dot" or "bilinear"; left and right are four numbers each, see
        ``src/kd.h``; weights an array of shape (D,), or None for ones.
    steps : list of (op, dst, a, b, order, parameters)
        op is a name of `OPS`; dst, a and b are buffer numbers.
    n_buf : int
        How many buffers there are.
    jet : list of int
        The buffers of F, its first derivatives, ..., up to `order`.
    order : int
    rough : list of (invariant, limit, already, seen)
        Where derivatives do not exist, see ``src/kd.h``; seen is a bytes object of D flags.
    callbacks : list of Callback
    radial : list of int
        The buffers of second derivatives by the root of each invariant, or -1, see ``src/kd.h``.
    """

    cdef kd_program c
    cdef Py_ssize_t n_rough
    cdef kd_rough *rough
    cdef list keep
    cdef readonly list weights
    cdef list callbacks
    cdef void *memory

    def __cinit__(self, invariants, steps, int n_buf, jet, int order, rough=(), callbacks=(),
                  radial=()):
        cdef Py_ssize_t k, e, n_par = 0
        cdef const char *seen
        for step in steps:
            n_par += len(step[5])
        cdef size_t size[6]
        size[0] = lines(len(invariants) * sizeof(kd_invariant))
        size[1] = lines(len(steps) * sizeof(kd_instr))
        size[2] = lines((n_par + 1) * sizeof(double))
        size[3] = lines((len(jet) + len(radial)) * sizeof(int32_t))
        size[4] = lines(len(rough) * sizeof(kd_rough))
        size[5] = lines(len(callbacks) * sizeof(kd_callback))
        self.memory = calloc(size[0] + size[1] + size[2] + size[3] + size[4] + size[5], 1)
        if self.memory == NULL:
            raise MemoryError("no memory for a kernel's program")
        cdef char *p = <char *> self.memory
        cdef kd_invariant *inv = <kd_invariant *> p
        p += size[0]
        cdef kd_instr *instr = <kd_instr *> p
        p += size[1]
        cdef double *par = <double *> p
        p += size[2]
        cdef int32_t *table = <int32_t *> p
        p += size[3]
        self.rough = <kd_rough *> p
        p += size[4]
        cdef kd_callback *calls = <kd_callback *> p
        self.weights = []
        for k in range(len(invariants)):
            kind, left, right, weights = invariants[k]
            inv[k].kind = (
                KD_SQDIST if kind == "sqdist" else KD_DOT if kind == "dot" else KD_BILINEAR
            )
            inv[k].plain = weights is None
            for e in range(4):
                inv[k].left[e] = left[e]
                inv[k].right[e] = right[e]
            self.weights.append(weights)
        n_par = 0
        for k in range(len(steps)):
            name, dst, a, b, step_order, parameters = steps[k]
            instr[k].op = OPS[name]
            instr[k].dst = dst
            instr[k].a = a
            instr[k].b = b
            instr[k].order = step_order
            instr[k].par = <int32_t> n_par
            for value in parameters:
                par[n_par] = value
                n_par += 1
        for k in range(len(jet)):
            table[k] = jet[k]
        for k in range(len(radial)):
            table[len(jet) + k] = radial[k]
        self.keep = []
        self.n_rough = len(rough)
        for k in range(self.n_rough):
            number, limit, already, flags = rough[k]
            self.keep.append(flags)
            seen = flags
            self.rough[k].inv = number
            self.rough[k].limit = limit
            self.rough[k].already = already
            self.rough[k].seen = <const int8_t *> seen
        self.callbacks = list(callbacks)
        for k in range(len(self.callbacks)):
            calls[k] = (<Callback> self.callbacks[k]).c
        self.c.n_inv = <int32_t> len(invariants)
        self.c.n_instr = <int32_t> len(steps)
        self.c.n_buf = n_buf
        self.c.order = order
        self.c.inv = inv
        self.c.instr = instr
        self.c.par = par
        self.c.jet = table
        if radial:
            self.c.radial = table + <Py_ssize_t> len(jet)
        self.c.callbacks = calls

    def __dealloc__(self):
        free(self.memory)

    cdef check(self):
        """Raise what a jet written in Python has raised."""
        for callback in self.callbacks:
            error = (<Callback> callback).error
            if error is not None:
                (<Callback> callback).error = None
                raise error


cdef inline Py_ssize_t clip(double x, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    return low if x < low else high if x > high else <Py_ssize_t> x


cdef class Pace:
    """How many tasks to do between two looks at signals, from how long they took so far."""

    cdef double before
    cdef Py_ssize_t start, stop, batch, tasks

    def __cinit__(self, Py_ssize_t tasks, double cost, int threads):
        self.tasks = tasks
        self.batch = clip(threads * FIRST_LOOK / cost, threads, tasks + 1)
        self.before = perf_counter_ns()

    cdef bint more(self) except -1:
        """Look at signals; set start and stop of the next batch, if there is one."""
        cdef double now
        if self.stop:
            PyErr_CheckSignals()
            now = perf_counter_ns()
            if now - self.before > 2 * LOOK:
                self.batch = max(1, self.batch // 2)
            elif now - self.before < LOOK / 2:
                self.batch *= 2
            self.before = now
        self.start = self.stop
        self.stop = min(self.tasks, self.start + self.batch)
        return self.start < self.stop


cdef run(Program program, x, y, u, v, kd_call *call, Py_ssize_t size, Py_ssize_t matrix_rows):
    """Pack, split the pairs of points into tasks, and run them.

    A pair has `size` entries, in a matrix of `matrix_rows` rows."""
    cdef Buffer xb = Buffer(x), yb = Buffer(y), ub = Buffer(u), vb = Buffer(v)
    cdef Py_ssize_t real_bytes = xb.view.itemsize
    cdef const kd_table *table = kd_get_table(isa(), <int> real_bytes)
    cdef Py_ssize_t n = xb.view.shape[0], m = yb.view.shape[0], d = xb.view.shape[1]
    cdef bint directed = v is not y
    cdef int n_inv = program.c.n_inv

    # Rough nanoseconds for a pair.
    cdef double cost = 2 + 0.1 * d * n_inv + 0.1 * program.c.n_instr + 0.05 * real_bytes * size
    if program.callbacks:
        cost += 1000
    cdef double total = cost * n * m
    cdef int threads = max_threads() if total > PARALLEL else 1

    call.prog = &program.c
    call.n = n
    call.m = m
    call.d = d
    call.x = xb.view.buf
    call.y = yb.view.buf
    call.u = ub.view.buf
    call.v = vb.view.buf
    call.n_rough = <int32_t> program.n_rough
    call.rough = program.rough
    cdef Py_ssize_t panel = KD_PANEL_BYTES // real_bytes, n_panels = (m + panel - 1) // panel
    cdef Py_ssize_t pad = KD_PAD_BYTES // real_bytes
    cdef size_t point = ((d + pad - 1) // pad * pad + pad) * real_bytes
    cdef Py_ssize_t n_last = min(m, <Py_ssize_t> KD_LAST)
    cdef size_t tail = lines(KD_LAST * d * real_bytes) + KD_PAD_BYTES
    cdef size_t packed = lines(n_panels * panel * d * real_bytes)
    cdef size_t work_bytes = lines(table.work_bytes(call))
    cdef Workspace space = Workspace(
        (1 + directed) * (packed + tail) + n_inv * point + threads * work_bytes
    )
    cdef char *panels = <char *> space.take(packed)
    cdef char *last = <char *> space.take(tail)
    cdef char *v_panels = <char *> space.take(packed) if directed else panels
    cdef char *v_last = <char *> space.take(tail) if directed else last
    cdef char *weights = <char *> space.take(n_inv * point)
    cdef char *work = <char *> space.take(threads * work_bytes)
    cdef const double[::1] w
    cdef Py_ssize_t k
    for k in range(n_inv):
        if program.weights[k] is None:
            table.widen(NULL, d, weights + k * point)
        elif d > 0:
            w = program.weights[k]
            table.widen(&w[0], d, weights + k * point)
    cdef Py_ssize_t before = (m - n_last) * d * real_bytes, tail_bytes = n_last * d * real_bytes
    memcpy(last, <const char *> yb.view.buf + before, tail_bytes)
    if directed:
        memcpy(v_last, <const char *> vb.view.buf + before, tail_bytes)
    call.panels = panels
    call.v_panels = v_panels
    call.y_last = last
    call.v_last = v_last
    call.weights = weights

    # Tasks: as many columns as stay in the second-level cache, and some rows, so that a task writes
    # neighbouring memory (threads that touch one fresh page for the first time both clear it); or,
    # where the matrix of a single pair is large, some rows of it.
    cdef double limit = min(TASK, total / (4 * threads)) / cost
    cdef Py_ssize_t part = matrix_rows
    cdef Py_ssize_t cols = min(m, max(panel, CACHED // (max(1, d) * real_bytes)))
    cdef Py_ssize_t rows = clip(limit / cols, 0, 48) // KD_ROWS * KD_ROWS
    if rows == 0:
        rows = KD_ROWS
        if cols * rows > 4 * limit:
            cols = clip(4 * limit / rows, 1, m)
    if cols > panel:
        cols = min(m, (cols + panel - 1) // panel * panel)
    elif rows * panel > 50 * limit:
        rows = cols = 1
    if cost > 50 * TASK:
        part = clip(matrix_rows * 10 * TASK / cost, 1, matrix_rows)
    cdef Py_ssize_t row_tasks = (n + rows - 1) // rows, col_tasks = (m + cols - 1) // cols
    cdef Py_ssize_t parts = (matrix_rows + part - 1) // part
    cdef Py_ssize_t t, i, j, a
    cdef bint lower = call.lower
    global threads_used
    threads_used = threads_used or threads > 1
    cdef double packing = panel * (d + 1)
    cdef int packers = threads if packing * n_panels > PARALLEL else 1
    cdef Pace pace = Pace(n_panels, packing, packers)
    while pace.more():
        with nogil:
            for t in prange(pace.start, pace.stop, num_threads=packers, schedule="static"):
                table.pack(call.y, m, d, t, t + 1, panels)
                if directed:
                    table.pack(call.v, m, d, t, t + 1, v_panels)
    pace = Pace(row_tasks * col_tasks * parts, cost * rows * cols / parts, threads)
    while pace.more():
        with nogil:
            for t in prange(pace.start, pace.stop, num_threads=threads, schedule="dynamic"):
                i = t // parts // col_tasks * rows
                j = t // parts % col_tasks * cols
                a = t % parts * part
                if not (lower and j + cols <= i):
                    table.tensor(call, i, min(i + rows, n), j, min(j + cols, m),
                                 a, min(a + part, matrix_rows), work + threadid() * work_bytes)
        program.check()


def tensor(Program program, x, y, out, int which, str wrt, bint stream):
    """Write one derivative of a kernel for all pairs of points.

    Parameters
    ----------
    program : Program
    x, y : ndarray of shape (N, D) and (M, D)
        Of the same type, float32 or float64, C-contiguous.
    out : ndarray of shape (N, M, ...)
    which : int
        What to write: 0 values, 1 gradient, 2 Hessian diagonal, 3 Hessian, 4 packed Hessian.
    wrt : str
        The sides of the derivatives, "" to "yy".
    stream : bool
        Whether stores bypass the caches.
    """
    cdef Buffer ob = Buffer(out, True)
    cdef kd_call call
    if ob.view.len == 0:
        return
    memset(&call, 0, sizeof(call))
    call.out = ob.view.buf
    call.tensor = which
    call.first_y = wrt[:1] == "y"
    call.other_y = wrt[1:] == "y"
    call.which = call.first_y + call.other_y
    call.stream = stream
    run(program, x, y, x, y, &call, ob.view.len // (ob.view.itemsize * len(x) * len(y)),
        max(1, x.shape[1]))


def blocks(Program program, x, y, u, v, out, Py_ssize_t offset, Py_ssize_t ld, int rows, int cols,
           bint lower, bint stream):
    """Write the covariance of functionals for all pairs of points.

    Parameters
    ----------
    program : Program
    x, y : ndarray of shape (N, D) and (M, D)
        Of the same type, float32 or float64, C-contiguous.
    u, v : ndarray of shape (N, D) and (M, D)
        Directions that go with x and y; x and y themselves if there are none.
    out : ndarray
        C-contiguous: the matrix of which this is a part.
    offset, ld : int
        The first entry, and entries between rows.
    rows, cols : int
        Parts of the functionals as bits: 1 value, 2 gradient, 4 Hessian.
    lower : bool
        Whether only the entries from the diagonal on are wanted.
    stream : bool
        Whether stores bypass the caches.
    """
    cdef Buffer ob = Buffer(out, True)
    cdef kd_call call
    cdef Py_ssize_t d = x.shape[1]
    if len(x) == 0 or len(y) == 0 or components(rows, d) == 0 or components(cols, d) == 0:
        return
    memset(&call, 0, sizeof(call))
    call.out = <char *> ob.view.buf + offset * ob.view.itemsize
    call.blocks = True
    call.rows = rows
    call.cols = cols
    call.other_y = True
    call.which = 1
    call.ld = ld
    call.lower = lower
    call.stream = stream
    cdef Py_ssize_t row_size = components(rows, d)
    run(program, x, y, u, v, &call, row_size * components(cols, d), row_size)


cdef Py_ssize_t components(int parts, Py_ssize_t d) noexcept:
    return (parts & 1) + (d if parts & 2 else 0) + (d * d if parts & 4 else 0)

# ------------------------------------------------------------------------------- products


def panel(Py_ssize_t item):
    """Number of points in a panel, for reals of so many bytes."""
    return KD_PANEL_BYTES // item


def aligned(shape, dtype):
    """Return an array of zeros that begins on a cache line, as panels must."""
    dtype = np.dtype(dtype)
    cdef Py_ssize_t size = dtype.itemsize
    for n in shape:
        size *= n
    memory = np.zeros(size + 64, np.uint8)
    cdef Py_ssize_t start = -memory.ctypes.data % 64
    return memory[start:start + size].view(dtype).reshape(shape)


# Products and contractions add up in an order that depends on sizes only, never on threads, so
# that results do not either. The pairs of blocks of one round have no block of sums in common:
#
# - RECTANGLE: rounds go through the columns, tasks are blocks of rows; where these are few, some
#   parts (lanes) of the columns run at once, with sums of their own that are added at the end;
# - TOURNAMENT: each block meets each other one in some round, and itself in the last round (the
#   circle method: one block stays, the others turn);
# - SQUARE: each block of rows meets each block of columns, in turn.
cdef enum:
    RECTANGLE, TOURNAMENT, SQUARE

cdef struct Schedule:
    int kind
    Py_ssize_t n, m
    Py_ssize_t rows, cols          # points of a block
    Py_ssize_t row_blocks, col_blocks
    Py_ssize_t lanes, rounds, tasks


cdef inline Py_ssize_t panels_of(double points, Py_ssize_t panel) noexcept nogil:
    """A number of points rounded up to whole panels, at least one."""
    cdef Py_ssize_t n = <Py_ssize_t> points
    return max(1, (n + panel - 1) // panel) * panel


cdef Schedule make_schedule(
    int kind, Py_ssize_t n, Py_ssize_t m, double cost, Py_ssize_t panel, Py_ssize_t point_bytes
) noexcept nogil:
    """Split n rows and m columns, of which a pair takes about `cost` nanoseconds."""
    cdef Schedule s
    cdef Py_ssize_t per
    s.kind = kind
    s.n = n
    s.m = m
    if kind == RECTANGLE:
        s.cols = panels_of(min(<double> m, max(CACHED / point_bytes, 8 * panel)), panel)
        s.rows = panels_of(min(n / 32.0, TASK / (cost * s.cols)), panel)
        if s.rows * s.cols * cost > 10 * TASK:
            s.cols = panels_of(10 * TASK / (cost * s.rows), panel)
        s.row_blocks = (n + s.rows - 1) // s.rows
        s.col_blocks = (m + s.cols - 1) // s.cols
        s.lanes = min(s.col_blocks, (31 + s.row_blocks) // s.row_blocks)
        s.rounds = (s.col_blocks + s.lanes - 1) // s.lanes
        s.lanes = (s.col_blocks + s.rounds - 1) // s.rounds
        s.tasks = s.row_blocks * s.lanes
        return s
    per = max(n, m)
    s.rows = panels_of(min(max(per / 48.0, sqrt(TASK / 4 / cost)), sqrt(10 * TASK / cost)), panel)
    # Blocks of few points cost more, but signals wait for a task.
    s.rows = max(s.rows, min(4 * panel, panels_of(min(per / 8.0, sqrt(50 * TASK / cost)), panel)))
    if kind == TOURNAMENT:
        # A number of blocks that leaves all of few threads busy in each round.
        s.row_blocks = ((per + s.rows - 1) // s.rows + 3) // 4 * 4
        s.rows = panels_of((per + s.row_blocks - 1) // s.row_blocks, panel)
    s.cols = s.rows
    s.row_blocks = (n + s.rows - 1) // s.rows
    s.col_blocks = (m + s.cols - 1) // s.cols
    s.lanes = 1
    if kind == TOURNAMENT:
        # An odd number gets one more, which is empty; the last round is the diagonal.
        s.rounds = (s.row_blocks + 1) // 2 * 2
        s.tasks = s.row_blocks
    else:
        s.rounds = s.tasks = max(s.row_blocks, s.col_blocks)
    return s


cdef bint meet(
    const Schedule *s, Py_ssize_t turn, Py_ssize_t task, Py_ssize_t *i, Py_ssize_t *j
) noexcept nogil:
    """The blocks of rows and columns of a task; whether there are any."""
    cdef Py_ssize_t even = s.rounds, a, b
    if s.kind == RECTANGLE:
        i[0] = task // s.lanes
        j[0] = task % s.lanes * s.rounds + turn
    elif s.kind == SQUARE:
        i[0] = task
        j[0] = (task + turn) % s.rounds
    elif turn == even - 1:
        i[0] = j[0] = task
    else:
        if task >= even // 2:
            return False
        a = even - 1 if task == 0 else (turn + task) % (even - 1)
        b = turn if task == 0 else (turn - task + even - 1) % (even - 1)
        i[0] = min(a, b)
        j[0] = max(a, b)
    return i[0] < s.row_blocks and j[0] < s.col_blocks


cdef class Watch:
    """Looks at signals about every LOOK nanoseconds."""

    cdef double before

    def __cinit__(self):
        self.before = perf_counter_ns()

    cdef int look(self) except -1:
        cdef double now = perf_counter_ns()
        if now - self.before > LOOK:
            self.before = now
            PyErr_CheckSignals()
        return 0


cdef void widen_weights(
    const kd_table *table, Program program, Py_ssize_t d, size_t point, char *to
) except *:
    cdef const double[::1] w
    cdef Py_ssize_t k
    for k in range(program.c.n_inv):
        if program.weights[k] is None:
            table.widen(NULL, d, to + k * point)
        elif d > 0:
            w = program.weights[k]
            table.widen(&w[0], d, to + k * point)


cdef size_t padded_bytes(Py_ssize_t d, Py_ssize_t real_bytes) noexcept:
    cdef Py_ssize_t pad = KD_PAD_BYTES // real_bytes
    return ((d + pad - 1) // pad * pad + pad) * real_bytes


cdef double pair_cost(Program program, Py_ssize_t d, int rows, int cols, Py_ssize_t k) noexcept:
    """Rough nanoseconds for a pair of points in a product."""
    cdef double size = components(rows, d) + components(cols, d)
    cdef int m = program.c.n_inv
    cdef double cost = 1 + 0.1 * program.c.n_instr + 0.05 * d * m
    if m > 1 or cols & 4 or (rows & 4 and cols != 1):
        size = 8 * m * (size + m * d)  # the general case, which is slower
    if program.callbacks:
        cost += 1000
    return cost + 0.05 * k * size


cdef Py_ssize_t most_vectors(Py_ssize_t k, double cost, Py_ssize_t panel) noexcept:
    """How many of k vectors, each `cost` nanoseconds a pair, let the least task end in time."""
    return clip(50 * TASK / (panel * panel * cost), 1, max(k, 1))


cdef class Side:
    """Points of one side of a product, in panels, with a functional.

    Parameters
    ----------
    points, directions : ndarray of shape (panels, D, panel)
        Made by `aligned`; the directions are the points themselves if there are none.
    n : int
    parts : int
        Parts of the functional as bits: 1 value, 2 gradient, 4 Hessian.
    directional : bool
        In contractions: whether the functional is one number, the directions times the gradient.
    """

    cdef Buffer points_buffer, directions_buffer
    cdef readonly object points, directions
    cdef readonly Py_ssize_t n, d, item
    cdef readonly int parts
    cdef readonly bint directional

    def __cinit__(self, points, directions, Py_ssize_t n, int parts, bint directional=False):
        self.points = points
        self.directions = directions
        self.points_buffer = Buffer(points)
        self.directions_buffer = Buffer(directions)
        self.n = n
        self.d = points.shape[1]
        self.item = self.points_buffer.view.itemsize
        self.parts = parts
        self.directional = directional

    cdef void fill(self, kd_side *side) noexcept:
        side.n = self.n
        side.points = self.points_buffer.view.buf
        side.directions = self.directions_buffer.view.buf
        side.parts = self.parts
        side.directional = self.directional


def product(Program program, Side rows, Side cols, col_vectors, row_vectors, row_sums, col_sums,
            bint total=False):
    """Multiply the covariance of two functionals, and perhaps its transpose, by vectors.

    Parameters
    ----------
    program : Program
    rows, cols : Side
        One and the same for a symmetric covariance: the pairs of points are gone through once.
    col_vectors : ndarray of shape (K, panels, components, panel)
        Zero beyond the last point; what is multiplied.
    row_vectors : ndarray or None
        What the transpose is multiplied by.
    row_sums, col_sums : ndarray
        Of the shapes of the vectors, and zero: the products are added. col_sums may be None.
    total : bool
        Whether this is part of a total derivative, by points that are both rows and columns.
    """
    cdef Buffer vb = Buffer(col_vectors), ub, sb = Buffer(row_sums, True), tb
    cdef kd_product call
    cdef Py_ssize_t item = rows.item, d = rows.d, panel = KD_PANEL_BYTES // item
    cdef const kd_table *table = kd_get_table(isa(), <int> item)
    cdef bint symmetric = rows is cols, both = row_vectors is not None
    memset(&call, 0, sizeof(call))
    call.prog = &program.c
    call.d = d
    call.k = vb.view.shape[0]
    rows.fill(&call.side[0])
    cols.fill(&call.side[1])
    call.side[1].in_ = vb.view.buf
    call.side[0].out = sb.view.buf
    if symmetric:
        call.side[0].in_ = vb.view.buf
        call.side[1].out = sb.view.buf
    elif both:
        ub = Buffer(row_vectors)
        tb = Buffer(col_sums, True)
        call.side[0].in_ = ub.view.buf
        call.side[1].out = tb.view.buf
    call.total = total
    call.n_rough = <int32_t> program.n_rough
    call.rough = program.rough
    cdef Py_ssize_t row_size = components(rows.parts, d), col_size = components(cols.parts, d)
    cdef Py_ssize_t e
    if rows.n == 0 or cols.n == 0 or call.k == 0 or row_size == 0 or col_size == 0:
        return
    cdef double cost = pair_cost(program, d, rows.parts, cols.parts, call.k)
    cdef Py_ssize_t most = most_vectors(
        call.k, pair_cost(program, d, rows.parts, cols.parts, 1)
        - pair_cost(program, d, rows.parts, cols.parts, 0), panel)
    if call.k > most:
        for e in range(0, call.k, most):
            some = slice(e, e + most)
            product(program, rows, cols, col_vectors[some], row_vectors[some] if both else None,
                    row_sums[some], None if col_sums is None else col_sums[some], total)
        return
    cdef int kind = TOURNAMENT if symmetric else SQUARE if both else RECTANGLE
    cdef Schedule s = make_schedule(
        kind, rows.n, cols.n, cost * (1 + (kind != RECTANGLE)), panel,
        item * max(1, d + call.k * min(col_size, 1 + d)))
    cdef int threads = max_threads() if cost * rows.n * cols.n > PARALLEL else 1
    cdef size_t point = padded_bytes(d, item)
    cdef size_t work_bytes = lines(table.product_work_bytes(&call))
    cdef Py_ssize_t row_panels = (rows.n + panel - 1) // panel
    cdef Py_ssize_t col_panels = (cols.n + panel - 1) // panel
    cdef Py_ssize_t size = call.k * row_panels * row_size * panel
    cdef Workspace space = Workspace(
        program.c.n_inv * point + threads * work_bytes + lines((s.lanes - 1) * size * item))
    cdef char *weights = <char *> space.take(program.c.n_inv * point)
    cdef char *work = <char *> space.take(threads * work_bytes)
    # Sums of the first lane go where they belong.
    cdef char *others = <char *> space.take(0) - size * item
    widen_weights(table, program, d, point, weights)
    call.weights = weights
    cdef Py_ssize_t turn, first, last, t, i, j
    cdef Py_ssize_t batch = clip(threads * FIRST_LOOK / (cost * s.rows * s.cols), threads, s.tasks)
    cdef bint twice
    cdef void *out
    cdef Watch watch = Watch()
    global threads_used
    threads_used = threads_used or threads > 1
    for turn in range(s.rounds):
        first = 0
        while first < s.tasks:
            last = min(s.tasks, first + batch)
            with nogil:
                for t in prange(first, last, num_threads=threads, schedule="dynamic"):
                    i = j = 0
                    if meet(&s, turn, t, &i, &j):
                        twice = kind == SQUARE or (kind == TOURNAMENT and i != j)
                        out = call.side[0].out
                        if s.lanes > 1 and t % s.lanes > 0:
                            out = others + t % s.lanes * size * item
                        table.product(&call, i * s.rows, min((i + 1) * s.rows, row_panels * panel),
                                      j * s.cols, min((j + 1) * s.cols, col_panels * panel),
                                      twice, out, work + threadid() * work_bytes)
            first = last
            watch.look()
            program.check()
    if s.lanes > 1:
        lanes = <char[:(s.lanes - 1) * size * item]> (others + size * item)
        parts = np.asarray(lanes).view(row_sums.dtype).reshape(s.lanes - 1, -1)
        flat = row_sums.reshape(-1)
        for e in range(s.lanes - 1):
            flat += parts[e]
    table.product_finish(&call, 0, both or symmetric, 0, row_panels)
    if both and not symmetric:
        table.product_finish(&call, 1, True, 0, col_panels)


def contract(Program program, heads, Side rows, Side cols, w, starts, at, steps, u, v,
             int triangle, sums):
    """Contract derivatives of a covariance of values and gradients with weights of its entries.

    Parameters
    ----------
    program : Program
        If there are no heads, of an order one more than that of the covariance.
    heads : list of (jet, weights)
        For each of them one derivative, or D of them; see ``src/kd.h``. Empty: derivatives by the
        points of the rows.
    rows, cols : Side
    w : ndarray or None
        The weights; entries are found by what follows.
    starts : (int, int)
        The row and the column of `w` at which the functionals' entries begin.
    at : (ndarray, ndarray) or None
        If entries are missing: the row, or column, of `w` for each point and component, -1 for
        none, of type int64 and shape (points rounded up to panels, components).
    steps : (int, int)
        Elements of `w` between rows, and between columns.
    u, v : ndarray of shape (K, panels, components, panel) or None
        If there is no `w`, it is the product of these.
    triangle : int
        0: all pairs. 1 and 2: `w` is symmetric, and its lower triangle is read; 1: all pairs; 2:
        those of the triangle, on behalf of all.
    sums : ndarray of shape (1, panels, D, panel) or None
        Where derivatives by points are added.

    Returns
    -------
    ndarray of shape (number of derivatives,)
    """
    cdef Buffer ab, bb, ub, vb, sb
    cdef kd_contraction call
    cdef Py_ssize_t item = rows.item, d = rows.d, panel = KD_PANEL_BYTES // item, n_results = 0
    cdef const kd_table *table = kd_get_table(isa(), <int> item)
    memset(&call, 0, sizeof(call))
    call.prog = &program.c
    call.d = d
    rows.fill(&call.side[0])
    cols.fill(&call.side[1])
    if w is not None:
        # Not the buffer protocol, which would refuse Fortran order.
        call.w = <const void *> <uintptr_t> w.ctypes.data
        call.row_start, call.col_start = starts
        call.row_step, call.col_step = steps
    else:
        ub = Buffer(u)
        vb = Buffer(v)
        call.k = ub.view.shape[0]
        call.side[0].in_ = ub.view.buf
        call.side[1].in_ = vb.view.buf
    if at is not None:
        ab = Buffer(at[0])
        bb = Buffer(at[1])
        call.row_at = <const int64_t *> ab.view.buf
        call.col_at = <const int64_t *> bb.view.buf
    if sums is not None:
        sb = Buffer(sums, True)
        call.side[0].out = sb.view.buf
    call.triangle = triangle
    call.n_rough = <int32_t> program.n_rough
    call.rough = program.rough
    for _, head_weights in heads:
        n_results += 1 if head_weights is None else d
    cdef Py_ssize_t row_size = components(rows.parts, d), col_size = components(cols.parts, d)
    if rows.n == 0 or cols.n == 0 or row_size == 0 or col_size == 0:
        return np.zeros(n_results)
    cdef int m = program.c.n_inv
    cdef double of_vector = 0.05 * row_size * col_size
    cdef Py_ssize_t e, most = most_vectors(call.k, of_vector, panel)
    if call.k > most:
        total = np.zeros(n_results)
        for e in range(0, call.k, most):
            some = slice(e, e + most)
            total += contract(program, heads, rows, cols, None, starts, at, steps, u[some], v[some],
                              triangle, sums)
        return total
    cdef double cost = (
        pair_cost(program, d, rows.parts, cols.parts, 1) + (0.3 + 0.1 * m) * row_size * col_size
        + of_vector * call.k + 0.2 * n_results
    )
    cdef Schedule s = make_schedule(RECTANGLE, rows.n, cols.n, cost, panel, item * max(1, d))
    cdef int threads = max_threads() if cost * rows.n * cols.n > PARALLEL else 1
    cdef size_t point = padded_bytes(d, item)
    cdef Py_ssize_t row_panels = (rows.n + panel - 1) // panel
    cdef Py_ssize_t col_panels = (cols.n + panel - 1) // panel
    cdef Py_ssize_t size = row_panels * d * panel if sums is not None else 0
    cdef Py_ssize_t n_heads = len(heads)
    call.n_heads = <int32_t> n_heads
    cdef size_t of_heads = lines(n_heads * sizeof(kd_head)), of_jets = 0
    for jet, _ in heads:
        of_jets += lines(len(jet) * sizeof(int32_t)) + point
    # Work is only known when the heads are.
    cdef Workspace heads_space = Workspace(of_heads + of_jets + m * point)
    cdef kd_head *head = <kd_head *> heads_space.take(of_heads)
    cdef char *weights = <char *> heads_space.take(m * point)
    cdef int32_t *table_of_jets
    cdef char *of_head
    cdef const double[::1] hw
    cdef Py_ssize_t h, q
    for h in range(n_heads):
        jet, head_weights = heads[h]
        table_of_jets = <int32_t *> heads_space.take(lines(len(jet) * sizeof(int32_t)))
        for q in range(len(jet)):
            table_of_jets[q] = jet[q]
        head[h].jet = table_of_jets
        head[h].weights = NULL
        of_head = <char *> heads_space.take(point)
        if head_weights is not None:
            hw = head_weights
            if d > 0:
                table.widen(&hw[0], d, of_head)
            head[h].weights = of_head
    call.heads = head
    widen_weights(table, program, d, point, weights)
    call.weights = weights
    cdef size_t work_bytes = lines(table.contraction_work_bytes(&call))
    results = np.zeros((s.rounds * s.tasks, n_results))
    cdef double[:, ::1] result = results
    cdef Workspace space = Workspace(threads * work_bytes + lines((s.lanes - 1) * size * item))
    cdef char *work = <char *> space.take(threads * work_bytes)
    cdef char *others = <char *> space.take(0) - size * item
    cdef Py_ssize_t turn, first, last, t, i, j
    cdef Py_ssize_t batch = clip(threads * FIRST_LOOK / (cost * s.rows * s.cols), threads, s.tasks)
    cdef kd_contraction *mine
    cdef kd_contraction *calls = <kd_contraction *> calloc(s.lanes, sizeof(kd_contraction))
    if calls == NULL:
        raise MemoryError("no memory for a contraction")
    for e in range(s.lanes):
        calls[e] = call
        if e:
            calls[e].side[0].out = others + e * size * item
    cdef Watch watch = Watch()
    global threads_used
    threads_used = threads_used or threads > 1
    try:
        for turn in range(s.rounds):
            first = 0
            while first < s.tasks:
                last = min(s.tasks, first + batch)
                with nogil:
                    for t in prange(first, last, num_threads=threads, schedule="dynamic"):
                        i = j = 0
                        if meet(&s, turn, t, &i, &j) and not (
                            triangle == KD_ONCE and (j + 1) * s.cols <= i * s.rows
                        ):
                            mine = &calls[t % s.lanes]
                            table.contract(
                                mine, i * s.rows, min((i + 1) * s.rows, row_panels * panel),
                                j * s.cols, min((j + 1) * s.cols, col_panels * panel),
                                &result[turn * s.tasks + t, 0] if n_results else NULL,
                                work + threadid() * work_bytes)
                first = last
                watch.look()
                program.check()
    finally:
        free(calls)
    if sums is not None and s.lanes > 1:
        lanes = <char[:(s.lanes - 1) * size * item]> (others + size * item)
        parts = np.asarray(lanes).view(sums.dtype).reshape(s.lanes - 1, -1)
        flat = sums.reshape(-1)
        for e in range(s.lanes - 1):
            flat += parts[e]
    return results.sum(axis=0)


def jets(Program program, a):
    """Evaluate a kernel's derivatives with respect to its invariants.

    Parameters
    ----------
    program : Program
    a : ndarray of shape (n_inv, n)
        float32 or float64, C-contiguous.

    Returns
    -------
    ndarray of shape (number of jets, n)
    """
    cdef Py_ssize_t n = a.shape[1], count = 0, power = 1
    for _ in range(program.c.order + 1):
        count += power
        power *= program.c.n_inv
    out = np.empty((count, n), a.dtype)
    cdef Buffer ab = Buffer(a), ob = Buffer(out, True)
    cdef const kd_table *table = kd_get_table(isa(), <int> ab.view.itemsize)
    cdef kd_call call
    memset(&call, 0, sizeof(call))
    call.prog = &program.c
    call.d = 1
    cdef size_t size = lines(table.work_bytes(&call))
    cdef Workspace space = Workspace(size)
    cdef void *work = space.take(size)
    with nogil:
        table.jets(&program.c, ab.view.buf, n, ob.view.buf, work)
    program.check()
    return out


cdef dict TANH = {
    "argument": KD_TANH_ARGUMENT,
    "value": KD_TANH_VALUE,
    "slope": KD_TANH_SLOPE,
    "jacobian": KD_TANH_JACOBIAN,
    "input_jacobian": KD_TANH_INPUT_JACOBIAN,
    "input_hessian": KD_TANH_INPUT_HESSIAN,
    "tangent": KD_TANH_TANGENT,
    "chain": KD_TANH_CHAIN,
}


def tanh(what, x, w, out, bint stream=False, dw=None, dx=None, factors=None):
    """Write something of a layer of tanh units: see ``src/kd.h``.

    Parameters
    ----------
    what : str
        A key of `TANH`.
    x : ndarray of shape (N, D)
    w : ndarray of shape (D + 1, K)
    out : ndarray
        (N, K), but for the Jacobians (N, D + 1, K) and (N, K, D), and for the Hessian (N, K, D, D).
    stream : bool, default=False
    dw : ndarray of shape (D + 1, K), default=None
    dx : ndarray of shape (N, D), default=None
        The tangents; that of `x` is zero by default.
    factors : ndarray of shape (N / group, K), default=None
        Of a chain; ones by default.
    """
    cdef Buffer xb = Buffer(x), wb = Buffer(w), ob = Buffer(out, True)
    cdef Buffer dwb, dxb, ab, fb
    cdef Py_ssize_t item = xb.view.itemsize
    cdef const kd_table *table = kd_get_table(isa(), <int> item)
    cdef Py_ssize_t n = xb.view.shape[0], d = xb.view.shape[1], k = wb.view.shape[1]
    if ob.view.len == 0:
        return
    cdef kd_tanh_call call
    memset(&call, 0, sizeof(call))
    call.what = TANH[what]
    call.n = n
    call.d = d
    call.k = k
    call.x = xb.view.buf
    call.out = ob.view.buf
    call.stream = stream
    cdef bint by_input = call.what == KD_TANH_INPUT_JACOBIAN or call.what == KD_TANH_INPUT_HESSIAN
    cdef bint tangent = call.what == KD_TANH_TANGENT
    cdef double cost = k * (3 + 0.1 * d * (3 if tangent else 1)) + 0.4 * ob.view.len / (item * n)
    cdef int threads = max_threads() if cost * n > PARALLEL else 1
    # A multiple of the rows that share what is loaded.
    cdef Py_ssize_t rows = clip(min(TASK, cost * n / (4 * threads)) / cost, 1, n)
    rows = max(rows // KD_ROWS * KD_ROWS, min(n, <Py_ssize_t> KD_ROWS))
    cdef Py_ssize_t tasks = (n + rows - 1) // rows, panel = KD_PANEL_BYTES // item
    cdef size_t work_bytes = lines(table.tanh_work_bytes(&call))
    cdef size_t packed = (k + panel - 1) // panel * panel * (d + 1) * item
    cdef size_t turned = lines(k * d * item) + KD_PAD_BYTES
    cdef Workspace space = Workspace(
        (1 + tangent) * packed + by_input * turned + threads * work_bytes
    )
    cdef char *panels = <char *> space.take(packed)
    table.tanh_pack(d, k, wb.view.buf, panels)
    call.panels = panels
    if tangent:
        dwb = Buffer(dw)
        panels = <char *> space.take(packed)
        table.tanh_pack(d, k, dwb.view.buf, panels)
        call.dw_panels = panels
        if dx is not None:
            dxb = Buffer(dx)
            call.dx = dxb.view.buf
    if by_input:
        ab = Buffer(np.ascontiguousarray(w[:d].T))
        call.slopes = memcpy(space.take(turned), ab.view.buf, ab.view.len)
    if factors is not None:
        fb = Buffer(factors)
        call.g = fb.view.buf
        call.group = n // fb.view.shape[0]
    cdef char *work = <char *> space.take(threads * work_bytes)
    cdef Py_ssize_t t
    global threads_used
    threads_used = threads_used or threads > 1
    cdef Pace pace = Pace(tasks, cost * rows, threads)
    while pace.more():
        with nogil:
            for t in prange(pace.start, pace.stop, num_threads=threads, schedule="dynamic"):
                table.tanh(&call, t * rows, min((t + 1) * rows, n), work + threadid() * work_bytes)


def tanh_back(x, w, g, w_out, x_out=None):
    """Pull a cotangent of a layer of tanh units back to its weights and inputs.

    Sums over points are formed in an order that depends on the shapes alone.

    Parameters
    ----------
    x : ndarray of shape (N, D)
    w : ndarray of shape (D + 1, K)
    g : ndarray of shape (N, K)
    w_out : ndarray of shape (D + 1, K)
    x_out : ndarray of shape (N, D), default=None
        Not wanted by default.
    """
    cdef Buffer xb = Buffer(x), wb = Buffer(w), gb = Buffer(g), ob = Buffer(w_out, True), xob
    cdef Py_ssize_t item = xb.view.itemsize
    cdef const kd_table *table = kd_get_table(isa(), <int> item)
    cdef Py_ssize_t n = xb.view.shape[0], d = xb.view.shape[1], k = wb.view.shape[1]
    cdef bint back = x_out is not None
    if n == 0 or k == 0:
        w_out[:] = 0
        if back:
            x_out[:] = 0
        return
    cdef kd_tanh_call call
    memset(&call, 0, sizeof(call))
    call.what = KD_TANH_BACK
    call.n = n
    call.d = d
    call.k = k
    call.x = xb.view.buf
    call.g = gb.view.buf
    call.out = ob.view.buf
    cdef Py_ssize_t panel = KD_PANEL_BYTES // item
    cdef Py_ssize_t columns = (k + panel - 1) // panel * panel
    cdef Py_ssize_t d_panels = (d + panel - 1) // panel
    cdef size_t packed = columns * (d + 1) * item, turned = d_panels * panel * k * item
    cdef Py_ssize_t size = (d + KD_ROWS) // KD_ROWS * KD_ROWS * columns
    # Each lane has sums of its own and its points in order; threads share the lanes out. A task is
    # a tile of 64 points at least, unless that takes long, as it goes over all the sums once; lanes
    # take no more than LANES bytes together, and a round not too long.
    cdef double cost = k * (3 + (0.3 if back else 0.2) * (d + 1))
    cdef int threads = max_threads() if cost * n > PARALLEL else 1
    cdef Py_ssize_t rows = clip(min(TASK, cost * n / 16) / cost, clip(LOOK / cost, 1, 64), n)
    cdef Py_ssize_t lanes = clip(min(LANES / (8.0 * size), 4 * LOOK / (cost * rows)), 4, 64)
    lanes = min(lanes, (n + rows - 1) // rows)
    cdef Py_ssize_t rounds = (n + rows * lanes - 1) // (rows * lanes)
    rows = (n + rounds * lanes - 1) // (rounds * lanes)
    rows = (rows + KD_ROWS - 1) // KD_ROWS * KD_ROWS
    if back:
        xob = Buffer(x_out, True)
        call.x_out = xob.view.buf
    cdef size_t work_bytes = lines(table.tanh_work_bytes(&call))
    cdef Workspace space = Workspace(
        packed + back * turned + threads * work_bytes + lanes * size * sizeof(double)
    )
    cdef char *panels = <char *> space.take(packed)
    table.tanh_pack(d, k, wb.view.buf, panels)
    call.panels = panels
    if back:
        panels = <char *> space.take(turned)
        table.pack(wb.view.buf, d, k, 0, d_panels, panels)
        call.back = panels
    cdef double *sums = <double *> space.take(lanes * size * sizeof(double))
    cdef char *work = <char *> space.take(threads * work_bytes)
    cdef Py_ssize_t turn, e, i
    cdef Watch watch = Watch()
    global threads_used
    threads_used = threads_used or threads > 1
    for turn in range(rounds):
        with nogil:
            for e in prange(lanes, num_threads=threads, schedule="dynamic"):
                i = (turn * lanes + e) * rows
                if i < n:
                    table.tanh_back(
                        &call, i, min(i + rows, n), sums + e * size, work + threadid() * work_bytes)
        watch.look()
    with nogil:
        for e in prange(d + 1, num_threads=threads, schedule="static"):
            table.tanh_finish(&call, sums, lanes, e)


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
