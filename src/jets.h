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
 * after f[q - 1].  order is at most 5; n is a multiple of VL, the lanes of a vector.
 *
 * Kernels of a distance have s = a >= 0 for argument.  Where a derivative is singular at s = 0 it
 * is stored as 0: the operation knows the kernel's smoothness and what exists.
 *
 * To add a kernel: one line in KD_JETS, one function below, formula and limit at zero above it.
 */
#ifndef KD_JETS_H
#define KD_JETS_H

/* clang-format off */
#define KD_JETS(X) \
  X(constant) X(rbf) X(matern12) X(matern32) X(matern52) X(rational_quadratic) \
  X(exp_sine_squared) X(linear) X(power) X(sigmoid) \
  X(radial_linear) X(thin_plate_spline) X(cubic) X(quintic) \
  X(multiquadric) X(inverse_multiquadric) X(inverse_quadratic) X(gaussian)
/* clang-format on */

#define KD_JET_ENUM(name) KD_JET_##name,
enum { KD_JETS(KD_JET_ENUM) KD_N_JETS };
#undef KD_JET_ENUM

#ifdef KD_REAL

#include "vmath.h"

#if KD_F32
#define KD_SQRT __builtin_sqrtf
#else
#define KD_SQRT __builtin_sqrt
#endif

#define KD_JET_ARGS \
    const KD_REAL *restrict a, KD_REAL *restrict f, ptrdiff_t stride, ptrdiff_t n, int order
#define KD_JET(name) static void kd_jet_##name(KD_JET_ARGS, const double *par)

/* For all arguments; that their number is a multiple of VL spares the loops their remainders. */
#define KD_EACH _Pragma("omp simd") for (ptrdiff_t i = 0; i < (n & -(ptrdiff_t)VL); i++)

/* body(..., min(order, 2)) with a constant there: the loops are made once for each. */
#define KD_BY_ORDER(body, ...)    \
    do {                          \
        switch (order) {          \
        case 0:                   \
            body(__VA_ARGS__, 0); \
            break;                \
        case 1:                   \
            body(__VA_ARGS__, 1); \
            break;                \
        default:                  \
            body(__VA_ARGS__, 2); \
        }                         \
    } while (0)

static void kd_fill(KD_REAL *f, ptrdiff_t n, double value) {
    const KD_REAL v = (KD_REAL)value;
    KD_EACH f[i] = v;
}

/* ------------------------------------------------------------------------ exponentials --- */

/* f = c exp(rate a), rate a <= 0: f^(q) = rate f^(q-1). */
static void kd_exponential(KD_JET_ARGS, double c_, double rate_) {
    const KD_REAL c = (KD_REAL)c_, rate = (KD_REAL)rate_;
    KD_EACH f[i] = c * kd_exp_neg(rate * a[i]);
    for (int q = 1; q <= order; q++, f += stride) {
        KD_REAL *restrict next = f + stride;
        KD_EACH next[i] = rate * f[i];
    }
}

/* RBF: F(s) = exp(-s / 2), F^(q) = (-1/2)^q F. */
KD_JET(rbf) { kd_exponential(a, f, stride, n, order, par[0], -0.5 * par[1]); }

/* Radial function gaussian: F(s) = exp(-s). */
KD_JET(gaussian) { kd_exponential(a, f, stride, n, order, par[0], -par[1]); }

/* --------------------------------------------------------------------------- half powers --- */

/* Derivatives from the first singular one on, of functions with smoothness 2 nu that obey
 *
 *     s f^(q+1) = k/4 f^(q-1) - (q - nu) f^(q).
 *
 * For Matern kernels, f ~ t^nu K_nu(t) with t = sqrt(k s), k = 2 nu w, this is the recurrence of
 * the modified Bessel functions, and for half powers, k = 0, that of s^nu.  f^(top) is regular,
 * f^(top+1) given; from there on both terms have the same sign. */
static void kd_half_tail(KD_JET_ARGS, int top, double nu, double k_) {
    const KD_REAL k = (KD_REAL)(0.25 * k_);
    for (int q = top + 1; q < order; q++) {
        const KD_REAL *restrict f0 = f + (q - 1) * stride, *restrict f1 = f + q * stride;
        KD_REAL *restrict f2 = f + (q + 1) * stride;
        const KD_REAL r = (KD_REAL)(nu - q);
        KD_EACH f2[i] = a[i] == 0 ? 0 : (k * f0[i] + r * f1[i]) / a[i];
    }
}

/* exp(-t) where (1 + t) exp(-t) and the like are wanted: t stops where exp(-t) is 0. */
KD_INLINE KD_REAL kd_root(KD_REAL k, KD_REAL s) { return kd_at_most(k * KD_SQRT(s), -KD_EXP_MIN); }

/* 1 / sqrt(s), 0 at zero. */
KD_INLINE KD_REAL kd_rsqrt(KD_REAL s) { return s == 0 ? 0 : 1 / KD_SQRT(s); }

/* Matern 1/2: t = sqrt(s), F = exp(-t); singular at zero from F' = -exp(-t) / (2 t) on. */
KD_INLINE void kd_matern12(KD_JET_ARGS, const double *par, int low) {
    const KD_REAL c = (KD_REAL)par[0], k = (KD_REAL)__builtin_sqrt(par[1]);
    const KD_REAL c1 = (KD_REAL)(-0.5 * par[0] * __builtin_sqrt(par[1]));
    KD_REAL *restrict f1 = f + stride;
    (void)order;
    KD_EACH {
        const KD_REAL e = kd_exp_neg(-kd_root(k, a[i]));
        f[i] = c * e;
        if (low >= 1) f1[i] = c1 * e * kd_rsqrt(a[i]);
    }
}

KD_JET(matern12) {
    KD_BY_ORDER(kd_matern12, a, f, stride, n, order, par);
    kd_half_tail(a, f, stride, n, order, 0, 0.5, par[1]);
}

/* Matern 3/2: t = sqrt(3 s), F = (1 + t) exp(-t), F' = -3/2 exp(-t); singular at zero from
 * F'' = 9/4 exp(-t) / t on. */
KD_INLINE void kd_matern32(KD_JET_ARGS, const double *par, int low) {
    const double w = 3 * par[1];
    const KD_REAL c = (KD_REAL)par[0], k = (KD_REAL)__builtin_sqrt(w);
    const KD_REAL c1 = (KD_REAL)(-0.5 * par[0] * w);
    const KD_REAL c2 = (KD_REAL)(0.25 * par[0] * w * __builtin_sqrt(w));
    KD_REAL *restrict f1 = f + stride, *restrict f2 = f1 + stride;
    (void)order;
    KD_EACH {
        const KD_REAL t = kd_root(k, a[i]), e = kd_exp_neg(-t);
        f[i] = c * (e * t + e);
        if (low >= 1) f1[i] = c1 * e;
        if (low >= 2) f2[i] = c2 * e * kd_rsqrt(a[i]);
    }
}

KD_JET(matern32) {
    KD_BY_ORDER(kd_matern32, a, f, stride, n, order, par);
    kd_half_tail(a, f, stride, n, order, 1, 1.5, 3 * par[1]);
}

/* Matern 5/2: t = sqrt(5 s), F = (1 + t + t^2 / 3) exp(-t), F' = -5/6 (1 + t) exp(-t),
 * F'' = 25/12 exp(-t); singular at zero from F''' = -125/24 exp(-t) / t on. */
KD_INLINE void kd_matern52(KD_JET_ARGS, const double *par, int low) {
    const double w = 5 * par[1];
    const KD_REAL c = (KD_REAL)par[0], k = (KD_REAL)__builtin_sqrt(w);
    const KD_REAL c1 = (KD_REAL)(par[0] * w / -6), c2 = (KD_REAL)(par[0] * w * w / 12);
    const KD_REAL third = (KD_REAL)(1.0 / 3);
    KD_REAL *restrict f1 = f + stride, *restrict f2 = f1 + stride;
    (void)order;
    KD_EACH {
        const KD_REAL t = kd_root(k, a[i]), e = kd_exp_neg(-t), te = e * t + e;
        f[i] = c * (third * t * t * e + te);
        if (low >= 1) f1[i] = c1 * te;
        if (low >= 2) f2[i] = c2 * e;
    }
}

KD_JET(matern52) {
    KD_BY_ORDER(kd_matern52, a, f, stride, n, order, par);
    if (order < 3) return;
    const KD_REAL k = (KD_REAL)(-0.5 * __builtin_sqrt(5 * par[1]));
    const KD_REAL *restrict f2 = f + 2 * stride;
    KD_REAL *restrict f3 = f + 3 * stride;
    KD_EACH f3[i] = k * f2[i] * kd_rsqrt(a[i]);
    kd_half_tail(a, f, stride, n, order, 2, 2.5, 5 * par[1]);
}

/* c (w s)^(top + 1/2): the derivatives down to f^(top) ~ sqrt(s) are 0 at zero, the others
 * singular. */
static void kd_half_power(KD_JET_ARGS, int top, const double *par, double sign) {
    double c = sign * par[0] * __builtin_sqrt(par[1]);
    for (int q = 0; q < top; q++) c *= par[1];
    for (int q = 0; q <= order && q <= top + 1; q++, c *= top + 1.5 - q) {
        const KD_REAL cq = (KD_REAL)c;
        KD_REAL *restrict fq = f + q * stride;
        if (q > top)
            KD_EACH fq[i] = cq * kd_rsqrt(a[i]);
        else if (q == top)
            KD_EACH fq[i] = cq * KD_SQRT(a[i]);
        else if (q == top - 1)
            KD_EACH fq[i] = cq * a[i] * KD_SQRT(a[i]);
        else
            KD_EACH fq[i] = cq * a[i] * a[i] * KD_SQRT(a[i]);
    }
    kd_half_tail(a, f, stride, n, order, top, top + 0.5, 0);
}

/* Radial function linear: F(s) = -sqrt(s); 0 at zero, F' and all others singular. */
KD_JET(radial_linear) { kd_half_power(a, f, stride, n, order, 0, par, -1); }

/* Radial function cubic: F(s) = s^(3/2); F and F' are 0 at zero, the others singular. */
KD_JET(cubic) { kd_half_power(a, f, stride, n, order, 1, par, 1); }

/* Radial function quintic: F(s) = -s^(5/2); F, F', F'' are 0 at zero, the others singular. */
KD_JET(quintic) { kd_half_power(a, f, stride, n, order, 2, par, -1); }

/* Radial function thin_plate_spline: F(s) = s log(s) / 2, F' = (log(s) + 1) / 2, F'' = 1 / (2 s),
 * F^(q+1) = (1 - q) / s F^(q); F(0) = 0, all derivatives are singular at zero. */
KD_JET(thin_plate_spline) {
    const KD_REAL w = (KD_REAL)par[1], c = (KD_REAL)(0.5 * par[0] * par[1]);
    KD_REAL *restrict f1 = f + stride, *restrict f2 = f1 + stride;
    KD_EACH {
        const KD_REAL l = kd_log(w * a[i]);
        f[i] = a[i] == 0 ? 0 : c * a[i] * l;
    }
    if (order >= 1) KD_EACH {
            const KD_REAL l = kd_log(w * a[i]);
            f1[i] = a[i] == 0 ? 0 : c * (l + 1);
        }
    if (order >= 2) KD_EACH f2[i] = a[i] == 0 ? 0 : c / a[i];
    kd_half_tail(a, f, stride, n, order, 1, 1, 0);
}

/* ------------------------------------------------------------------------- binomials --- */

/* Derivatives first ... order of a function ~ (1 + x)^p with x = rate a:
 * f^(q) = (p - q + 1) rate f^(q-1) / (1 + x). The reciprocal waits in the last of them. */
static void kd_binomial_tail(KD_JET_ARGS, int first, double p, double rate_) {
    const KD_REAL rate = (KD_REAL)rate_;
    KD_REAL *last = f + order * stride;
    if (order < first) return;
    KD_EACH last[i] = 1 / (rate * a[i] + 1);
    for (int q = first; q <= order; q++) {
        const KD_REAL *before = f + (q - 1) * stride;
        KD_REAL *next = f + q * stride;
        const KD_REAL r = (KD_REAL)((p - (q - 1)) * rate_);
        KD_EACH next[i] = r * before[i] * last[i];
    }
}

/* RationalQuadratic, alpha = par[2]: F(s) = u^(-alpha), u = 1 + s / (2 alpha),
 * F^(q) = -(alpha + q - 1) / (2 alpha) F^(q-1) / u. */
KD_JET(rational_quadratic) {
    const double alpha = par[2], rate_ = par[1] / (2 * alpha);
    const KD_REAL c = (KD_REAL)par[0], rate = (KD_REAL)rate_, p = (KD_REAL)-alpha;
    KD_EACH f[i] = c * kd_pow1p(rate * a[i], p);
    kd_binomial_tail(a, f, stride, n, order, 1, -alpha, rate_);
}

/* Radial function multiquadric: F(s) = -sqrt(1 + s). */
KD_JET(multiquadric) {
    const KD_REAL c = (KD_REAL)-par[0], w = (KD_REAL)par[1];
    const KD_REAL c1 = (KD_REAL)(-0.5 * par[0] * par[1]);
    KD_REAL *restrict f1 = f + stride;
    KD_EACH f[i] = c * KD_SQRT(w * a[i] + 1);
    if (order >= 1) KD_EACH f1[i] = c1 / KD_SQRT(w * a[i] + 1);
    kd_binomial_tail(a, f, stride, n, order, 2, 0.5, par[1]);
}

/* Radial function inverse_multiquadric: F(s) = 1 / sqrt(1 + s). */
KD_JET(inverse_multiquadric) {
    const KD_REAL c = (KD_REAL)par[0], w = (KD_REAL)par[1];
    KD_EACH f[i] = c / KD_SQRT(w * a[i] + 1);
    kd_binomial_tail(a, f, stride, n, order, 1, -0.5, par[1]);
}

/* Radial function inverse_quadratic: F(s) = 1 / (1 + s). */
KD_JET(inverse_quadratic) {
    const KD_REAL c = (KD_REAL)par[0], w = (KD_REAL)par[1];
    KD_EACH f[i] = c / (w * a[i] + 1);
    kd_binomial_tail(a, f, stride, n, order, 1, -1, par[1]);
}

/* -------------------------------------------------------------------------- periodic --- */

/* J_m(y) = j_m(z) / z^m with y = z^2 and the spherical Bessel function j_m, m >= 1, for y <= pi^2:
 * its power series, each term from the one before. */
KD_INLINE KD_REAL kd_bessel(KD_REAL y, int m) {
    enum { TERMS = KD_F32 ? 7 : 13 };
    double scale = 1;
    KD_REAL sum = 1;
    for (int k = TERMS; k > 0; k--) sum = 1 - y * (KD_REAL)(0.5 / (k * (2 * m + 1 + 2 * k))) * sum;
    for (int k = 1; k <= m; k++) scale /= 2 * k + 1;
    return (KD_REAL)scale * sum;
}

/* ExpSineSquared, length scale l = par[2]: F = exp(h), h = -2 sin^2(pi sqrt(s)) / l^2, an entire
 * function of s.  With z = 2 pi sqrt(s) and j_m(z) the spherical Bessel functions,
 *
 *     h^(q) = (-2 pi^2)^q / l^2 J_(q-1),   J_m = j_m(z) / z^m,   J_m(0) = 1 / (1 3 5 ... (2 m +
 * 1)), J_-1 = cos(z),   J_0 = sin(z) / z,   J_(m+1) = ((2 m + 1) J_m - J_(m-1)) / z^2,
 *
 * the last of which cancels when z is small: below pi the two highest come from their series and
 * the others from the same recurrence, downwards.  F^(q) = sum_k (q-1 over k) h^(k+1) F^(q-1-k). */
KD_INLINE void kd_exp_sine_squared(KD_JET_ARGS, const double *par, const int low) {
    const double pi = 3.14159265358979323846, r = -2 * pi * pi * par[1], l2 = par[2] * par[2];
    const KD_REAL w = (KD_REAL)par[1], c = (KD_REAL)par[0], c0 = (KD_REAL)(-2 / l2);
    const KD_REAL ipi = (KD_REAL)(1 / pi), yw = (KD_REAL)(-2 * r);
    const KD_REAL k1 = (KD_REAL)(r / l2), k2 = (KD_REAL)(r * r / l2),
                  k3 = (KD_REAL)(r * r * r / l2), k4 = (KD_REAL)(r * r * r * r / l2),
                  k5 = (KD_REAL)(r * r * r * r * r / l2);
    (void)order;
    KD_EACH {
        const KD_REAL x = KD_SQRT(w * a[i]);
        KD_REAL sn, cs;
        kd_sincospi(x, &sn, &cs);
        const KD_REAL f0 = c * kd_exp_neg(c0 * sn * sn);
        f[i] = f0;
        if (low >= 1) {
            const KD_REAL v = ipi / x;
            const KD_REAL J0 = x == 0 ? 1 : sn * cs * v;
            const KD_REAL h1 = k1 * J0, f1 = h1 * f0;
            f[stride + i] = f1;
            if (low >= 2) {
                const KD_REAL y = yw * a[i], iy = KD_K(0.25) * v * v;
                const _Bool near = x < KD_K(0.5);
                KD_REAL J1 = (J0 - (cs - sn) * (cs + sn)) * iy, J2 = 0, J3 = 0, J4 = 0;
                if (low >= 3) J2 = (3 * J1 - J0) * iy;
                if (low >= 4) J3 = (5 * J2 - J1) * iy;
                if (low >= 5) J4 = (7 * J3 - J2) * iy;
                if (low >= 5) {
                    J4 = near ? kd_bessel(y, 4) : J4;
                    J3 = near ? kd_bessel(y, 3) : J3;
                    J2 = near ? 7 * J3 - y * J4 : J2;
                    J1 = near ? 5 * J2 - y * J3 : J1;
                } else if (low >= 4) {
                    J3 = near ? kd_bessel(y, 3) : J3;
                    J2 = near ? kd_bessel(y, 2) : J2;
                    J1 = near ? 5 * J2 - y * J3 : J1;
                } else if (low >= 3) {
                    J2 = near ? kd_bessel(y, 2) : J2;
                    J1 = near ? kd_bessel(y, 1) : J1;
                } else {
                    J1 = near ? kd_bessel(y, 1) : J1;
                }
                const KD_REAL h2 = k2 * J1, f2 = h2 * f0 + h1 * f1;
                f[2 * stride + i] = f2;
                const KD_REAL h3 = k3 * J2, f3 = h3 * f0 + 2 * h2 * f1 + h1 * f2;
                if (low >= 3) f[3 * stride + i] = f3;
                const KD_REAL h4 = k4 * J3, f4 = h4 * f0 + 3 * (h3 * f1 + h2 * f2) + h1 * f3;
                if (low >= 4) f[4 * stride + i] = f4;
                const KD_REAL h5 = k5 * J4;
                if (low >= 5)
                    f[5 * stride + i] = h5 * f0 + 4 * (h4 * f1 + h2 * f3) + 6 * h3 * f2 + h1 * f4;
            }
        }
    }
}

KD_JET(exp_sine_squared) {
    switch (order) {
    case 0:
        kd_exp_sine_squared(a, f, stride, n, order, par, 0);
        break;
    case 1:
        kd_exp_sine_squared(a, f, stride, n, order, par, 1);
        break;
    case 2:
        kd_exp_sine_squared(a, f, stride, n, order, par, 2);
        break;
    case 3:
        kd_exp_sine_squared(a, f, stride, n, order, par, 3);
        break;
    case 4:
        kd_exp_sine_squared(a, f, stride, n, order, par, 4);
        break;
    default:
        kd_exp_sine_squared(a, f, stride, n, order, par, 5);
    }
}

/* ------------------------------------------------------------ functions of a product --- */

/* Constant: F = 1. */
KD_JET(constant) {
    (void)a;
    for (int q = 0; q <= order; q++) kd_fill(f + q * stride, n, q ? 0 : par[0]);
}

/* DotProduct, offset = par[2]: F(p) = offset + p. */
KD_JET(linear) {
    const KD_REAL c = (KD_REAL)par[0], w = (KD_REAL)par[1], offset = (KD_REAL)par[2];
    KD_EACH f[i] = c * (w * a[i] + offset);
    for (int q = 1; q <= order; q++) kd_fill(f + q * stride, n, q == 1 ? par[0] * par[1] : 0);
}

/* Polynomial kernel, exponent m = par[2], offset = par[3]: F(p) = u^m, u = p + offset,
 * F^(q) = m (m - 1) ... (m - q + 1) u^(m-q), which is 0 where the coefficient is, and where m is
 * not a natural number NaN at u = 0 from q > m on.
 *
 * Natural m: u^(m-q) for the largest q by squaring and multiplying, the others from it. */
KD_JET(power) {
    const double m = par[2];
    const KD_REAL w = (KD_REAL)par[1], offset = (KD_REAL)par[3];
    const int whole = m >= 0 && m <= 64 && m == (int)m;
    const int top = whole && m < order ? (int)m : order;
    double c[6] = {par[0]};
    for (int q = 1; q <= order; q++) c[q] = c[q - 1] * par[1] * (m - q + 1);
    for (int q = top + 1; q <= order; q++) kd_fill(f + q * stride, n, 0);
    if (!whole) {
        for (int q = 0; q <= order; q++) {
            const KD_REAL cq = (KD_REAL)c[q], e = (KD_REAL)(m - q);
            KD_REAL *restrict fq = f + q * stride;
            KD_EACH {
                const KD_REAL u = w * a[i] + offset;
                fq[i] = (u == 0) & (e < 0) ? KD_NAN : cq * kd_pow(u, e);
            }
        }
        return;
    }
    KD_REAL *g = f + top * stride;
    int e = (int)m - top, bit = 64;
    kd_fill(g, n, 1);
    for (; bit; bit >>= 1) {
        if (e & bit)
            KD_EACH g[i] = g[i] * g[i] * (w * a[i] + offset);
        else if (e >= bit)
            KD_EACH g[i] = g[i] * g[i];
    }
    for (int q = top; q >= 0; q--, g -= stride) {
        const KD_REAL cq = (KD_REAL)c[q];
        KD_REAL *before = g - stride;
        if (q) KD_EACH before[i] = g[i] * (w * a[i] + offset);
        KD_EACH g[i] = cq * g[i];
    }
}

/* Sigmoid, offset = par[2]: F(p) = t = tanh(p + offset), F' = 1 - t^2,
 * F'' = -2 t F', F''' = (6 t^2 - 2) F', F'''' = (16 - 24 t^2) t F',
 * F^(5) = (120 t^4 - 120 t^2 + 16) F'. */
KD_INLINE void kd_sigmoid(KD_JET_ARGS, const double *par, int low) {
    const KD_REAL c = (KD_REAL)par[0], w = (KD_REAL)par[1], offset = (KD_REAL)par[2];
    const KD_REAL c1 = (KD_REAL)(par[0] * par[1]);
    KD_REAL *restrict f1 = f + stride, *restrict last = f + order * stride;
    KD_EACH {
        KD_REAL t, s;
        kd_tanh_sech2(w * a[i] + offset, &t, &s);
        f[i] = c * t;
        if (low >= 1) f1[i] = c1 * s;
        if (low >= 2) last[i] = t;
    }
}

KD_JET(sigmoid) {
    KD_BY_ORDER(kd_sigmoid, a, f, stride, n, order, par);
    /* F^(q) / F' = odd t (p0 + p1 t^2 + p2 t^4) */
    static const double poly[4][3] = {{-2, 0, 0}, {-2, 6, 0}, {16, -24, 0}, {16, -120, 120}};
    const KD_REAL *f1 = f + stride, *t = f + order * stride;
    double wq = 1;
    for (int q = 2; q <= order; q++) {
        KD_REAL *fq = f + q * stride;
        wq *= par[1];
        const KD_REAL p0 = (KD_REAL)(wq * poly[q - 2][0]), p1 = (KD_REAL)(wq * poly[q - 2][1]),
                      p2 = (KD_REAL)(wq * poly[q - 2][2]);
        if (q & 1)
            KD_EACH fq[i] = f1[i] * ((p2 * t[i] * t[i] + p1) * t[i] * t[i] + p0);
        else
            KD_EACH fq[i] = f1[i] * (t[i] * (p1 * t[i] * t[i] + p0));
    }
}

#undef KD_JET
#endif
#endif
