/* Elementary functions as straight-line scalar C that a compiler vectorises.
 *
 * Every function here is branch-free and calls nothing, so that a loop
 *
 *     #pragma omp simd
 *     for (size_t i = 0; i < n; i++) y[i] = kd_exp(x[i]);
 *
 * becomes vector code of the width of the instruction set compiled for. Three habits make that work on every target, SSE2 included:
 * rounding to an integer is an addition of a large constant, whose low bits then hold that integer; powers of two are built by
 * shifting those bits into an exponent field (logical shifts and additions only); special cases are selections, not branches.
 *
 * Required: round to nearest, subnormals alive (no flush to zero), and no value-changing flags: -fassociative-math removes the
 * rounding constants and with them all accuracy. -fno-math-errno and -fno-trapping-math are needed for the selections to vectorise.
 * Error bounds hold with and without contraction to fused multiply-adds. They are measured maxima over dense samples, rounded up,
 * in units in the last place (ulp) of the exact result; of subnormal results the ulp is the smallest subnormal number.
 *
 * Include with KD_F32 0 (double) or 1 (float) and KD_REAL the type to match. Polynomials are minimax (Remez exchange in 60 digits,
 * coefficients then rounded); the error given beside each is that before rounding.
 */
#ifndef KD_VMATH_H
#define KD_VMATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define KD_INLINE static inline __attribute__((always_inline, unused))

#if KD_F32
typedef uint32_t KD_BITS;
#define KD_MANTISSA 23        /* bits of the mantissa stored */
#define KD_BIAS 127           /* of the exponent */
#define KD_ROUND 0x1.8p23f    /* adding it rounds to an integer */
#define KD_EXP_MIN -107.0f    /* exp and 4 exp of anything below are 0 */
#define KD_EXP_MAX 89.0f      /* exp of anything above is inf */
#define KD_SPARE 32           /* exponents kept in hand for subnormal results */
#define KD_SPARE_INV 0x1p-32f
#define KD_LOG2E 0x1.715476p0f
#define KD_LN2_HI 0x1.62e4p-1f /* 15 bits: times any exponent is exact */
#define KD_LN2_LO 0x1.7f7d1cp-20f
#else
typedef uint64_t KD_BITS;
#define KD_MANTISSA 52
#define KD_BIAS 1023
#define KD_ROUND 0x1.8p52
#define KD_EXP_MIN -748.0
#define KD_EXP_MAX 710.0
#define KD_SPARE 64
#define KD_SPARE_INV 0x1p-64
#define KD_LOG2E 0x1.71547652b82fep0
#define KD_LN2_HI 0x1.62e42fefa38p-1 /* 42 bits */
#define KD_LN2_LO 0x1.ef35793c7673p-45
#endif

#define KD_K(c) ((KD_REAL)(c)) /* a constant of the working type, lest float code computes in double */

KD_INLINE KD_BITS kd_bits(KD_REAL x) {
    KD_BITS b;
    memcpy(&b, &x, sizeof b);
    return b;
}

KD_INLINE KD_REAL kd_real(KD_BITS b) {
    KD_REAL x;
    memcpy(&x, &b, sizeof x);
    return x;
}

KD_INLINE KD_REAL kd_abs(KD_REAL x) { return kd_real(kd_bits(x) & ~((KD_BITS)1 << (8 * sizeof(KD_BITS) - 1))); }

/* |x| with the sign of y. */
KD_INLINE KD_REAL kd_copysign(KD_REAL x, KD_REAL y) {
    const KD_BITS sign = (KD_BITS)1 << (8 * sizeof(KD_BITS) - 1);
    return kd_real((kd_bits(x) & ~sign) | (kd_bits(y) & sign));
}

/* max(x, low) and min(x, high) in the order of operands that lets NaN through. */
KD_INLINE KD_REAL kd_at_least(KD_REAL x, KD_REAL low) { return x < low ? low : x; }
KD_INLINE KD_REAL kd_at_most(KD_REAL x, KD_REAL high) { return x > high ? high : x; }

/* ---- exp ------------------------------------------------------------------------------------------------------------------ */

/* (exp(r) - 1 - r) / r² on |r| ≤ ln 2 / 2; the weight makes 1 + r + r² q and r + r² q both good, as exp and as expm1. Even and odd
 * terms apart: half the latency of Horner's chain, which is what bounds a loop over a tile row. */
KD_INLINE KD_REAL kd_exp_poly(KD_REAL r) {
    const KD_REAL r2 = r * r;
#if KD_F32
    /* relative error 1.4e-8 of expm1 */
    KD_REAL even = 0x1.6bec08p-10f, odd = 0x1.122784p-7f;
    even = even * r2 + 0x1.555674p-5f;
    odd = odd * r2 + 0x1.5554bp-3f;
    even = even * r2 + 0x1.fffffep-2f;
#else
    /* relative error 1.9e-17 of expm1 */
    KD_REAL even = 0x1.28a1e995d7ec9p-22, odd = 0x1.ae6bad958271ep-26;
    even = even * r2 + 0x1.a019a7661fc0cp-16;
    odd = odd * r2 + 0x1.71de880b8bceep-19;
    even = even * r2 + 0x1.6c16c17ede832p-10;
    odd = odd * r2 + 0x1.a01a01750f963p-13;
    even = even * r2 + 0x1.55555555522adp-5;
    odd = odd * r2 + 0x1.1111111118fc1p-7;
    even = even * r2 + 0x1.0000000000005p-1;
    odd = odd * r2 + 0x1.5555555555539p-3;
#endif
    return odd * r + even;
}

/* exp(x) = 2ⁿ (1 + t): returns t = expm1(x - n ln 2), relative error about 1 ulp, and in *bits a word whose low bits are n + offset.
 * Cody–Waite: n KD_LN2_HI is exact, and so is its subtraction from x. */
KD_INLINE KD_REAL kd_exp_reduce(KD_REAL x, KD_REAL offset, KD_BITS *bits) {
    const KD_REAL magic = KD_ROUND + offset;
    const KD_REAL k = x * KD_LOG2E + magic;
    const KD_REAL n = k - magic;
    const KD_REAL r = (x - n * KD_LN2_HI) - n * KD_LN2_LO;
    *bits = kd_bits(k);
    return r * r * kd_exp_poly(r) + r;
}

/* exp(x), every x: 1.1 ulp, subnormal results included. -inf gives 0, +inf and overflow inf, NaN NaN.
 * n = n1 + n2 is split in two halves, as 2ⁿ alone may be out of range where the result is not; only the last product rounds. */
KD_INLINE KD_REAL kd_exp(KD_REAL x) {
    KD_BITS b;
    const KD_REAL t = kd_exp_reduce(x, KD_K(2 * KD_BIAS), &b);
    const KD_REAL s1 = kd_real((b >> 1) << KD_MANTISSA);
    const KD_REAL s2 = kd_real((b - (b >> 1)) << KD_MANTISSA);
    const KD_REAL y = (s1 * t + s1) * s2;
    return x < KD_EXP_MIN ? 0 : x > KD_EXP_MAX ? KD_K(INFINITY) : y;
}

/* exp(x) for x ≤ 0, cheaper: same errors and limits. The exponent is built KD_SPARE too large, so that it is normal for all results
 * down to the smallest subnormal, and one last product puts it right. */
KD_INLINE KD_REAL kd_exp_neg(KD_REAL x) {
    KD_BITS b;
    const KD_REAL t = kd_exp_reduce(kd_at_least(x, KD_EXP_MIN), KD_K(KD_BIAS + KD_SPARE), &b);
    const KD_REAL s = kd_real(b << KD_MANTISSA);
    return (s * t + s) * KD_SPARE_INV;
}

/* ---- tanh and its derivative ---------------------------------------------------------------------------------------------- */

/* *t = tanh(z), 2.2 ulp, and *s = 1 - tanh(z)² = 1 / cosh(z)², 4.3 ulp, also where tanh saturates: *s is normal up to |z| = 354.8 in
 * double and 44.3 in float, then subnormal, and 0 from 373.3 and 52.7 on. Exactly odd and even, |*t| ≤ 1, *s ≤ 1; ±0 gives ±0 and 1,
 * ±inf ±1 and 0, NaN NaN. With e = exp(-2 |z|) = 2ⁿ (1 + p) and n ≤ 0, 1 - e = (1 - 2ⁿ) - 2ⁿ p loses nothing to cancellation:
 *     |tanh z| = (1 - e) / (1 + e),   1 - tanh(z)² = 4 e / (1 + e)² = e (1 + |tanh z|)². */
KD_INLINE void kd_tanh_sech2(KD_REAL z, KD_REAL *t, KD_REAL *s) {
    KD_BITS b;
    const KD_REAL p = kd_exp_reduce(kd_at_least(-2 * kd_abs(z), KD_EXP_MIN), KD_K(KD_BIAS + KD_SPARE), &b);
    const KD_REAL scale = kd_real(b << KD_MANTISSA); /* 2ⁿ, times 2 to the KD_SPARE */
    const KD_REAL power = scale * KD_SPARE_INV;
    const KD_REAL a = ((1 - power) - power * p) / ((1 + power) + power * p);
    *t = kd_copysign(a, z);
    *s = kd_at_most((scale * p + scale) * ((1 + a) * (1 + a)) * KD_SPARE_INV, 1);
}

KD_INLINE KD_REAL kd_tanh(KD_REAL z) {
    KD_REAL t, s;
    kd_tanh_sech2(z, &t, &s);
    return t;
}

KD_INLINE KD_REAL kd_sech2(KD_REAL z) {
    KD_REAL t, s;
    kd_tanh_sech2(z, &t, &s);
    return s;
}

#endif
