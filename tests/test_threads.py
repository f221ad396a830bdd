"""Threads, forks, signals and memory. No test here is about speed.

All of it needs processes of their own: the number of threads is read when a process starts, a
fork is only dangerous after threads have been used, and a signal is for the whole process.
"""

import json
import os
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.processes import assert_interruptible, run_python
from support.tensors import DTYPES, OPERATIONS, anisotropic, points
from threadpoolctl import threadpool_limits

import kerneldiff
from kerneldiff import _core

openmp = pytest.mark.skipif(
    not _core.config()["openmp"], reason="built without OpenMP: there is one thread"
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, maps memory as on Linux")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")


# --------------------------------------------------------------------------------------------------
# The number of threads
# --------------------------------------------------------------------------------------------------

DIGESTS = """
import hashlib, json
import numpy as np
import kerneldiff
from support.tensors import DTYPES, OPERATIONS, anisotropic, points
digests = {}
for dtype in DTYPES:
    X, Y = points(403, 307, 5, dtype)
    W = points(6, 31, 31, dtype)[0]
    arrays = {name: operation(anisotropic(5), X, Y) for name, operation in OPERATIONS.items()}
    arrays["one argument"] = kerneldiff.kernel_matrix(anisotropic(5), X)
    arrays["tanh_basis"] = kerneldiff.tanh_basis(np.tile(X, (10, 1)), W)
    arrays["tanh_jacobian"] = kerneldiff.tanh_jacobian(np.tile(X, (10, 1)), W)
    for name, array in arrays.items():
        digests[f"{name}-{dtype}"] = hashlib.sha256(array).hexdigest()
print(json.dumps(digests))
"""


@pytest.fixture(scope="module")
def digests():
    """Digests of the arrays that one, two and three threads compute."""
    return {threads: json.loads(run_python(DIGESTS, threads=threads)) for threads in (1, 2, 3)}


@pytest.mark.exhaustive
@openmp
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*OPERATIONS, "one argument", "tanh_basis", "tanh_jacobian"])
def test_same_bits_for_any_number_of_threads(digests, name, dtype, threads):
    key = f"{name}-{dtype}"
    assert digests[threads][key] == digests[1][key]


@pytest.mark.quick(1)
@openmp
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_follows_omp_num_threads(threads):
    said = run_python(
        "import kerneldiff; print(kerneldiff._core.config()['threads'])", threads=threads
    )
    assert int(said) == threads


@openmp
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_follows_threadpoolctl(limit):
    with threadpool_limits(limits=limit, user_api="openmp"):
        assert _core.config()["threads"] == limit


@pytest.mark.quick(1)
@openmp
@linux
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_starts_as_many_threads_as_it_says(threads):
    """Counted by the system, after work that is large enough; BLAS has no part in it."""
    said = run_python(
        """
        import os
        import numpy as np, kerneldiff
        from sklearn.gaussian_process.kernels import RBF
        X = np.random.default_rng(0).normal(size=(1000, 3))
        before = len(os.listdir("/proc/self/task"))
        kerneldiff.hessian(RBF(), X)
        print(len(os.listdir("/proc/self/task")) - before)
        """,
        threads=threads,
    )
    assert int(said) == threads - 1


@openmp
@linux
def test_small_work_starts_no_thread():
    said = run_python(
        """
        import os
        import numpy as np, kerneldiff
        from sklearn.gaussian_process.kernels import RBF
        X = np.random.default_rng(0).normal(size=(5, 3))
        before = len(os.listdir("/proc/self/task"))
        kerneldiff.hessian(RBF(), X)
        print(len(os.listdir("/proc/self/task")) - before)
        """,
        threads=3,
    )
    assert int(said) == 0


@pytest.mark.exhaustive
@openmp
def test_changes_no_setting_of_openmp():
    """Other libraries in the process share the OpenMP runtime and its settings."""
    run_python(
        """
        import numpy as np, kerneldiff
        from threadpoolctl import threadpool_info
        from sklearn.gaussian_process.kernels import RBF
        X = np.random.default_rng(0).normal(size=(500, 3))
        kerneldiff.rbf_kernel(X[:2])
        before = threadpool_info()
        kerneldiff.hessian(RBF(), X)
        kerneldiff.tanh_jacobian(X, X[:4])
        assert threadpool_info() == before
        """,
        threads=3,
    )


# --------------------------------------------------------------------------------------------------
# Several threads of Python
# --------------------------------------------------------------------------------------------------


def test_concurrent_calls():
    """Calls of many kinds and sizes at once give what they give alone."""
    jobs = []
    for k in range(60):
        operation = list(OPERATIONS.values())[k % len(OPERATIONS)]
        n, m, d = 20 + 37 * (k % 7), 30 + 29 * (k % 5), 1 + k % 6
        jobs.append((operation, anisotropic(d), *points(n, m, d, DTYPES[k % 2], seed=k)))
    alone = [operation(*arguments) for operation, *arguments in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: job[0](*job[1:]), jobs * 3))
    for k, array in enumerate(together):
        np.testing.assert_array_equal(array, alone[k % len(jobs)])


@pytest.mark.exhaustive
def test_first_use_in_several_threads():
    """The instruction set is chosen at first use, whichever thread that is."""
    run_python(
        """
        import threading
        import numpy as np, kerneldiff
        from sklearn.gaussian_process.kernels import RBF
        X = np.random.default_rng(0).normal(size=(50, 3))
        results, start = [], threading.Barrier(8)
        def work():
            start.wait()
            results.append(kerneldiff.hessian(RBF(), X))
        threads = [threading.Thread(target=work) for _ in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert len(results) == 8
        assert all(np.array_equal(result, results[0]) for result in results)
        """
    )


def test_releases_the_gil():
    """This thread sees an output half written: it ran during the call, not before or after it."""
    X = points(2000, 0, 30)[0]
    out = np.empty((2000, 2000))
    calls = threading.Semaphore(0)

    def compute():
        while calls.acquire() and not stop:
            kerneldiff.kernel_matrix(anisotropic(30), X, out=out)
            finished.set()

    stop, seen, finished = [], False, threading.Event()
    thread = threading.Thread(target=compute)
    thread.start()
    for _ in range(50):
        out[:] = np.nan
        finished.clear()
        calls.release()
        while not (seen or finished.is_set()):
            first, last = out[0, 0], out[-1, -1]
            seen = not np.isnan(first) and np.isnan(last)
        finished.wait()
    stop.append(True)
    calls.release()
    thread.join()
    assert seen


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python always has the GIL"
)
def test_import_leaves_the_gil_off():
    """A module that does not say that it is safe without the GIL turns it on for all."""
    run_python(
        """
        import sys, numpy, scipy, sklearn.gaussian_process
        before = sys._is_gil_enabled()
        import kerneldiff
        assert sys._is_gil_enabled() == before
        """
    )


# --------------------------------------------------------------------------------------------------
# Forks
# --------------------------------------------------------------------------------------------------

FORK = """
import multiprocessing, sys
import joblib, numpy as np
import kerneldiff
from sklearn.gaussian_process.kernels import RBF

X = np.random.default_rng(0).normal(size=(700, 3))

def work(k):
    import hashlib
    tensor = kerneldiff.hessian(RBF(1.0 + k), X)
    basis = kerneldiff.tanh_jacobian(X, np.full((4, 70), 0.1 * k))
    return hashlib.sha256(tensor).hexdigest(), hashlib.sha256(basis).hexdigest()

def pool(tasks):
    with multiprocessing.get_context("fork").Pool(2) as workers:
        return workers.map(work, tasks)

def parallel(tasks):
    return joblib.Parallel(2, backend="multiprocessing")(joblib.delayed(work)(k) for k in tasks)

def nested(tasks):
    # A child of a child.
    workers = joblib.Parallel(2, backend="multiprocessing")
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(pool_in_child(tasks)))
    child.start()
    found = queue.get()
    child.join()
    return found

def pool_in_child(tasks):
    work(0)
    return pool(tasks)

if sys.argv[2] == "used":
    work(0)
forked = {"pool": pool, "joblib": parallel, "nested": nested}[sys.argv[1]](range(5))
assert forked == [work(k) for k in range(5)]
# The parent goes on with all of its threads.
assert kerneldiff._core.config()["threads"] == 3 or not kerneldiff._core.config()["openmp"]
"""


@pytest.mark.quick(1)
@forks
@pytest.mark.parametrize("before", ["used", "unused"])
@pytest.mark.parametrize("way", ["pool", "joblib", "nested"])
def test_forked_workers(way, before):
    """libgomp does not survive a fork after its first parallel region: a child would wait for
    threads that it does not have, for ever.
    """
    run_python(FORK, way, before, threads=3, timeout=300)


# --------------------------------------------------------------------------------------------------
# Ctrl-C
# --------------------------------------------------------------------------------------------------

# Cases that would take minutes. Each is a function, its arguments and the shape of its output,
# which is larger than any memory.
INTERRUPTED = """
import functools, sys
import numpy as np
import kerneldiff
from sklearn.gaussian_process.kernels import RBF
from support.memory import huge
from support.processes import report_interrupt

def ones(n, d, dtype=np.float64):
    return np.ones((n, d), dtype)

def kernel(function, *arguments):
    return functools.partial(function, RBF()), arguments

def blocks(*arguments):
    for _ in kerneldiff.tensor_blocks(kerneldiff.hessian, RBF(), *arguments, working_memory=500):
        pass

K, G, H = kerneldiff.kernel_matrix, kerneldiff.gradient, kerneldiff.hessian
cases = {
    "kernel_matrix": lambda: (*kernel(K, ones(200_000, 3)), (200_000, 200_000)),
    "hessian": lambda: (*kernel(H, ones(20_000, 10)), (20_000, 20_000, 10, 10)),
    "float32": lambda: (*kernel(G, ones(90_000, 10, np.float32)), (90_000, 90_000, 10)),
    "tall": lambda: (*kernel(K, ones(10_000_000, 1), ones(3000, 1)), (10_000_000, 3000)),
    "wide": lambda: (*kernel(K, ones(3000, 1), ones(10_000_000, 1)), (3000, 10_000_000)),
    "one row": lambda: (*kernel(H, ones(1, 100), ones(400_000, 100)), (1, 400_000, 100, 100)),
    "one column": lambda: (*kernel(H, ones(400_000, 100), ones(1, 100)), (400_000, 1, 100, 100)),
    "large pairs": lambda: (*kernel(H, ones(48, 2000), ones(128, 2000)), (48, 128, 2000, 2000)),
    "one pair": lambda: (*kernel(H, ones(1, 100_000)), (1, 1, 100_000, 100_000)),
    "tensor_blocks": lambda: (blocks, [ones(30_000, 20)], None),
    "tanh_basis": lambda: (kerneldiff.tanh_basis, [ones(200_000, 20), ones(21, 200_000)],
                           (200_000, 200_000)),
    "tanh_jacobian": lambda: (kerneldiff.tanh_jacobian, [ones(100_000, 99), ones(100, 5000)],
                              (100_000, 100, 5000)),
    "full jacobian": lambda: (
        functools.partial(kerneldiff.tanh_jacobian, layout="full"),
        [ones(10_000, 9), ones(10, 2000)],
        (10_000, 2000, 10, 2000),
    ),
}
function, arguments, shape = cases[sys.argv[1]]()
options = {} if shape is None else {"out": huge(shape, arguments[0].dtype)}
kerneldiff.kernel_matrix(RBF(), ones(2000, 3))
report_interrupt(lambda: function(*arguments, **options))
# The library is as usable as before.
X = np.random.default_rng(0).normal(size=(300, 3))
from kerneldiff import _reference
assert np.abs(kerneldiff.hessian(RBF(), X) - _reference.hessian(RBF(), X)).max() < 1e-14
"""


@pytest.mark.quick(1)
@linux
@pytest.mark.parametrize(
    "case",
    [
        *["kernel_matrix", "hessian", "float32", "tall", "wide", "one row"],
        *["one column", "large pairs", "one pair", "tensor_blocks", "tanh_basis", "tanh_jacobian"],
        "full jacobian",
    ],
)
def test_ctrl_c(case):
    # The slowest instruction set: what it does between two looks at signals takes longest.
    assert_interruptible(INTERRUPTED, case, isa="baseline")


# --------------------------------------------------------------------------------------------------
# Memory
# --------------------------------------------------------------------------------------------------

PEAK = """
import sys
import numpy as np
import kerneldiff
from support.memory import peak_growth
from sklearn.gaussian_process.kernels import RBF

def normal(n, d, dtype=np.float64):
    return np.random.default_rng(0).normal(size=(n, d)).astype(dtype)

# Name: function, what comes before the points, points.
X, Y = normal(3000, 1500), normal(10, 1500)
cases = {
    "kernel_matrix": (kerneldiff.kernel_matrix, [RBF()], [normal(3000, 3)]),
    "gradient": (kerneldiff.gradient, [RBF()], [normal(1500, 10)]),
    "hessian": (kerneldiff.hessian, [RBF()], [normal(500, 10)]),
    "packed": (
        lambda *a: kerneldiff.hessian(*a, layout="packed"), [RBF()], [normal(700, 10)]
    ),
    "float32": (kerneldiff.hessian, [RBF()], [normal(700, 10, np.float32)]),
    "rbf_hessian": (kerneldiff.rbf_hessian, [], [normal(500, 10)]),
    "large pairs": (kerneldiff.hessian, [RBF()], [normal(3, 1000)]),
    "many columns of X": (kerneldiff.kernel_matrix, [RBF()], [X, Y]),
    "many columns of Y": (kerneldiff.kernel_matrix, [RBF()], [Y, X]),
    "many columns, ard": (kerneldiff.gradient, [RBF(np.ones(1500))], [X[:1000], Y]),
    "many points": (kerneldiff.kernel_matrix, [RBF()], [normal(1_000_000, 4), normal(3, 4)]),
    "tanh_basis": (kerneldiff.tanh_basis, [], [normal(100_000, 10), normal(11, 100)]),
    "tanh_jacobian": (kerneldiff.tanh_jacobian, [], [normal(20_000, 10), normal(11, 50)]),
    "full jacobian": (
        lambda *a: kerneldiff.tanh_jacobian(*a, layout="full"), [], [normal(3000, 5), normal(6, 40)]
    ),
    "many slopes": (kerneldiff.tanh_basis, [], [normal(20, 2000), normal(2001, 2000)]),
}
function, kernel, inputs = cases[sys.argv[1]]
# Threads, code and buffers of a first call are not what is measured.
kerneldiff.hessian(RBF(), normal(200, 3))
kerneldiff.tanh_jacobian(normal(2000, 3), normal(4, 50))
grown, array = peak_growth(lambda: function(*kernel, *inputs))
print(grown - array.nbytes - sum(points.nbytes for points in inputs))
"""


@pytest.mark.exhaustive
@pytest.mark.quick(1)
@linux
@pytest.mark.parametrize(
    "case",
    [
        *["kernel_matrix", "gradient", "hessian", "packed", "float32", "rbf_hessian"],
        *["large pairs", "many columns of X", "many columns of Y", "many columns, ard"],
        *["many points", "tanh_basis", "tanh_jacobian", "full jacobian", "many slopes"],
    ],
)
def test_peak_memory(case):
    """The output, one packed copy of the points, and 8 MiB."""
    assert int(run_python(PEAK, case, threads=2)) <= 8 * 2**20
