"""Linear algebra in blocks, and how many threads BLAS gets. No test here is about speed."""

import json
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg
from support.processes import run_python

from kerneldiff import _linalg

EPS = np.finfo(float).eps

# The last two blocks of 7 columns are whole, or have one column less, or more, or are none.
SIZES = (0, 1, 6, 7, 8, 20, 21, 22, 35)
BLOCKS = (1, 2, 7, 34, 35, 36, None)


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"])
def threads(request, monkeypatch):
    """Work for so many threads, whatever the size of the matrix and the machine."""
    monkeypatch.setattr(_linalg, "_threads_for", lambda *_: request.param)
    monkeypatch.setattr(_linalg, "_BLOCK", (7, 7))


def positive(n, seed=0):
    """A symmetric matrix with eigenvalues of 1 and more."""
    A = np.random.default_rng(seed).normal(size=(n, n))
    return A @ A.T + np.eye(n)


def lower(A):
    """Its lower triangle, in the order of Fortran; what is above must be neither read nor set."""
    result = np.array(A, order="F")
    result[np.triu_indices(len(A), 1)] = np.nan
    return result


def assert_only_lower(A):
    """Check that the upper triangle is as `lower` made it, and return the lower one."""
    assert np.isnan(A[np.triu_indices(len(A), 1)]).all()
    return np.tril(np.nan_to_num(A, nan=0.0, posinf=np.inf, neginf=-np.inf))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("n", SIZES)
def test_cholesky(n):
    """Theorem 10.3 of Higham: |A - L Lᵀ| ≤ γ_{n+1} |L| |Lᵀ|, for any order of the sums."""
    A = positive(n)
    for block in BLOCKS:
        L = lower(A)
        assert _linalg.cholesky(L, block) == 0
        L = assert_only_lower(L)
        bound = 2 * (n + 1) * EPS * np.abs(L) @ np.abs(L.T)
        assert (np.abs(L @ L.T - A) <= bound).all(), block


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("n", SIZES)
def test_inverse(n):
    """|A X - I| is bounded by rounding in A, L and X: n ε times their condition."""
    A = positive(n)
    factor = np.linalg.cholesky(A)
    condition = np.linalg.cond(A) if n else 1.0
    for block in BLOCKS:
        X = lower(factor)
        _linalg.invert(X, block)
        X = assert_only_lower(X)
        X += np.tril(X, -1).T
        assert np.linalg.norm(A @ X - np.eye(n)) <= 10 * max(n, 1) * EPS * condition, block


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("n", [1, 7, 8, 20, 21, 22])
def test_first_minor_that_is_not_positive(n):
    """As LAPACK numbers it, whichever block it is in."""
    for k in range(n):
        A = positive(n)
        A[k, k] = -1.0
        _, expected = scipy.linalg.lapack.dpotrf(A, lower=1)
        assert expected == k + 1
        for block in BLOCKS:
            assert _linalg.cholesky(lower(A), block) == expected, (k, block)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("k", [0, 1, 3, 100])
def test_solutions(n, k):
    L = np.linalg.cholesky(positive(n))
    B = np.random.default_rng(1).normal(size=(n, k))
    # Theorem 8.5 of Higham: (T + ΔT) X = B, |ΔT| ≤ γ_n |T|.
    for transposed in (False, True):
        X = np.array(B, order="F")
        _linalg.solve_half(lower(L), X, transposed=transposed)
        T = L.T if transposed else L
        assert (np.abs(T @ X - B) <= 4 * n * EPS * np.abs(T) @ np.abs(X)).all()
    for order in "CF":
        given = np.array(B, order=order)
        X = _linalg.solve(lower(L), given)
        assert (given == B).all()
        assert X.flags.f_contiguous
        size = np.abs(L) @ np.abs(L.T) @ np.abs(X)
        assert (np.abs(L @ (L.T @ X) - B) <= 8 * n * EPS * size).all()
    inverse = lower(L)
    _linalg.invert_triangle(inverse)
    inverse = assert_only_lower(inverse)
    size = np.abs(L) @ np.abs(inverse)
    assert (np.abs(L @ inverse - np.eye(n)) <= 4 * n * EPS * (size @ size + np.eye(n))).all()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("k", [0, 1, 2, 9])
def test_products(n, k):
    """Sums of k products: the bound of a dot product in any order."""
    random = np.random.default_rng(2)
    V, A, B = random.normal(size=(n, k)), random.normal(size=(50, n)), random.normal(size=(n, k))
    C = positive(n)
    for order in "CF":
        result = lower(C)
        _linalg.add_gram(-0.5, np.array(V, order=order), result)
        bound = 4 * (k + 1) * EPS * (np.abs(C) + np.abs(V) @ np.abs(V.T))
        expected = np.tril(C - 0.5 * np.einsum("ik,jk->ij", V, V))
        assert (np.abs(assert_only_lower(result) - expected) <= bound).all()
        for other in "CF":
            product = _linalg.product(np.array(A, order=order), np.array(B, order=other))
            bound = 4 * (n + 1) * EPS * np.abs(A) @ np.abs(B)
            assert (np.abs(product - np.einsum("ik,kj->ij", A, B)) <= bound).all()


def test_arrays_that_are_read_may_be_read_only():
    L = np.asfortranarray(np.linalg.cholesky(positive(5)))
    B = np.ones((5, 2))
    for array in (L, B):
        array.flags.writeable = False
    assert np.isfinite(_linalg.solve(L, B)).all()
    assert np.isfinite(_linalg.product(B.T, B)).all()


# --- tasks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_all_tasks_are_done_once(threads):
    done = []
    _linalg._Team(threads).run((lambda i=i: done.append(i)) for i in range(100))
    assert sorted(done) == list(range(100))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("threads", [2, 5])
def test_an_error_ends_all_tasks_and_threads(threads, error):
    """Those that wait for what is never finished, too; afterwards nobody is at work."""
    team = _linalg._Team(threads)
    started = threading.Barrier(threads, timeout=300)

    def waits():
        started.wait()
        team.wait("never", 1)

    def fails():
        started.wait()
        raise error("said")

    def tasks():
        yield from [waits] * (threads - 1)
        yield fails
        yield from [lambda: pytest.fail("a task was begun after the error")] * 10

    with pytest.raises(error, match="said"):
        team.run(tasks())
    assert not team._at_work


# --- threads of BLAS ----------------------------------------------------------------------------


class Pool:
    """Threads of a BLAS, with a note of how often their number was set."""

    def __init__(self, threads):
        self.threads, self.calls = threads, 0

    def get(self):
        return self.threads

    def set(self, threads):
        self.threads, self.calls = threads, self.calls + 1


def limit(*pools):
    made = _linalg._Limit()
    made._pools = list(pools)
    return made


def test_first_in_saves_and_last_out_restores():
    """Of two computations the first to begin is not the last to end."""
    one, two = Pool(4), Pool(3)
    limited = limit(one, two)
    assert limited.__enter__() == 3
    assert limited.__enter__() == 3
    assert (one.threads, two.threads) == (1, 1)
    limited.__exit__()
    assert (one.threads, two.threads) == (1, 1)
    with pytest.raises(ZeroDivisionError), limited:
        raise ZeroDivisionError
    assert (one.threads, two.threads) == (1, 1)
    limited.__exit__()
    assert (one.threads, two.threads) == (4, 3)
    assert (one.calls, two.calls) == (2, 2)


def test_limits_of_the_user_are_never_raised():
    pool, other = Pool(1), Pool(8)
    limited = limit(pool, other)
    with limited as threads:
        assert threads == 1
    assert pool.calls == 0
    # What somebody sets while we compute stays.
    with limited:
        other.threads = 2
    assert other.threads == 2


def test_libraries_whose_threads_belong_to_the_caller_are_left_alone():
    library = SimpleNamespace(internal_api="openblas", threading_layer="pthreads")
    assert _linalg._is_of_process(library)
    library.threading_layer = "openmp"
    assert not _linalg._is_of_process(library)
    with limit() as threads:
        assert threads == 1


BLAS = """
import json, threading
import numpy as np
from sklearn.gaussian_process.kernels import RBF
from threadpoolctl import threadpool_info, threadpool_limits
import kerneldiff

def counts():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

def data(n):
    X = np.random.default_rng(n).normal(size=(n, 2))
    return X, np.sin(X).sum(axis=1)

# The user's limit. threadpoolctl 3.8 would let this thread alone set it while it lives.
setting = threading.Thread(target=threadpool_limits, args=(3, "blas"))
setting.start()
setting.join()
before = counts()
"""


def of_blas(code):
    """Run code in a process whose BLAS has three threads; the last line that it prints, read."""
    return json.loads(run_python(BLAS + code))


def test_a_fit_has_one_thread_and_afterwards_there_are_as_many_as_before():
    found = of_blas("""
inside = []
def optimizer(objective, theta, bounds):
    inside.append(counts())
    return theta, objective(theta)[0]
model = kerneldiff.GaussianProcessRegressor(RBF(), alpha=1e-3, optimizer=optimizer).fit(*data(20))
after = counts()
with threadpool_limits(1, user_api="blas"):
    model.predict(data(5)[0], return_std=True)
    limited = counts()
print(json.dumps([before, inside[0], after, limited, counts()]))
""")
    before, inside, after, limited, last = found
    assert set(inside) <= {1}
    assert after == before
    assert set(limited) <= {1}
    assert last == before


@pytest.mark.exhaustive
def test_one_thread_of_python_lowers_and_another_one_restores():
    found = of_blas("""
from kerneldiff._linalg import blas_threads
entered, left, ended = threading.Event(), threading.Event(), threading.Event()
def first():
    with blas_threads:
        entered.set()
        left.wait(30)
    ended.wait(30)
    # Still alive when the other one restores.

thread = threading.Thread(target=first)
thread.start()
entered.wait(30)
with blas_threads:
    inside = counts()
    left.set()
    while blas_threads._inside > 1:
        pass
    still = counts()
after = counts()
ended.set()
thread.join()
print(json.dumps([before, inside, still, after]))
""")
    before, inside, still, after = found
    assert set(inside + still) <= {1}
    assert after == before


def test_interleaved_fits_in_several_threads_of_python():
    """Of different sizes, one of which fails, one that ends long after the one that began first."""
    found = of_blas("""
def fitted(n):
    X, y = data(n)
    if n == 33:
        X[-1] = X[0]  # singular
    model = kerneldiff.GaussianProcessRegressor(
        RBF(), alpha=0.0 if n == 33 else 1e-3, optimizer=None
    ).fit(X, y)
    return model.predict(X[:5], return_std=True)

sizes = [20, 33, 300, 1300]
def attempt(n):
    try:
        return fitted(n)
    except np.linalg.LinAlgError:
        return "failed"

def on_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()

alone = {}
on_a_thread(lambda: alone.update((n, attempt(n)) for n in sizes))
differences = {n: 0.0 for n in sizes}
failures = []
def work(n, times):
    for _ in range(times):
        found = attempt(n)
        if isinstance(found, str) or isinstance(alone[n], str):
            failures.append(n)
        else:
            differences[n] = max(
                differences[n], *(float(np.abs(a - b).max()) for a, b in zip(found, alone[n]))
            )

threads = [
    threading.Thread(target=work, args=a) for a in [(20, 60), (33, 40), (300, 10), (1300, 2)]
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps([before, counts(), differences, sorted(set(failures)), len(failures)]))
""")
    before, after, differences, failed, failures = found
    assert after == before
    assert failed == [33]
    assert failures == 40
    # Condition of the matrices times rounding.
    assert max(differences.values()) < 1e-8


@pytest.mark.quick(1)
@pytest.mark.parametrize("call", ["tanh", "rotation", "prior"])
def test_other_computations_restore_it_too(call):
    found = of_blas(f"""
X, y = data(30)
if {call!r} == "tanh":
    kerneldiff.TanhRegressor(2, random_state=0).fit(X, y).predict_hessian(X[:3])
elif {call!r} == "rotation":
    Z = np.random.default_rng(0).normal(size=(4, 20))
    model = kerneldiff.GaussianProcessRegressor(
        RBF(5.0), alpha=1e-3, alpha_gradient=1e-3, optimizer=None, solver="rotation"
    ).fit(Z, Z.sum(axis=1), np.ones_like(Z))
    model.predict_gradient(Z, return_std=True)
else:
    kerneldiff.GaussianProcessRegressor(RBF()).sample_gradient(X[:3])
print(json.dumps([before, counts()]))
""")
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "n",
    [
        pytest.param(1500, marks=pytest.mark.exhaustive),
        pytest.param(2000, marks=pytest.mark.huge),
    ],
)
def test_matrices_at_which_two_threads_of_blas_end_the_process(n):
    """24 000 and 32 000 unknowns, of 15 gradients a point: 4.3 and 7.6 GiB."""
    run_python(
        f"""
        import os
        os.environ["OPENBLAS_NUM_THREADS"] = "2"
        import numpy as np, kerneldiff
        from sklearn.gaussian_process.kernels import RBF
        X = np.random.default_rng(0).normal(size=({n}, 15))
        model = kerneldiff.GaussianProcessRegressor(
            RBF(3.0), alpha=1e-4, alpha_gradient=1e-4, optimizer=None, solver="cholesky"
        ).fit(X, np.sin(X).sum(axis=1), np.cos(X))
        predicted = model.predict(X[:50])
        assert np.abs(predicted - np.sin(X[:50]).sum(axis=1)).max() < 0.1
        """,
        threads=2,
        timeout=7200,
    )
