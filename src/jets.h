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
 * Kernels of a distance have s = a ≥ 0 for argument.  Where a derivative is singular at s = 0 it
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
  X(rational_quadratic_alpha) X(sine_squared) \
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

#define KD_PI_PI 9.86960440108935861883 /* π² */

#define KD_JET(name)                                                                            \
    static void kd_jet_##name(const KD_REAL *restrict a, KD_REAL *restrict f, ptrdiff_t stride, \
                              ptrdiff_t n, int order, const double *par)

/* The loops of a jet that are made once for each order, up to a highest: `order` is a constant in
 * them. */
#define KD_LOOPS(name)                                                             \
    KD_INLINE void kd_loops_##name(const KD_REAL *restrict a, KD_REAL *restrict f, \
                                   ptrdiff_t stride, ptrdiff_t n, const double *par, int order)
#define KD_LOOPS_CASE(name, q)                    \
    case q:                                       \
        kd_loops_##name(a, f, stride, n, par, q); \
        break;
#define KD_RUN_LOOPS(name, highest)              \
    switch (order < highest ? order : highest) { \
        KD_LOOPS_CASE(name, 0)                   \
        KD_LOOPS_CASE(name, 1)                   \
        KD_LOOPS_CASE(name, 2)                   \
        KD_LOOPS_CASE(name, 3)                   \
        KD_LOOPS_CASE(name, 4)                   \
        KD_LOOPS_CASE(name, 5)                   \
    }

/* For all arguments. That their number is a multiple of VL spares the loops their remainders. */
#define KD_EACH _Pragma("omp simd") for (ptrdiff_t i = 0; i < (n & -(ptrdiff_t)VL); i++)

static void kd_constant(KD_REAL *f, ptrdiff_t n, double value) {
    const KD_REAL v = (KD_REAL)value;
    KD_EACH f[i] = v;
}

static void kd_scale(KD_REAL *f, ptrdiff_t n, double factor) {
    const KD_REAL c = (KD_REAL)factor;
    KD_EACH f[i] *= c;
}

/* ----------------------------------------------------------------------------- exponentials --- */

/* c exp(rate a), rate a ≤ 0: f^(q) = rate f^(q-1). */
static void kd_exponential(const KD_REAL *restrict a, KD_REAL *restrict f, ptrdiff_t stride,
                           ptrdiff_t n, int order, double c_, double rate_) {
    const KD_REAL c = (KD_REAL)c_, rate = (KD_REAL)rate_;
    KD_EACH f[i] = c * kd_exp_neg(rate * a[i]);
    for (int q = 1; q <= order; q++) {
        KD_REAL *next = f + stride;
        KD_EACH next[i] = rate * f[i];
        f = next;
    }
}

/* RBF: F(s) = exp(-s / 2), F^(q) = (-1/2)^q F. */
KD_JET(rbf) { kd_exponential(a, f, stride, n, order, par[0], -0.5 * par[1]); }

/* Radial function gaussian: F(s) = exp(-s), F^(q) = (-1)^q F. */
KD_JET(gaussian) { kd_exponential(a, f, stride, n, order, par[0], -par[1]); }

/* --------------------------------------------------------------------- functions of √s --- */

/* Derivatives from + 1 ... order, singular at zero, of the functions with
 *
 *     s f^(q+1) = k f^(q-1) - (q - ν) f^(q):
 *
 * Matérn's f ~ t^ν K_ν(t), t² = 4 k s, of which this is the recurrence of the modified Bessel
 * functions, and s^ν, k = 0.  With from > ν, all terms have one sign. */
static void kd_root_tail(const KD_REAL *restrict a, KD_REAL *f, ptrdiff_t stride, ptrdiff_t n,
                         int order, int from, double nu, double k_) {
    const KD_REAL k = (KD_REAL)k_;
    for (int q = from; q < order; q++) {
        const KD_REAL *f0 = f + (q - 1) * stride, *f1 = f + q * stride;
        KD_REAL *f2 = f + (q + 1) * stride;
        const KD_REAL r = (KD_REAL)(nu - q);
        if (k == 0) /* not 0 f0, which may be infinite */
            KD_EACH {
                const KD_REAL s = a[i], y = r * f1[i] / s;
                f2[i] = s == 0 ? 0 : y;
            }
        else
            KD_EACH {
                const KD_REAL s = a[i], y = (k * f0[i] + r * f1[i]) / s;
                f2[i] = s == 0 ? 0 : y;
            }
    }
}

/* k √s, but no more than where exp(-k √s) is 0, so that its products with that are 0 too. */
KD_INLINE KD_REAL kd_root(KD_REAL k, KD_REAL s) { return kd_at_most(k * KD_SQRT(s), -KD_EXP_MIN); }

/* 1 / √s, but 0 at zero. */
KD_INLINE KD_REAL kd_rsqrt(KD_REAL s) { return s == 0 ? 0 : 1 / KD_SQRT(s); }

/* Matérn 1/2: t = √s, F = exp(-t), F' = -1/2 exp(-t) / t. At zero: 1, singular. */
KD_LOOPS(matern12) {
    const double k_ = __builtin_sqrt(par[1]);
    const KD_REAL k = (KD_REAL)k_, c = (KD_REAL)par[0], c1 = (KD_REAL)(par[0] * k_ / -2);
    KD_EACH {
        const KD_REAL e = kd_exp_neg(-kd_root(k, a[i]));
        f[i] = c * e;
        if (order >= 1) f[stride + i] = c1 * e * kd_rsqrt(a[i]);
    }
}

KD_JET(matern12) {
    KD_RUN_LOOPS(matern12, 1)
    kd_root_tail(a, f, stride, n, order, 1, 0.5, par[1] / 4);
}

/* Matérn 3/2: t = √(3 s), F = (1 + t) exp(-t), F' = -3/2 exp(-t), F'' = 9/4 exp(-t) / t.
 * At zero: 1, -3/2, singular. */
KD_LOOPS(matern32) {
    const double w = 3 * par[1], k_ = __builtin_sqrt(w);
    const KD_REAL k = (KD_REAL)k_, c = (KD_REAL)par[0], c1 = (KD_REAL)(par[0] * w / -2),
                  c2 = (KD_REAL)(par[0] * w * k_ / 4);
    KD_EACH {
        const KD_REAL t = kd_root(k, a[i]), e = kd_exp_neg(-t);
        f[i] = c * (e * t + e);
        if (order >= 1) f[stride + i] = c1 * e;
        if (order >= 2) f[2 * stride + i] = c2 * e * kd_rsqrt(a[i]);
    }
}

KD_JET(matern32) {
    KD_RUN_LOOPS(matern32, 2)
    kd_root_tail(a, f, stride, n, order, 2, 1.5, 3 * par[1] / 4);
}

/* Matérn 5/2: t = √(5 s), F = (1 + t + t² / 3) exp(-t), F' = -5/6 (1 + t) exp(-t),
 * F'' = 25/12 exp(-t), F''' = -125/24 exp(-t) / t. At zero: 1, -5/6, 25/12, singular. */
KD_LOOPS(matern52) {
    const double w = 5 * par[1];
    const KD_REAL k = (KD_REAL)__builtin_sqrt(w), third = (KD_REAL)(1.0 / 3), c = (KD_REAL)par[0],
                  c1 = (KD_REAL)(par[0] * w / -6), c2 = (KD_REAL)(par[0] * w * w / 12);
    KD_EACH {
        const KD_REAL t = kd_root(k, a[i]), e = kd_exp_neg(-t);
        f[i] = c * e * ((third * t + 1) * t + 1);
        if (order >= 1) f[stride + i] = c1 * (e * t + e);
        if (order >= 2) f[2 * stride + i] = c2 * e;
    }
}

KD_JET(matern52) {
    KD_RUN_LOOPS(matern52, 2)
    if (order < 3) return;
    const KD_REAL k = (KD_REAL)(__builtin_sqrt(5 * par[1]) / -2);
    const KD_REAL *f2 = f + 2 * stride;
    KD_REAL *f3 = f + 3 * stride;
    KD_EACH f3[i] = k * f2[i] * kd_rsqrt(a[i]);
    kd_root_tail(a, f, stride, n, order, 3, 2.5, 5 * par[1] / 4);
}

/* c (w s)^(m + 1/2) up to f^(m+1), which is singular at zero; the others are 0 there. */
KD_INLINE void kd_half_power(const KD_REAL *restrict a, KD_REAL *restrict f, ptrdiff_t stride,
                             ptrdiff_t n, int order, int m, double c_, double w) {
    c_ *= __builtin_sqrt(w);
    for (int k = 0; k < m; k++) c_ *= w;
    KD_REAL c[4];
    for (int q = 0; q <= m + 1; c_ *= m + 0.5 - q, q++) c[q] = (KD_REAL)c_;
    KD_EACH {
        const KD_REAL s = a[i], root = KD_SQRT(s);
        KD_REAL power = root;
        for (int q = m; q >= 0; q--) {
            if (q <= order) f[q * stride + i] = c[q] * power;
            power *= s;
        }
        if (order > m) f[(m + 1) * stride + i] = s == 0 ? 0 : c[m + 1] / root;
    }
}

/* Radial function linear: F(s) = -s^(1/2). At zero: 0, singular. */
KD_LOOPS(radial_linear) { kd_half_power(a, f, stride, n, order, 0, -par[0], par[1]); }

KD_JET(radial_linear) {
    KD_RUN_LOOPS(radial_linear, 1)
    kd_root_tail(a, f, stride, n, order, 1, 0.5, 0);
}

/* Radial function cubic: F(s) = s^(3/2). At zero: 0, 0, singular. */
KD_LOOPS(cubic) { kd_half_power(a, f, stride, n, order, 1, par[0], par[1]); }

KD_JET(cubic) {
    KD_RUN_LOOPS(cubic, 2)
    kd_root_tail(a, f, stride, n, order, 2, 1.5, 0);
}

/* Radial function quintic: F(s) = -s^(5/2). At zero: 0, 0, 0, singular. */
KD_LOOPS(quintic) { kd_half_power(a, f, stride, n, order, 2, -par[0], par[1]); }

KD_JET(quintic) {
    KD_RUN_LOOPS(quintic, 3)
    kd_root_tail(a, f, stride, n, order, 3, 2.5, 0);
}

/* Radial function thin_plate_spline: F(s) = s log(s) / 2, F' = (log(s) + 1) / 2, F'' = 1 / (2 s),
 * s F^(q+1) = -(q - 1) F^(q). At zero: 0, singular. */
KD_LOOPS(thin_plate_spline) {
    const KD_REAL w = (KD_REAL)par[1], c = (KD_REAL)(par[0] / 2),
                  c1 = (KD_REAL)(par[0] * par[1] / 2);
    KD_EACH {
        const KD_REAL s = w * a[i], l = kd_log(s);
        f[i] = s == 0 ? 0 : c * s * l;
        if (order >= 1) f[stride + i] = s == 0 ? 0 : c1 * l + c1;
        if (order >= 2) f[2 * stride + i] = s == 0 ? 0 : c1 / a[i];
    }
}

KD_JET(thin_plate_spline) {
    KD_RUN_LOOPS(thin_plate_spline, 2)
    kd_root_tail(a, f, stride, n, order, 2, 1, 0);
}

/* -------------------------------------------------------------------------- powers of 1 + s --- */

/* Derivatives from ... order of a function ~ u^p, u = 1 + rate s:
 * f^(q) = (p - q + 1) rate f^(q-1) / u.  1 / u waits where the last of them goes. */
static void kd_power_tail(const KD_REAL *restrict a, KD_REAL *f, ptrdiff_t stride, ptrdiff_t n,
                          int order, int from, double p, double rate_) {
    const KD_REAL rate = (KD_REAL)rate_;
    KD_REAL *last = f + order * stride;
    if (order < from) return;
    KD_EACH last[i] = 1 / (rate * a[i] + 1);
    for (int q = from; q <= order; q++) {
        const KD_REAL r = (KD_REAL)((p - (q - 1)) * rate_), *before = f + (q - 1) * stride;
        KD_REAL *next = f + q * stride;
        KD_EACH next[i] = r * before[i] * last[i];
    }
}

/* log(1 + x), x ≥ 0. */
KD_INLINE KD_REAL kd_log1p_pos(KD_REAL x) {
    KD_REAL k, f, s, excess;
    kd_log1p_reduce(x, &k, &f, &s, &excess);
    const KD_REAL y = kd_log_sum(k, f, s, excess);
    return x < KD_INF ? y : x;
}

/* RationalQuadratic, α = par[2]: F(s) = u^(-α), u = 1 + s / (2 α),
 * F^(q) = -(α + q - 1) / (2 α) F^(q-1) / u.  At zero: 1, -1/2, (α + 1) / (4 α), ...
 *
 * The logarithm of 1 + x, not of a rounded u, keeps the digits of x when α is large.  Two short
 * loops are faster than a long one: more of their steps are under way at a time. */
KD_JET(rational_quadratic) {
    const double alpha = par[2], rate_ = par[1] / (2 * alpha);
    const KD_REAL c = (KD_REAL)par[0], rate = (KD_REAL)rate_, p = (KD_REAL)-alpha;
    KD_EACH f[i] = p * kd_log1p_pos(rate * a[i]);
    KD_EACH f[i] = c * kd_exp_neg(f[i]);
    kd_power_tail(a, f, stride, n, order, 1, -alpha, rate_);
}

/* Derivative of the logarithm of RationalQuadratic with respect to that of α = par[2]:
 * F(s) = α (z / u - log(u)), z = s / (2 α), u = 1 + z,
 * F^(q) = α (q - 1)! (-1 / (2 α))^q (u - q) / u^(q+1).  At zero: 0, 0, -1 / (4 α), ...
 *
 * Small z cancel in z / u - log(u) = -(z² (1 - z) / (2 u) + log(u) - z + z² / 2), but the terms of
 * the right hand side have the same sign, and are what `kd_log_sum` makes the logarithm from. */
KD_JET(rational_quadratic_alpha) {
    const double alpha = par[2], rate_ = par[1] / (2 * alpha);
    const KD_REAL rate = (KD_REAL)rate_, c = (KD_REAL)(par[0] * alpha);
    KD_EACH {
        const KD_REAL z = rate * a[i], u = 1 + z, s = z / (2 + z), h = KD_K(0.5) * z * z;
        const KD_REAL near = h * (1 - z) / u + s * (h + s * s * kd_log_poly(s * s));
        const KD_REAL far = kd_log1p_pos(z) - z / u;
        f[i] = -c * (z < KD_K(0.4) ? near : far);
    }
    double c_ = par[0] * alpha;
    for (int q = 1; q <= order; q++) {
        c_ *= q == 1 ? -rate_ : -rate_ * (q - 1);
        const KD_REAL cq = (KD_REAL)c_, back = (KD_REAL)(q - 1);
        KD_REAL *fq = f + q * stride;
        KD_EACH {
            const KD_REAL z = rate * a[i];
            fq[i] = cq * ((z - back) / (z + 1));
        }
        for (int k = 0; k < q; k++) KD_EACH fq[i] /= rate * a[i] + 1;
    }
}

/* Radial function multiquadric: F(s) = -(1 + s)^(1/2). At zero: -1, -1/2, 1/4, ... */
KD_LOOPS(multiquadric) {
    const KD_REAL w = (KD_REAL)par[1], c = (KD_REAL)-par[0], c1 = (KD_REAL)(par[0] * par[1] / -2);
    KD_EACH {
        const KD_REAL y = KD_SQRT(w * a[i] + 1);
        f[i] = c * y;
        if (order >= 1) f[stride + i] = c1 / y;
    }
}

KD_JET(multiquadric) {
    KD_RUN_LOOPS(multiquadric, 1)
    kd_power_tail(a, f, stride, n, order, 2, 0.5, par[1]);
}

/* Radial function inverse_multiquadric: F(s) = (1 + s)^(-1/2). At zero: 1, -1/2, 3/4, ... */
KD_JET(inverse_multiquadric) {
    const KD_REAL c = (KD_REAL)par[0], w = (KD_REAL)par[1];
    KD_EACH f[i] = c / KD_SQRT(w * a[i] + 1);
    kd_power_tail(a, f, stride, n, order, 1, -0.5, par[1]);
}

/* Radial function inverse_quadratic: F(s) = 1 / (1 + s). At zero: 1, -1, 2, ... */
KD_JET(inverse_quadratic) {
    const KD_REAL c = (KD_REAL)par[0], w = (KD_REAL)par[1];
    KD_EACH f[i] = c / (w * a[i] + 1);
    kd_power_tail(a, f, stride, n, order, 1, -1, par[1]);
}

/* --------------------------------------------------------------------------------- periodic --- */

/* With z = 2 π √t, the spherical Bessel functions j_m and G_m = (2 π²)^m j_m(z) / z^m: minimax
 * polynomials in t ≤ 1/4, that is z ≤ π, for
 *
 *                        sin²(z / 2) / t   (1 - G_0) / (2 t)      G_2       G_4
 *     relative error            4.2e-17             4.6e-18   1.2e-17   8.0e-19   (double)
 *                                1.4e-8              2.4e-9    5.5e-9   7.7e-10   (float) */
#if KD_F32
enum { KD_SINE_TERMS = 6 };
static const KD_REAL kd_sine_sin2[] = {0x1.3bd3ccp3f,  -0x1.03c1dep5f, 0x1.55d0cp5f,
                                       -0x1.e193aep4f, 0x1.a1300ap3f,  -0x1.ab0908p1f},
                     kd_sine_g0[] = {0x1.a51a66p1f,  -0x1.9f9cacp2f, 0x1.86a764p2f,
                                     -0x1.ac365ep1f, 0x1.30912cp0f,  -0x1.0d81e4p-2f},
                     kd_sine_g2[] = {0x1.9f9cb4p4f,  -0x1.24fea2p6f, 0x1.414c66p6f,
                                     -0x1.802d64p5f, 0x1.20c5dp4f,   -0x1.086726p2f},
                     kd_sine_g4[] = {0x1.414e04p7f,  -0x1.204952p8f, 0x1.b5bb3cp7f,
                                     -0x1.7fed18p6f, 0x1.baf38ap4f,  -0x1.48c2a2p2f};
#else
enum { KD_SINE_TERMS = 10 };
static const KD_REAL kd_sine_sin2[] = {0x1.3bd3cc9be45dep3,  -0x1.03c1f081b5a99p5,
                                       0x1.55d3c7e3cab4fp5,  -0x1.e1f506889e737p4,
                                       0x1.a6d1f289b85d8p3,  -0x1.f9d384c2a6cb9p1,
                                       0x1.b6e18f1e14106p-1, -0x1.20b5b626168e6p-3,
                                       0x1.2854e82b6ef0bp-6, -0x1.bc15d853bf4c2p-10},
                     kd_sine_g0[] = {0x1.a51a6625307d3p1,   -0x1.9f9cb402bc45fp2,
                                     0x1.86a8e4720d504p2,   -0x1.ac6805cf0d628p1,
                                     0x1.33816a9c8537p0,    -0x1.3747182ef30d2p-2,
                                     0x1.d424185a60363p-5,  -0x1.0fbe6b965b216p-7,
                                     0x1.f39f6a9023375p-11, -0x1.55f13d7edaad2p-14},
                     kd_sine_g2[] = {0x1.9f9cb402bc46cp4,  -0x1.24feab558a47ep6,
                                     0x1.414e045b674f3p6,  -0x1.8061c54d4a8c6p5,
                                     0x1.23d2a85209394p4,  -0x1.333802418d79fp2,
                                     0x1.dba0316f2d12bp-1, -0x1.1a502b6ae0e1bp-3,
                                     0x1.081d65f9408a9p-6, -0x1.6e2470d3af28ap-10},
                     kd_sine_g4[] = {0x1.414e045b67c7dp7,  -0x1.204953fa1a72fp8,
                                     0x1.b5bbfc888c68cp7,  -0x1.8006055c10492p6,
                                     0x1.bde6b52678d08p4,  -0x1.7299748ec1901p2,
                                     0x1.d07707bb5288dp-1, -0x1.c783d4db566e1p-4,
                                     0x1.666b2590eae5dp-7, -0x1.aceb9e24a5daap-11};
#endif

KD_INLINE KD_REAL kd_sine_poly(KD_REAL t, const KD_REAL *p) {
    const KD_REAL t2 = t * t;
    KD_REAL even = p[KD_SINE_TERMS - 2], odd = p[KD_SINE_TERMS - 1];
    for (int k = KD_SINE_TERMS - 4; k >= 0; k -= 2) {
        even = even * t2 + p[k];
        odd = odd * t2 + p[k + 1];
    }
    return odd * t + even;
}

/* Sine squared, w = 1 / period²: F(s) = sin²(z / 2), z = 2 π √s, an entire function of s.  As
 * d/ds is 2 π² / z d/dz,
 *
 *     F^(q) = -(-1)^q π² G_(q-1),   G_0 = sin(z) / z,   2 π² G_-1 = cos(z),
 *     2 s G_(m+1) = (2 m + 1) G_m - 2 π² G_(m-1).
 *
 * Upwards in m this loses digits like z^(-2 m).  Below z = π the even G_m come from polynomials
 * instead, G_1 from those of G_0 and sin², and G_3 from its neighbours, all terms being positive.
 * At zero: 0, π², as G_m = (2 π²)^m / (1 3 5 ... (2 m + 1)) there. */
KD_LOOPS(sine_squared) {
    const double w_ = par[1], k1_ = par[0] * KD_PI_PI * w_;
    const KD_REAL w = (KD_REAL)w_, p = (KD_REAL)(2 * KD_PI_PI);
    const KD_REAL k0 = (KD_REAL)par[0], k1 = (KD_REAL)k1_, k2 = (KD_REAL)(-k1_ * w_),
                  k3 = (KD_REAL)(k1_ * w_ * w_), k4 = (KD_REAL)(-k1_ * w_ * w_ * w_),
                  k5 = (KD_REAL)(k1_ * w_ * w_ * w_ * w_);
    KD_EACH {
        const KD_REAL root = KD_SQRT(w * a[i]);
        /* The distance to the nearest whole number of periods; all large numbers are whole. */
        const KD_REAL b = root >= KD_MANY ? 0 : root - ((root + KD_MANY) - KD_MANY);
        const KD_REAL t = b * b, S = kd_sine_poly(t, kd_sine_sin2), sin2 = t * S;
        f[i] = k0 * sin2;
        if (order < 1) continue;

        const _Bool inside = root < KD_K(0.5); /* z < π, t = s */
        const KD_REAL A = kd_sine_poly(t, kd_sine_g0), r = 1 / root, v = KD_K(0.5) * r * r;
        const KD_REAL g0 = (1 - 2 * t * A) * (inside ? 1 : b * r);
        f[stride + i] = k1 * g0;
        if (order < 2) continue;

        const KD_REAL g1 = inside ? S - A : (g0 - (1 - 2 * sin2)) * v;
        f[2 * stride + i] = k2 * g1;
        if (order < 3) continue;

        const KD_REAL g2 = inside ? kd_sine_poly(t, kd_sine_g2) : (3 * g1 - p * g0) * v;
        f[3 * stride + i] = k3 * g2;
        if (order < 4) continue;

        const KD_REAL g4 = kd_sine_poly(t, kd_sine_g4);
        const KD_REAL g3 = inside ? (p * g2 + 2 * t * g4) * KD_K(1.0 / 7) : (5 * g2 - p * g1) * v;
        f[4 * stride + i] = k4 * g3;
        if (order >= 5) f[5 * stride + i] = k5 * (inside ? g4 : (7 * g3 - p * g2) * v);
    }
}

KD_JET(sine_squared){KD_RUN_LOOPS(sine_squared, 5)}

/* ExpSineSquared, l = par[2], w = 1 / period²: F(s) = exp(h), h = -2 sin²(π √s) / l²,
 * F^(q) = Σ_k (q-1 over k) h^(k+1) F^(q-1-k).  At zero: 1, -2 π² / l², ...
 *
 * h and its derivatives, then their exponential: see RationalQuadratic. */
KD_LOOPS(exp_sine_squared) {
    const double exponent[] = {-2 / (par[2] * par[2]), par[1]};
    const KD_REAL c = (KD_REAL)par[0];
    kd_loops_sine_squared(a, f, stride, n, exponent, order);
    KD_EACH {
        const KD_REAL f0 = c * kd_exp_neg(f[i]);
        f[i] = f0;
        if (order < 1) continue;
        const KD_REAL h1 = f[stride + i], f1 = h1 * f0;
        f[stride + i] = f1;
        if (order < 2) continue;
        const KD_REAL h2 = f[2 * stride + i], f2 = h2 * f0 + h1 * f1;
        f[2 * stride + i] = f2;
        if (order < 3) continue;
        const KD_REAL h3 = f[3 * stride + i], f3 = h3 * f0 + 2 * h2 * f1 + h1 * f2;
        f[3 * stride + i] = f3;
        if (order < 4) continue;
        const KD_REAL h4 = f[4 * stride + i], f4 = h4 * f0 + 3 * (h3 * f1 + h2 * f2) + h1 * f3;
        f[4 * stride + i] = f4;
        if (order < 5) continue;
        const KD_REAL h5 = f[5 * stride + i];
        f[5 * stride + i] = h5 * f0 + 4 * (h4 * f1 + h2 * f3) + 6 * h3 * f2 + h1 * f4;
    }
}

KD_JET(exp_sine_squared){KD_RUN_LOOPS(exp_sine_squared, 5)}

/* ------------------------------------------------------ constant and functions of a product --- */

/* Constant: F = 1. */
KD_JET(constant) {
    (void)a;
    for (int q = 0; q <= order; q++) kd_constant(f + q * stride, n, q == 0 ? par[0] : 0);
}

/* DotProduct, offset = par[2]: F(p) = p + offset, F' = 1. */
KD_JET(linear) {
    const KD_REAL c = (KD_REAL)par[0], w = (KD_REAL)par[1], offset = (KD_REAL)par[2];
    KD_EACH f[i] = c * (w * a[i] + offset);
    for (int q = 1; q <= order; q++) kd_constant(f + q * stride, n, q == 1 ? par[0] * par[1] : 0);
}

/* Polynomial, m = par[2], offset = par[3]: F(p) = u^m, u = p + offset,
 * F^(q) = m (m - 1) ... (m - q + 1) u^(m-q).  At u = 0: 0 where the coefficient is 0, else u^0 = 1
 * and NaN for negative powers.
 *
 * The smallest power that is not negative comes first, by multiplication if m is a small integer;
 * from there the others by products and quotients, so that none overflows on behalf of another. */
KD_JET(power) {
    const double m = par[2];
    const KD_REAL w = (KD_REAL)par[1], offset = (KD_REAL)par[3];
    const int small = m >= 0 && m <= 64 && m == (int)m; /* by multiplication */
    const int q0 = m < 0 ? 0 : m < order ? (int)m : order;
    const int top = small ? q0 : order; /* the last derivative that is not 0 */
    KD_REAL *g = f + q0 * stride;
    if (small) {
        const int e = (int)m - q0;
        kd_constant(g, n, 1);
        for (int bit = 64; bit; bit /= 2)
            if (e & bit)
                KD_EACH g[i] = g[i] * g[i] * (w * a[i] + offset);
            else if (e > bit)
                KD_EACH g[i] *= g[i];
    } else {
        const KD_REAL e = (KD_REAL)(m - q0), zero = m < 0 ? KD_NAN : 0;
        KD_EACH {
            const KD_REAL u = w * a[i] + offset;
            g[i] = kd_pow(u == 0 ? zero : u, e);
        }
    }
    for (int q = q0; q > 0; q--) {
        const KD_REAL *from = f + q * stride;
        KD_REAL *to = f + (q - 1) * stride;
        KD_EACH to[i] = from[i] * (w * a[i] + offset);
    }
    for (int q = q0; q < top; q++) {
        const KD_REAL *from = f + q * stride;
        KD_REAL *to = f + (q + 1) * stride;
        KD_EACH to[i] = from[i] / (w * a[i] + offset);
    }
    double c = par[0];
    for (int q = 0; q <= order; c *= par[1] * (m - q), q++)
        if (q <= top)
            kd_scale(f + q * stride, n, c);
        else
            kd_constant(f + q * stride, n, 0);
}

/* Sigmoid, offset = par[2]: F(p) = t = tanh(p + offset), F' = 1 - t², F'' = -2 t F',
 * F''' = (6 t² - 2) F', F'''' = (16 - 24 t²) t F', F^(5) = (120 t⁴ - 120 t² + 16) F'. */
KD_LOOPS(sigmoid) {
    const KD_REAL w = (KD_REAL)par[1], c = (KD_REAL)par[0], c1 = (KD_REAL)(par[0] * par[1]),
                  offset = (KD_REAL)par[2];
    KD_EACH {
        KD_REAL t, d;
        kd_tanh_sech2(w * a[i] + offset, &t, &d);
        f[i] = c * t;
        if (order >= 1) f[stride + i] = c1 * d;
        if (order >= 2) f[2 * stride + i] = t; /* for the others */
    }
}

KD_JET(sigmoid) {
    static const double p[][3] = {{-2, 0, 0}, {-2, 6, 0}, {16, -24, 0}, {16, -120, 120}};
    KD_RUN_LOOPS(sigmoid, 2)
    const KD_REAL *f1 = f + stride, *t = f + 2 * stride;
    for (int q = order; q >= 2; q--) {
        double wq = par[1];
        for (int k = 2; k < q; k++) wq *= par[1];
        const KD_REAL p0 = (KD_REAL)(wq * p[q - 2][0]), p1 = (KD_REAL)(wq * p[q - 2][1]),
                      p2 = (KD_REAL)(wq * p[q - 2][2]);
        KD_REAL *fq = f + q * stride;
        if (q % 2)
            KD_EACH fq[i] = f1[i] * ((p2 * t[i] * t[i] + p1) * t[i] * t[i] + p0);
        else
            KD_EACH fq[i] = f1[i] * ((p1 * t[i] * t[i] + p0) * t[i]);
    }
}

#undef KD_RUN_LOOPS
#undef KD_LOOPS_CASE
#undef KD_LOOPS
#undef KD_JET
#endif
#endif
