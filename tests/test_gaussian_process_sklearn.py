"""scikit-learn's own tests of its GaussianProcessRegressor, run against ours."""

import pytest
from sklearn.gaussian_process.tests import test_gpr as theirs
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

from kerneldiff import GaussianProcessRegressor

# The warnings of optimizers, bounds and variances, which are scikit-learn's, are no errors there.
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Predicted variances smaller than 0:UserWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered in log:RuntimeWarning"),
]

# One compares with differences over steps of 1e-9, which are mostly rounding, and is marked there
# as expected to fail; test_likelihood_gradient in test_gaussian_process.py does that better.
TESTS = {
    name: test
    for name, test in vars(theirs).items()
    if name.startswith("test_") and name != "test_lml_gradient"
}
globals().update(TESTS)


@pytest.fixture(autouse=True)
def _ours(monkeypatch):
    monkeypatch.setattr(theirs, "GaussianProcessRegressor", GaussianProcessRegressor)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Matrices are too small here for threads, which only wait for each other."""
    with threadpool_limits(1, "blas"):
        yield


def test_there_are_some():
    """That the tests above are found at all."""
    assert len(TESTS) > 30


@parametrize_with_checks(
    [GaussianProcessRegressor(), GaussianProcessRegressor(normalize_y=True, scale_X=True)]
)
def test_check_estimator(estimator, check):
    check(estimator)
