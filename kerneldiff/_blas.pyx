# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True, embedsignature=True
"""SciPy's BLAS and LAPACK on blocks of matrices: no copies, and no lock held.

SciPy's own functions copy a block of a larger matrix.  Here an array is one column after the other,
in any distance: a Fortran-ordered matrix, a block of one, or the transpose of a C-ordered one.
Sizes are checked by nobody; `_linalg` is the only caller.
"""

from scipy.linalg.cython_blas cimport dgemm, dsymm, dsyr2k, dsyrk, dtrsm
from scipy.linalg.cython_lapack cimport dpotrf, dpotri, dtrtri


cdef int apart(const double[:, :] a) except -1:
    """How many numbers lie between the starts of two columns."""
    if a.shape[0] > 1 and a.shape[1] and a.strides[0] != sizeof(double):
        raise ValueError("the columns of a block must be contiguous.")
    # A single column may have any stride.
    return <int> max(1, a.shape[0], a.strides[1] // sizeof(double) if a.shape[1] > 1 else 0)


cdef inline char flag(bint transposed) noexcept nogil:
    return c"T" if transposed else c"N"


def gemm(double alpha, const double[:, :] a, const double[:, :] b, double[:, :] c,
         bint trans_a=False, bint trans_b=False, double beta=1.0):
    """Set c to alpha op(a) op(b) + beta c."""
    cdef int m = c.shape[0], n = c.shape[1], k = a.shape[0] if trans_a else a.shape[1]
    cdef int lda = apart(a), ldb = apart(b), ldc = apart(c)
    cdef char ta = flag(trans_a), tb = flag(trans_b)
    if m and n:
        with nogil:
            dgemm(&ta, &tb, &m, &n, &k, &alpha, <double *> &a[0, 0], &lda, <double *> &b[0, 0],
                  &ldb, &beta,
                  &c[0, 0], &ldc)


def symm(double alpha, const double[:, :] a, const double[:, :] b, double[:, :] c,
         double beta=1.0):
    """Set c to alpha a b + beta c, with the lower triangle of a symmetric a."""
    cdef int m = c.shape[0], n = c.shape[1], lda = apart(a), ldb = apart(b), ldc = apart(c)
    cdef char left = c"L", lower = c"L"
    if m and n:
        with nogil:
            dsymm(&left, &lower, &m, &n, &alpha, <double *> &a[0, 0], &lda, <double *> &b[0, 0],
                  &ldb, &beta,
                  &c[0, 0], &ldc)


def syrk(double alpha, const double[:, :] a, double[:, :] c, bint trans=False):
    """Add alpha op(a) op(a)ᵀ to the lower triangle of c."""
    cdef int n = c.shape[0], k = a.shape[0] if trans else a.shape[1]
    cdef int lda = apart(a), ldc = apart(c)
    cdef char lower = c"L", t = flag(trans)
    cdef double one = 1.0
    if n and k:
        with nogil:
            dsyrk(&lower, &t, &n, &k, &alpha, <double *> &a[0, 0], &lda, &one, &c[0, 0], &ldc)


def syr2k(double alpha, const double[:, :] a, const double[:, :] b, double[:, :] c):
    """Add alpha (aᵀ b + bᵀ a) to the lower triangle of c."""
    cdef int n = c.shape[0], k = a.shape[0], lda = apart(a), ldb = apart(b), ldc = apart(c)
    cdef char lower = c"L", t = c"T"
    cdef double one = 1.0
    if n and k:
        with nogil:
            dsyr2k(&lower, &t, &n, &k, &alpha, <double *> &a[0, 0], &lda, <double *> &b[0, 0],
                   &ldb, &one,
                   &c[0, 0], &ldc)


def trsm(const double[:, :] a, double[:, :] b, bint right=False, bint trans=False):
    """Divide b by op(a), of the lower triangle of a: from the left, or from the right."""
    cdef int m = b.shape[0], n = b.shape[1], lda = apart(a), ldb = apart(b)
    cdef char side = c"R" if right else c"L", lower = c"L", t = flag(trans), general = c"N"
    cdef double one = 1.0
    if m and n:
        with nogil:
            dtrsm(&side, &lower, &t, &general, &m, &n, &one, <double *> &a[0, 0], &lda, &b[0, 0],
                  &ldb)


def potrf(double[:, :] a):
    """Replace the lower triangle of a by its Cholesky factor; return LAPACK's `info`."""
    cdef int n = a.shape[0], lda = apart(a), info = 0
    cdef char lower = c"L"
    if n:
        with nogil:
            dpotrf(&lower, &n, &a[0, 0], &lda, &info)
    return info


def potri(double[:, :] a):
    """Replace a Cholesky factor by the lower triangle of the inverse."""
    cdef int n = a.shape[0], lda = apart(a), info = 0
    cdef char lower = c"L"
    if n:
        with nogil:
            dpotri(&lower, &n, &a[0, 0], &lda, &info)


def trtri(double[:, :] a):
    """Replace a lower triangle by its inverse."""
    cdef int n = a.shape[0], lda = apart(a), info = 0
    cdef char lower = c"L", general = c"N"
    if n:
        with nogil:
            dtrtri(&lower, &general, &n, &a[0, 0], &lda, &info)
