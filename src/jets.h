/* THE list of kernels.
 *
 * A kernel is a scalar function F of an invariant a of a pair of points; all that the rest of the
 * library knows of it is its jet, F and its derivatives with respect to a.  A jet here computes,
 * for n arguments,
 *
 *     f[q] = c w^q F^(q)(w a),    q = 0 ... order,    c = par[0], w = par[1],
 *
 * the derivatives of a -> c F(w a): an amplitude and one length scale cost nothing there, while
 * points divided by a length scale before they are subtracted lose digits.  f[q] stands `stride`
 * after f[q - 1].
 *
 * To add a kernel: one line in KD_JETS, one function below, formula and limit at zero above it.
 */
#ifndef KD_JETS_H
#define KD_JETS_H

/* clang-format off */
#define KD_JETS(X) \
  X(rbf)
/* clang-format on */

#define KD_JET_ENUM(name) KD_JET_##name,
enum { KD_JETS(KD_JET_ENUM) KD_N_JETS };
#undef KD_JET_ENUM

#ifdef KD_REAL

#include "vmath.h"

#define KD_JET(name)                                                                            \
    static void kd_jet_##name(const KD_REAL *restrict a, KD_REAL *restrict f, ptrdiff_t stride, \
                              ptrdiff_t n, int order, const double *par)

/* RBF: F(s) = exp(-s / 2), F^(q) = (-1/2)^q F. */
KD_JET(rbf) {
    const KD_REAL c = (KD_REAL)par[0], rate = (KD_REAL)(-0.5 * par[1]);
#pragma omp simd
    for (ptrdiff_t i = 0; i < n; i++) f[i] = c * kd_exp_neg(rate * a[i]);
    for (int q = 1; q <= order; q++) {
        KD_REAL *restrict next = f + stride;
#pragma omp simd
        for (ptrdiff_t i = 0; i < n; i++) next[i] = rate * f[i];
        f = next;
    }
}

#undef KD_JET
#endif
#endif
