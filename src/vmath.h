/* Elementary functions as straight-line scalar C that a compiler vectorises.
 *
 * Every function here is branch-free and calls nothing, so that a loop
 *
 *     #pragma omp simd
 *     for (size_t i = 0; i < n; i++) y[i] = kd_exp(x[i]);
 *
 * becomes vector code of the width of the instruction set compiled for. Three habits make that work
 * on every target, SSE2 included: rounding to an integer is an addition of a large constant, whose
 * low bits then hold that integer; powers of two are built by shifting those bits into an exponent
 * field (logical shifts and additions only); special cases are selections, not branches.
 *
 * Required: round to nearest, subnormals alive (no flush to zero), and no value-changing flags:
 * -fassociative-math removes the rounding constants and with them all accuracy. -fno-math-errno and
 * -fno-trapping-math are needed for the selections to vectorise. Error bounds hold with and without
 * contraction to fused multiply-adds. They are measured maxima over dense samples, rounded up, in
 * units in the last place (ulp) of the exact result; of subnormal results the ulp is the smallest
 * subnormal number.
 *
 * Include with KD_F32 0 (double) or 1 (float) and KD_REAL the type to match; without, only the list
 * of names is there. Polynomials are minimax (Remez exchange in 60 digits, coefficients then
 * rounded); the error given beside each is that before rounding.
 */
#ifndef KD_VMATH_H
#define KD_VMATH_H

/* THE list of functions, of one argument and of two; kd_<name> below. */
/* clang-format off */
#define KD_VMATH1(X) \
  X(exp) X(exp_neg) X(tanh) X(sech2) X(log) X(log1p) X(sin) X(cos) X(sinpi) X(cospi)
#define KD_VMATH2(X) \
  X(pow) X(pow1p)
/* clang-format on */

#ifdef KD_REAL

#include <math.h>
#include <stdint.h>
#include <string.h>

#define KD_INLINE static inline __attribute__((always_inline))

#if KD_F32
typedef uint32_t KD_BITS;
#define KD_MANTISSA 23     /* bits of the mantissa stored */
#define KD_BIAS 127        /* of the exponent */
#define KD_ROUND 0x1.8p23f /* adding it rounds to an integer */
#define KD_EXP_MIN -107.0f /* exp and 4 exp of anything below are 0 */
#define KD_EXP_MAX 89.0f   /* exp of anything above is inf */
#define KD_SPARE 32        /* exponents kept in hand for subnormal results */
#define KD_SPARE_INV 0x1p-32f
#define KD_FMA __builtin_fmaf
#define KD_LOG2E 0x1.715476p0f
#define KD_LN2_HI 0x1.62e4p-1f /* 15 bits: times any exponent is exact */
#define KD_LN2_LO 0x1.7f7d1cp-20f
#define KD_SQRT_HALF 0x1.6a09e6p-1f
#define KD_PI 0x1.921fb6p1f
#define KD_2_PI 0x1.45f306p-1f /* 2 / π */
#define KD_PIO2_1 0x1.92p0f    /* π / 2 in parts of 11, 11, 11 and 24 bits */
#define KD_PIO2_2 0x1.fb4p-12f
#define KD_PIO2_3 0x1.444p-24f
#define KD_PIO2_4 0x1.68c234p-39f
#else
typedef uint64_t KD_BITS;
#define KD_MANTISSA 52
#define KD_BIAS 1023
#define KD_ROUND 0x1.8p52
#define KD_EXP_MIN -748.0
#define KD_EXP_MAX 710.0
#define KD_SPARE 64
#define KD_SPARE_INV 0x1p-64
#define KD_FMA __builtin_fma
#define KD_LOG2E 0x1.71547652b82fep0
#define KD_LN2_HI 0x1.62e42fefa38p-1 /* 42 bits */
#define KD_LN2_LO 0x1.ef35793c7673p-45
#define KD_SQRT_HALF 0x1.6a09e667f3bcdp-1
#define KD_PI 0x1.921fb54442d18p1
#define KD_2_PI 0x1.45f306dc9c883p-1
#define KD_PIO2_1 0x1.921fb544p0 /* 33, 33, 33 and 53 bits */
#define KD_PIO2_2 0x1.0b4611a6p-34
#define KD_PIO2_3 0x1.3198a2ep-69
#define KD_PIO2_4 0x1.b839a252049c1p-104
#endif

/* A constant of the working type, lest float code computes in double; and the number from which on
 * all numbers are integers. */
#define KD_K(c) ((KD_REAL)(c))
#define KD_MANY KD_K((KD_BITS)1 << KD_MANTISSA)
#define KD_INF KD_K(INFINITY)
#define KD_NAN KD_K(NAN)
#define KD_SIGN ((KD_BITS)1 << (8 * sizeof(KD_BITS) - 1))

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

KD_INLINE KD_REAL kd_abs(KD_REAL x) { return kd_real(kd_bits(x) & ~KD_SIGN); }

/* |x| with the sign of y. */
KD_INLINE KD_REAL kd_copysign(KD_REAL x, KD_REAL y) {
    return kd_real((kd_bits(x) & ~KD_SIGN) | (kd_bits(y) & KD_SIGN));
}

/* max(x, low) and min(x, high) in the order of operands that lets NaN through. */
KD_INLINE KD_REAL kd_at_least(KD_REAL x, KD_REAL low) { return x < low ? low : x; }
KD_INLINE KD_REAL kd_at_most(KD_REAL x, KD_REAL high) { return x > high ? high : x; }

/* -------------------------------------------------------------------------------------- exp --- */

/* (exp(r) - 1 - r) / r² on |r| ≤ ln 2 / 2; the weight makes 1 + r + r² q and r + r² q both good, as
 * exp and as expm1. Even and odd terms apart: half the latency of Horner's chain, which is what
 * bounds a loop over a tile row. */
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

/* exp(x + tail) = 2ⁿ (1 + t): returns t = expm1(x + tail - n ln 2), relative error about 1 ulp, and
 * in *bits a word whose low bits are n + offset. Cody–Waite: n KD_LN2_HI is exact, and so is its
 * subtraction from x. */
KD_INLINE KD_REAL kd_exp_reduce(KD_REAL x, KD_REAL tail, KD_REAL offset, KD_BITS *bits) {
    const KD_REAL magic = KD_ROUND + offset;
    const KD_REAL k = x * KD_LOG2E + magic;
    const KD_REAL n = k - magic;
    const KD_REAL r = (x - n * KD_LN2_HI) - (n * KD_LN2_LO - tail);
    *bits = kd_bits(k);
    return r * r * kd_exp_poly(r) + r;
}

/* 2ⁿ (1 + t), from the above with offset 2 KD_BIAS; 0 or inf where x says so. n is split in two
 * halves, as 2ⁿ alone may be out of range where the result is not; only the last product rounds. */
KD_INLINE KD_REAL kd_exp_scale(KD_REAL x, KD_REAL t, KD_BITS b) {
    const KD_REAL s1 = kd_real((b >> 1) << KD_MANTISSA);
    const KD_REAL s2 = kd_real((b - (b >> 1)) << KD_MANTISSA);
    const KD_REAL y = (s1 * t + s1) * s2;
    return x < KD_EXP_MIN ? 0 : x > KD_EXP_MAX ? KD_INF : y;
}

/* exp(x), every x: 1.1 ulp, subnormal results included. -inf gives 0, +inf and overflow inf, NaN
 * NaN. */
KD_INLINE KD_REAL kd_exp(KD_REAL x) {
    KD_BITS b;
    const KD_REAL t = kd_exp_reduce(x, 0, KD_K(2 * KD_BIAS), &b);
    return kd_exp_scale(x, t, b);
}

/* exp(x) for x ≤ 0, cheaper: same errors and limits. The exponent is built KD_SPARE too large, so
 * that it is normal for all results down to the smallest subnormal, and one last product puts it
 * right. */
KD_INLINE KD_REAL kd_exp_neg(KD_REAL x) {
    KD_BITS b;
    const KD_REAL t = kd_exp_reduce(kd_at_least(x, KD_EXP_MIN), 0, KD_K(KD_BIAS + KD_SPARE), &b);
    const KD_REAL s = kd_real(b << KD_MANTISSA);
    return (s * t + s) * KD_SPARE_INV;
}

/* ------------------------------------------------------------------ tanh and its derivative --- */

/* *t = tanh(z), 2.2 ulp, and *s = 1 - tanh(z)² = 1 / cosh(z)², 4.3 ulp, also where tanh saturates:
 * *s is normal up to |z| = 354.8 in double and 44.3 in float, then subnormal, and 0 from 373.3
 * and 52.7 on. Exactly odd and even, |*t| ≤ 1, *s ≤ 1; ±0 gives ±0 and 1, ±inf ±1 and 0, NaN NaN.
 * With e = exp(-2 |z|) = 2ⁿ (1 + p) and n ≤ 0, 1 - e = (1 - 2ⁿ) - 2ⁿ p loses nothing to
 * cancellation:
 *
 *     |tanh z| = (1 - e) / (1 + e),   1 - tanh(z)² = 4 e / (1 + e)² = e (1 + |tanh z|)². */
KD_INLINE void kd_tanh_sech2(KD_REAL z, KD_REAL *t, KD_REAL *s) {
    KD_BITS b;
    const KD_REAL p =
        kd_exp_reduce(kd_at_least(-2 * kd_abs(z), KD_EXP_MIN), 0, KD_K(KD_BIAS + KD_SPARE), &b);
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

/* The derivative alone, 4.2 ulp, cheaper: 4 e / (1 + e)². */
KD_INLINE KD_REAL kd_sech2(KD_REAL z) {
    KD_BITS b;
    const KD_REAL p =
        kd_exp_reduce(kd_at_least(-2 * kd_abs(z), KD_EXP_MIN), 0, KD_K(KD_BIAS + KD_SPARE), &b);
    const KD_REAL scale = kd_real(b << KD_MANTISSA), power = scale * KD_SPARE_INV;
    const KD_REAL u = (1 + power) + power * p;
    return kd_at_most((scale * p + scale) / (u * u) * (4 * KD_SPARE_INV), 1);
}

/* -------------------------------------------------------------------------------------- log --- */

/* (log((1 + s) / (1 - s)) - 2 s) / (s z) in z = s², for (1 + s) / (1 - s) between √½ and √2. */
KD_INLINE KD_REAL kd_log_poly(KD_REAL z) {
#if KD_F32
    /* relative error 8.1e-10 of the logarithm */
    return (0x1.31e304p-2f * z + 0x1.995ebap-2f) * z + 0x1.55557ap-1f;
#else
    /* relative error 1.3e-18 of the logarithm */
    const KD_REAL z2 = z * z;
    KD_REAL even = 0x1.2f058cd0d8154p-3, odd = 0x1.39a1b6d2f7fc3p-3;
    even = even * z2 + 0x1.74663f0ce22c0p-3;
    odd = odd * z2 + 0x1.c71c5208b6c95p-3;
    even = even * z2 + 0x1.24924941f1e1ep-2;
    odd = odd * z2 + 0x1.999999997fdabp-2;
    even = even * z2 + 0x1.5555555555592p-1;
    return odd * z + even;
#endif
}

/* x = 2ᵏ (1 + f), 1 + f between √½ and √2, f exact, for x normal, positive and finite; k is
 * returned, and *twice is 2 to the 1 - k, the 1 because k may be KD_BIAS + 1. */
KD_INLINE KD_REAL kd_log_reduce(KD_REAL x, KD_REAL *f, KD_REAL *twice) {
    const KD_BITS one = kd_bits(1);
    const KD_BITS b = kd_bits(x), biased = (b - (kd_bits(KD_SQRT_HALF) - one)) >> KD_MANTISSA;
    const KD_BITS m = b - (biased << KD_MANTISSA) + one;
    *f = kd_real(m) - 1;
    *twice = kd_real(m - b + one + ((KD_BITS)1 << KD_MANTISSA));
    return kd_real(biased | kd_bits(KD_MANY)) - (KD_MANY + KD_BIAS);
}

/* The same for every positive x: subnormal numbers are scaled up first. Selections would make gcc
 * work out everything twice; `tiny` has its high bits set if the exponent field of x is 0, and
 * clear otherwise. (Not field - 1: gcc may make -1 from what a register holds, and wait for it.) */
KD_INLINE KD_REAL kd_log_reduce_any(KD_REAL x, KD_REAL *f) {
    const KD_BITS up = KD_MANTISSA + 1, tiny = (kd_bits(x) >> (KD_MANTISSA - 1)) - 2;
    const KD_REAL scale = kd_real(kd_bits(1) + (tiny & (up << KD_MANTISSA)));
    KD_REAL twice;
    return kd_log_reduce(x * scale, f, &twice) - kd_real(tiny & kd_bits((KD_REAL)up));
}

/* k ln 2 + log(1 + f) - excess, with s = f / (2 + f), which makes log(1 + f) = log((1 + s) / (1 -
 * s)) = f - f²/2 + s (f²/2 + s² P(s²)). */
KD_INLINE KD_REAL kd_log_sum(KD_REAL k, KD_REAL f, KD_REAL s, KD_REAL excess) {
    const KD_REAL z = s * s, h = KD_K(0.5) * f * f;
    return k * KD_LN2_HI - ((h - (s * (h + z * kd_log_poly(z)) + (k * KD_LN2_LO - excess))) - f);
}

/* log(x): 0.9 ulp, every x > 0. ±0 gives -inf, inf inf, x < 0 and NaN NaN. */
KD_INLINE KD_REAL kd_log(KD_REAL x) {
    KD_REAL f;
    const KD_REAL k = kd_log_reduce_any(x, &f);
    const KD_REAL y = kd_log_sum(k, f, f / (2 + f), 0);
    const KD_REAL edge = x == 0 ? -KD_INF : KD_NAN;
    return x > 0 ? (x < KD_INF ? y : x) : edge;
}

/* 1 + x = u - c = 2ᵏ (1 + *f) - c exactly, u being returned; *s = f / (2 + f), *excess = c / u. So
 * log(1 + x) = log(u) - *excess to working accuracy. 1 / (1 + f) = 1 - 2 s + 2 s² - …, of which
 * three terms are plenty. */
KD_INLINE KD_REAL kd_log1p_reduce(KD_REAL x, KD_REAL *k, KD_REAL *f, KD_REAL *s, KD_REAL *excess) {
    const KD_REAL u = 1 + x, v = u - 1, c = (v - x) + ((u - v) - 1);
    KD_REAL twice;
    *k = kd_log_reduce(u, f, &twice);
    *s = *f / (2 + *f);
    *excess = c * twice * (KD_K(0.5) - (*s - *s * *s));
    return u;
}

/* log(1 + x): 1 ulp, every x > -1, small ones included. -1 gives -inf, x < -1 NaN, inf inf, NaN
 * NaN, ±0 ±0. */
KD_INLINE KD_REAL kd_log1p(KD_REAL x) {
    KD_REAL k, f, s, excess;
    const KD_REAL u = kd_log1p_reduce(x, &k, &f, &s, &excess);
    const KD_REAL y = kd_log_sum(k, f, s, excess);
    const KD_REAL most = u == 1 ? x : x < KD_INF ? y : x;
    const KD_REAL edge = x == -1 ? -KD_INF : KD_NAN;
    return x > -1 ? most : edge;
}

/* -------------------------------------------------------------------------------------- pow --- */

/* a b - near, for a number near a b: exact where that is representable, up to 2 ulp squared
 * otherwise. Without hardware fma the factors are cut in halves, whose products are exact. */
KD_INLINE KD_REAL kd_product_rest(KD_REAL a, KD_REAL b, KD_REAL near) {
#if defined(__FMA__) || defined(__AVX512F__) || defined(__FP_FAST_FMA) || defined(__aarch64__)
    return KD_FMA(a, b, -near);
#else
    const KD_BITS mask = ~(KD_BITS)0 << (KD_MANTISSA / 2 + 1);
    const KD_REAL a1 = kd_real(kd_bits(a) & mask), a2 = a - a1;
    const KD_REAL b1 = kd_real(kd_bits(b) & mask), b2 = b - b1;
    return ((a1 * b1 - near) + a1 * b2 + a2 * b1) + a2 * b2;
#endif
}

/* exp(p h) with h = k ln 2 + log(1 + f) - excess, s = f / (2 + f), excess tiny; or with h = edge
 * where edge is not finite. log(1 + f) is 2 (s + rest) + s³ P(s²): s (2 + f) misses f by a
 * remainder that is exact, and 1 / (2 + f) = (1 - s) / 2. So h comes in two parts, about 6 bits
 * longer than one; so does p h, and exp takes it so. */
KD_INLINE KD_REAL kd_pow_sum(KD_REAL k, KD_REAL f, KD_REAL s, KD_REAL excess, KD_REAL edge,
                             KD_REAL p) {
    const KD_REAL rest = kd_product_rest(s, f, f - 2 * s) * (KD_K(0.5) * s - KD_K(0.5));
    const KD_REAL z = s * s, whole = k * KD_LN2_HI, h0 = whole + 2 * s;
    const KD_REAL l0 =
        (2 * s - (h0 - whole)) + (s * z * kd_log_poly(z) + (k * KD_LN2_LO + (2 * rest - excess)));
    const KD_REAL h1 = h0 + l0, l = l0 - (h1 - h0), h = kd_abs(edge) < KD_INF ? h1 : edge;
    const KD_REAL x = p * h;
    KD_BITS b;
    const KD_REAL t = kd_exp_reduce(x, p * l + kd_product_rest(p, h, x), KD_K(2 * KD_BIAS), &b);
    return kd_exp_scale(x, t, b);
}

/* (1 + x)^p for x > -1, small x included: 1.1 + min(|p| / 35, |p log(1 + x)| / 15) ulp, where
 * exp(p log1p(x)) has |p log(1 + x)| ulp. x = inf gives 0, 1 or inf, x ≤ -1 and NaN NaN. */
KD_INLINE KD_REAL kd_pow1p(KD_REAL x, KD_REAL p) {
    KD_REAL k, f, s, excess;
    kd_log1p_reduce(x, &k, &f, &s, &excess);
    const KD_REAL y = kd_pow_sum(k, f, s, excess, x > -1 ? x : KD_NAN, p);
    return p == 0 ? 1 : y;
}

/* pow(u, p), all the cases of C: 1.1 + min(|p| / 35, |p log(u)| / 15) ulp. */
KD_INLINE KD_REAL kd_pow(KD_REAL u, KD_REAL p) {
    const KD_REAL a = kd_abs(u), q = kd_abs(p), r = q * KD_K(0.5);
    KD_REAL f;
    const KD_REAL k = kd_log_reduce_any(a, &f);
    KD_REAL y = kd_pow_sum(k, f, f / (2 + f), 0, a == 0 ? -KD_INF : a, p);
    /* Whether p and p / 2 are integers: adding KD_MANY rounds to one. */
    const _Bool whole = (q >= KD_MANY) | ((q + KD_MANY) - KD_MANY == q);
    const _Bool even = (r >= KD_MANY) | ((r + KD_MANY) - KD_MANY == r);
    y = a == 1 ? 1 : y; /* p may be infinite */
    y = ((u < 0) & (a < KD_INF) & !whole) ? KD_NAN : y;
    y = (whole & !even) ? kd_copysign(y, u) : y;
    return p == 0 ? 1 : y;
}

/* ------------------------------------------------------------------------------ sin and cos --- */

/* sin(r) and cos(r) on |r| ≤ π / 4. */
KD_INLINE void kd_sincos_poly(KD_REAL r, KD_REAL *s, KD_REAL *c) {
    const KD_REAL z = r * r;
#if KD_F32
    /* relative errors 3.8e-9 and 1.2e-10 */
    const KD_REAL ps = (-0x1.994388p-13f * z + 0x1.11073ap-7f) * z - 0x1.555546p-3f;
    const KD_REAL pc = (0x1.99eb4ap-16f * z - 0x1.6c0c32p-10f) * z + 0x1.55554ap-5f;
#else
    /* relative errors 3.7e-18 and 5.6e-20 */
    KD_REAL ps = 0x1.5d8fa31d8e126p-33, pc = -0x1.8fa4660c828ffp-37;
    ps = ps * z - 0x1.ae5e59f588b42p-26;
    pc = pc * z + 0x1.1ee9d752e127ep-29;
    ps = ps * z + 0x1.71de356712355p-19;
    pc = pc * z - 0x1.27e4f7ea38310p-22;
    ps = ps * z - 0x1.a01a019bfd17bp-13;
    pc = pc * z + 0x1.a01a019c83921p-16;
    ps = ps * z + 0x1.111111110f7cap-7;
    pc = pc * z - 0x1.6c16c16c14f8ap-10;
    ps = ps * z - 0x1.5555555555548p-3;
    pc = pc * z + 0x1.555555555554bp-5;
#endif
    *s = r + r * (z * ps);
    *c = 1 - (KD_K(0.5) * z - z * z * pc);
}

/* From r to the angle that is q quarter turns more (low bits of q), with the sign of x. */
KD_INLINE void kd_sincos_quadrant(KD_REAL r, KD_BITS q, KD_REAL x, KD_REAL *s, KD_REAL *c) {
    const int top = 8 * sizeof(KD_BITS) - 2; /* brings bit 1 to the sign */
    KD_REAL a, b;
    kd_sincos_poly(r, &a, &b);
    const KD_BITS swap = (kd_bits(a) ^ kd_bits(b)) & -(q & 1);
    *s = kd_real(kd_bits(a) ^ swap ^ (((q << top) ^ kd_bits(x)) & KD_SIGN));
    *c = kd_real(kd_bits(b) ^ swap ^ (((q + 1) << top) & KD_SIGN));
}

/* *s = sin(x) and *c = cos(x): 2.6 ulp for |x| ≤ 2²⁰ (double) or 2¹³ (float), however near a zero.
 * Beyond, the error is that of an argument off by 1 ulp; from 2⁴⁷ (2¹⁸) on NaN. Exactly odd and
 * even; ±inf and NaN give NaN. Cody–Waite with four parts of π / 2: the products with the first
 * three are exact, and so are all differences that cancel. */
KD_INLINE void kd_sincos(KD_REAL x, KD_REAL *s, KD_REAL *c) {
    const KD_REAL a = kd_abs(x), k = a * KD_2_PI + KD_ROUND, n = k - KD_ROUND;
    const KD_REAL r = (((a - n * KD_PIO2_1) - n * KD_PIO2_2) - n * KD_PIO2_3) - n * KD_PIO2_4;
    kd_sincos_quadrant(a < KD_MANY / 32 ? r : KD_NAN, kd_bits(k), x, s, c);
}

/* *s = sin(π x) and *c = cos(π x): 2.3 ulp for every finite x, as all of the reduction is exact.
 * ±inf and NaN give NaN. */
KD_INLINE void kd_sincospi(KD_REAL x, KD_REAL *s, KD_REAL *c) {
    const KD_REAL a = kd_abs(x), h = KD_K(0.5) * a;
    const KD_REAL b = h < KD_MANY ? a - 2 * ((h + KD_MANY) - KD_MANY) : a - a; /* in [-1, 1] */
    const KD_REAL k = 2 * b + KD_ROUND, n = k - KD_ROUND;
    kd_sincos_quadrant((b - KD_K(0.5) * n) * KD_PI, kd_bits(k), x, s, c);
}

KD_INLINE KD_REAL kd_sin(KD_REAL x) {
    KD_REAL s, c;
    kd_sincos(x, &s, &c);
    return s;
}

KD_INLINE KD_REAL kd_cos(KD_REAL x) {
    KD_REAL s, c;
    kd_sincos(x, &s, &c);
    return c;
}

KD_INLINE KD_REAL kd_sinpi(KD_REAL x) {
    KD_REAL s, c;
    kd_sincospi(x, &s, &c);
    return s;
}

KD_INLINE KD_REAL kd_cospi(KD_REAL x) {
    KD_REAL s, c;
    kd_sincospi(x, &s, &c);
    return c;
}

#endif
#endif
