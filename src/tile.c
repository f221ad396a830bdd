/* The walk over a tile of pairs: invariants -> jets -> operation -> memory.
 *
 * Compiled once for each instruction set and each real type (KD_ISA, KD_REAL, KD_F32 come from the
 * build); exports one table.  Vectors are GNU vector types of the width of the instruction set:
 * wider ones, which the compiler would split, are a disaster on narrow machines.  Stage by stage:
 *
 *   invariants  lanes are columns (points of y, from the panels), rows share what is loaded;
 *   jets        lanes are pairs, one buffer of a strip after the other;
 *   operation   lanes are dimensions, one pair after the other.  Vectors may spill over the end of
 *               what they write: what follows is written later.  So the last stop before memory is
 *               a small buffer (a sink), which also lets us store whole cache lines past the
 *               caches.
 */
#include "kd.h"

#include <float.h>
#include <math.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

#define KD_CAT4_(a, b, c, d) a##b##c##d
#define KD_CAT4(a, b, c, d) KD_CAT4_(a, b, c, d)
#define KD_STR_(a) #a
#define KD_STR(a) KD_STR_(a)

typedef KD_REAL real;

#if defined(__AVX512F__)
#define KD_VEC_BYTES 64
#elif defined(__AVX__)
#define KD_VEC_BYTES 32
#else
#define KD_VEC_BYTES 16
#endif

enum {
    VL = KD_VEC_BYTES / sizeof(real),      /* lanes of a vector */
    PANEL = KD_PANEL_BYTES / sizeof(real), /* points of a panel */
    COLS = KD_ROW_BYTES / sizeof(real),    /* columns of a strip */
    PAD = KD_PAD_BYTES / sizeof(real),
    DBLOCK = 64,                      /* dimensions summed before they join the total */
    SINK = 16384 / (int)sizeof(real), /* elements of the sink */
    STRIP_BYTES = 131072              /* all buffers of a strip should take no more */
};

#include "jets.h"

#define INLINE static inline __attribute__((always_inline))

typedef real vec __attribute__((vector_size(KD_VEC_BYTES)));
typedef real vec_u __attribute__((vector_size(KD_VEC_BYTES), aligned(sizeof(real)), may_alias));
typedef real half_u
    __attribute__((vector_size(KD_VEC_BYTES / 2), aligned(sizeof(real)), may_alias));
#if KD_VEC_BYTES / 4 < 8
typedef half_u quarter_u;
#else
typedef real quarter_u
    __attribute__((vector_size(KD_VEC_BYTES / 4), aligned(sizeof(real)), may_alias));
#endif

/* ------------------------------------------------------------------------- memory --- */

enum { LINE = 64 / sizeof(real) };

/* Where finished entries gather before they go to memory, in order and without gaps.  They begin
 * (at buf + lead) where their destination begins within a cache line, so that lines are copied
 * to lines. */
typedef struct {
    real *buf, *dst;
    ptrdiff_t lead, fill;
    int stream;
} sink;

INLINE void sink_begin(sink *k, real *dst) {
    k->dst = dst;
    k->lead = (ptrdiff_t)(((uintptr_t)dst & 63) / sizeof(real));
    k->fill = 0;
}

INLINE void stream_line(real *dst, const real *src) {
#if defined(__AVX512F__)
    _mm512_stream_si512((void *)dst, _mm512_loadu_si512((const void *)src));
#elif defined(__AVX__)
    _mm256_stream_si256((__m256i *)dst, _mm256_loadu_si256((const __m256i *)src));
    _mm256_stream_si256((__m256i *)dst + 1, _mm256_loadu_si256((const __m256i *)src + 1));
#elif defined(__SSE2__)
    for (int k = 0; k < 4; k++)
        _mm_stream_si128((__m128i *)dst + k, _mm_loadu_si128((const __m128i *)src + k));
#else
    memcpy(dst, src, 64);
#endif
}

/* Stores that bypass the caches are not ordered with others: this ends a task of them. */
INLINE void stream_end(int stream) {
#if defined(__SSE2__)
    if (stream) _mm_sfence();
#else
    (void)stream;
#endif
}

/* Sends the sink to memory.  Streamed, only whole cache lines go, and the rest moves up; unless
 * nothing follows (last). */
static void sink_flush(sink *k, int last) {
    const real *src = k->buf + k->lead;
    ptrdiff_t n = k->fill;
    if (k->stream && n >= 2 * LINE) {
        const ptrdiff_t head = (LINE - k->lead) % LINE;
        memcpy(k->dst, src, (size_t)head * sizeof(real));
        src += head, k->dst += head, n -= head;
        for (; n >= LINE; n -= LINE, src += LINE, k->dst += LINE) stream_line(k->dst, src);
        k->lead = 0;
        if (!last) {
            memmove(k->buf, src, (size_t)n * sizeof(real));
            k->fill = n;
            return;
        }
    }
    memcpy(k->dst, src, (size_t)n * sizeof(real));
    sink_begin(k, k->dst + n);
}

/* Room for n entries and a spilling vector; n must be at most SINK / 2. */
INLINE real *sink_room(sink *k, ptrdiff_t n) {
    if (__builtin_expect(k->fill + n > SINK, 0)) sink_flush(k, 0);
    return k->buf + k->lead + k->fill;
}

/* -------------------------------------------------------------------- row primitives --- */

/* A loop over the d entries of a row in vectors, the last one as narrow as will do.  `expr` is
 * evaluated with the vector type V and the index e. */
#define KD_ROW(d, p, expr)                 \
    do {                                   \
        ptrdiff_t e = 0;                   \
        for (; e + VL <= (d); e += VL) {   \
            typedef vec_u V;               \
            *(V *)((p) + e) = (expr);      \
        }                                  \
        if (e < (d)) {                     \
            if ((d) - e > VL / 2) {        \
                typedef vec_u V;           \
                *(V *)((p) + e) = (expr);  \
            } else if ((d) - e > VL / 4) { \
                typedef half_u V;          \
                *(V *)((p) + e) = (expr);  \
            } else {                       \
                typedef quarter_u V;       \
                *(V *)((p) + e) = (expr);  \
            }                              \
        }                                  \
    } while (0)

#define AT(q) (*(const V *)((q) + e))

/* ------------------------------------------------------------------------ invariants --- */

/* Vectors of columns worked on at once: as many sums for KD_ROWS rows as registers hold. */
enum { AT_ONCE = KD_VEC_BYTES == 64 ? 4 : 2, VPP = PANEL / VL };

/* Where vector v of those that begin with a panel stands; panels are `step` apart. */
INLINE ptrdiff_t vector_at(int v, ptrdiff_t step) { return v / VPP * step + v % VPP * VL; }

INLINE void invariant_vectors(const real *const x[KD_ROWS], const real *y, ptrdiff_t d0,
                              ptrdiff_t d1, ptrdiff_t d, const real *w, int dot, int plain, int nv,
                              real *out, ptrdiff_t ld) {
    vec acc[KD_ROWS][AT_ONCE];
    for (int r = 0; r < KD_ROWS; r++)
        for (int v = 0; v < nv; v++) acc[r][v] = (vec){0};
    for (ptrdiff_t a = d0; a < d1; a++)
        for (int v = 0; v < nv; v++) {
            const vec ya = *(const vec *)(y + a * PANEL + vector_at(v, d * PANEL));
            for (int r = 0; r < KD_ROWS; r++) {
                const real xa = x[r][a];
                if (dot)
                    acc[r][v] += (plain ? xa : w[a] * xa) * ya;
                else {
                    const vec t = ya - xa;
                    acc[r][v] += (plain ? t : w[a] * t) * t;
                }
            }
        }
    for (int r = 0; r < KD_ROWS; r++)
        for (int v = 0; v < nv; v++) {
            vec *o = (vec *)(out + r * ld + v * VL);
            *o = d0 ? *o + acc[r][v] : acc[r][v];
        }
}

/* The strip's invariants: rows x[0..3] against np panels; out[r * ld + column].  Differences are
 * formed directly, so that an offset common to all points costs no digits; blocks of DBLOCK terms
 * are summed apart, so that the error grows with DBLOCK + d / DBLOCK instead of d. */
INLINE void invariant_body(const real *const x[KD_ROWS], const real *panels, ptrdiff_t np,
                           ptrdiff_t d, const real *w, int dot, int plain, real *out,
                           ptrdiff_t ld) {
    for (ptrdiff_t d0 = 0; d0 < d || d0 == 0; d0 += DBLOCK) {
        const ptrdiff_t d1 = d0 + DBLOCK < d ? d0 + DBLOCK : d;
        ptrdiff_t v = 0;
        for (; v + AT_ONCE <= np * VPP; v += AT_ONCE)
            invariant_vectors(x, panels + v / VPP * d * PANEL + v % VPP * VL, d0, d1, d, w, dot,
                              plain, AT_ONCE, out + v * VL, ld);
        for (; v < np * VPP; v += 2)
            invariant_vectors(x, panels + v / VPP * d * PANEL + v % VPP * VL, d0, d1, d, w, dot,
                              plain, 2, out + v * VL, ld);
    }
}

/* Any bilinear invariant; only those of transformed kernels come here. */
static void invariant_bilinear(const kd_invariant *inv, const real *const x[KD_ROWS],
                               const real *const u[KD_ROWS], const real *panels,
                               const real *v_panels, ptrdiff_t np, ptrdiff_t d, const real *w,
                               real *out, ptrdiff_t ld) {
    const real ly = (real)inv->left[KD_Y], lv = (real)inv->left[KD_V];
    const real ry = (real)inv->right[KD_Y], rv = (real)inv->right[KD_V];
    for (int r = 0; r < KD_ROWS; r++)
        for (ptrdiff_t p = 0; p < np; p++)
            for (int q = 0; q < PANEL; q += VL) {
                vec acc = {0};
                for (ptrdiff_t a = 0; a < d; a++) {
                    const real xa = x[r][a], ua = u[r][a];
                    const real l0 = (real)inv->left[KD_X] * xa + (real)inv->left[KD_U] * ua;
                    const real r0 = (real)inv->right[KD_X] * xa + (real)inv->right[KD_U] * ua;
                    const vec ya = *(const vec *)(panels + (p * d + a) * PANEL + q);
                    const vec va = *(const vec *)(v_panels + (p * d + a) * PANEL + q);
                    acc += (w[a] * (l0 + ly * ya + lv * va)) * (r0 + ry * ya + rv * va);
                }
                *(vec *)(out + r * ld + p * PANEL + q) = acc;
            }
}

/* Any invariant. */
static void invariant_of(const kd_invariant *inv, const real *const x[KD_ROWS],
                         const real *const u[KD_ROWS], const real *y, const real *v, ptrdiff_t np,
                         ptrdiff_t d, const real *w, real *out, ptrdiff_t ld) {
    switch (inv->kind * 2 + inv->plain) {
    case KD_SQDIST * 2:
        invariant_body(x, y, np, d, w, 0, 0, out, ld);
        break;
    case KD_SQDIST * 2 + 1:
        invariant_body(x, y, np, d, w, 0, 1, out, ld);
        break;
    case KD_DOT * 2:
        invariant_body(x, y, np, d, w, 1, 0, out, ld);
        break;
    case KD_DOT * 2 + 1:
        invariant_body(x, y, np, d, w, 1, 1, out, ld);
        break;
    default:
        invariant_bilinear(inv, x, u, y, v, np, d, w, out, ld);
    }
}

/* ------------------------------------------------------------------------------ jets --- */

/* A jet that is computed elsewhere, in float64 and in pieces.  Derivatives from par[2] on are
 * singular at 0: stored as 0, whatever comes. */
static void jet_callback(const kd_callback *call, const real *a, real *f, ptrdiff_t stride,
                         ptrdiff_t n, int order, const double *par) {
    enum { PIECE = 512 };
    double x[PIECE], y[(KD_MAX_ORDER + 1) * PIECE];
    for (ptrdiff_t i0 = 0; i0 < n; i0 += PIECE) {
        const ptrdiff_t len = n - i0 < PIECE ? n - i0 : PIECE;
        double c = par[0];
        for (ptrdiff_t i = 0; i < len; i++) x[i] = par[1] * (double)a[i0 + i];
        call->jet(x, len, order, y, call->data);
        for (int q = 0; q <= order; q++, c *= par[1])
            for (ptrdiff_t i = 0; i < len; i++)
                f[q * stride + i0 + i] = q >= par[2] && x[i] == 0 ? 0 : (real)(c * y[q * len + i]);
    }
}

static void run_program(const kd_program *prog, real *bufs, ptrdiff_t stride, ptrdiff_t n) {
    for (int32_t k = 0; k < prog->n_instr; k++) {
        const kd_instr *in = &prog->instr[k];
        const double *par = prog->par + in->par;
        const real *a = bufs + in->a * stride, *b = bufs + in->b * stride;
        real *f = bufs + in->dst * stride;
        switch (in->op) {
#define KD_JET_CASE(name)                               \
    case KD_JET_##name:                                 \
        kd_jet_##name(a, f, stride, n, in->order, par); \
        break;
            KD_JETS(KD_JET_CASE)
#undef KD_JET_CASE
        case KD_OP_CALLBACK:
            jet_callback(&prog->callbacks[in->b], a, f, stride, n, in->order, par);
            break;
        default: {
            const real c = (real)par[0];
            switch (in->op) {
            case KD_OP_SET:
                for (ptrdiff_t i = 0; i < n; i++) f[i] = c;
                break;
            case KD_OP_ADD:
                for (ptrdiff_t i = 0; i < n; i++) f[i] = a[i] + b[i];
                break;
            case KD_OP_SCALE:
                for (ptrdiff_t i = 0; i < n; i++) f[i] = c * a[i];
                break;
            case KD_OP_SCALE_ADD:
                for (ptrdiff_t i = 0; i < n; i++) f[i] += c * a[i];
                break;
            case KD_OP_MUL:
                for (ptrdiff_t i = 0; i < n; i++) f[i] = c * (a[i] * b[i]);
                break;
            case KD_OP_MUL_ADD:
                for (ptrdiff_t i = 0; i < n; i++) f[i] += c * (a[i] * b[i]);
                break;
            case KD_OP_RECIPROCAL: {
                const real least = sizeof(real) == 8 ? (real)DBL_MIN : (real)FLT_MIN;
                for (ptrdiff_t i = 0; i < n; i++) f[i] = a[i] < least ? 0 : 1 / a[i];
                break;
            }
            }
        }
        }
    }
}

/* -------------------------------------------------------------------------- geometry --- */

/* The gradient of an invariant with respect to one point of a pair is a field
 *
 *     w o (base + cy y + cv v),    base = cx x + cu u,
 *
 * of which the base is made once for a row.  The largest of the four factors is 1 or -1, the rest
 * of them is in w: x - y is formed as such.  Second derivatives are constant and diagonal,
 * second[which] times the weights, in which `which` is xx, xy or yy. */
typedef struct {
    const real *base, *w; /* padded; repeated to fill d vectors if d <= FLAT_D */
    real cy, cv;
    const real *weights; /* of the invariant itself, likewise */
} form;

enum { KD_XX, KD_XY, KD_YY };

#if KD_F32
typedef int32_t lane;
#else
typedef int64_t lane;
#endif
typedef lane vec_i __attribute__((vector_size(KD_VEC_BYTES)));

INLINE vec all(real c) { return (vec){0} + c; }

/* Matrices of few dimensions, for one invariant: a vector of entries is a choice from t times a
 * choice from v, plus f' times what a table holds on the diagonal. */
typedef struct {
    vec_i row, column;
    vec diagonal; /* the weight, times its factor, or 0 */
} pattern;

/* A row of a strip: one point x against `count` columns. */
typedef struct {
    const form *first, *other; /* forms of all invariants for the two sides of the derivative */
    const real *second;        /* 3 for each invariant */
    ptrdiff_t m;               /* invariants */
    const real *y, *y_last;    /* the first column's point; that of column `last`, padded */
    const real *v, *v_last;    /* likewise the directions that go with them */
    const real *bufs;          /* buffers of the program, at the first column */
    const int32_t *jet;        /* which of them hold F, F_l, F_lk, ... */
    ptrdiff_t stride, count, d;
    int overflow;   /* whether some squared distance has overflowed */
    ptrdiff_t last; /* from this column on vectors could reach beyond y; or count */
    const kd_call *call;
    const pattern *patterns; /* or NULL */
    real *t, *v2, *g, *gx,
        *gy; /* room for vectors of a batch of pairs; t and v2 for each invariant */
    ptrdiff_t room;
    real *scratch; /* room for the entries of a pair */
    vec *radial;   /* room for radial_diagonal */
} strip_row;

/* Pairs whose vectors are made before the first of them is used: a load that spans two recent
 * stores waits for both. */
enum { BATCH = 16, BATCH_D = 64 };

/* F, F_l and F_lk at column j. */
INLINE const real *jet0(const strip_row *s, ptrdiff_t j) {
    return s->bufs + s->jet[0] * s->stride + j;
}
INLINE const real *jet1(const strip_row *s, ptrdiff_t l, ptrdiff_t j) {
    return s->bufs + s->jet[1 + l] * s->stride + j;
}
INLINE const real *jet2(const strip_row *s, ptrdiff_t l, ptrdiff_t k, ptrdiff_t j) {
    return s->bufs + s->jet[1 + s->m + l * s->m + k] * s->stride + j;
}

/* ------------------------------------------------------------------------------ maps --- */

/* Small dimensions, d a constant: VL pairs make d vectors without gaps, and which pair a lane
 * belongs to is known beforehand. */
enum { FLAT_D = 4 };

/* pair_of[d - 1][k][l]: the pair to which lane l of the k-th of these vectors belongs. */
#define KD_PAIR8(d, l)                                                                     \
    (l) / d, (l + 1) / d, (l + 2) / d, (l + 3) / d, (l + 4) / d, (l + 5) / d, (l + 6) / d, \
        (l + 7) / d
#define KD_PAIR16(d, l) {KD_PAIR8(d, (l)), KD_PAIR8(d, (l) + 8)}
#define KD_PAIRS(d) {KD_PAIR16(d, 0), KD_PAIR16(d, VL), KD_PAIR16(d, 2 * VL), KD_PAIR16(d, 3 * VL)}
static const lane pair_of[FLAT_D][FLAT_D][16]
    __attribute__((aligned(64))) = {KD_PAIRS(1), KD_PAIRS(2), KD_PAIRS(3), KD_PAIRS(4)};

INLINE vec pick(vec v, vec_i index) {
#if defined(__clang__)
    vec r;
    for (int l = 0; l < VL; l++) r[l] = v[index[l]];
    return r;
#else
    return __builtin_shuffle(v, index);
#endif
}

/* How far apart the vectors of pairs stand in buffers of our own: each in vectors of its own,
 * unless the flat loops make them, as a load that spans two recent stores waits for both. */
INLINE ptrdiff_t apart(ptrdiff_t d) { return d <= FLAT_D ? d : (d + VL - 1) / VL * VL; }

/* p[j * ps + e] = E for all pairs j < count and dimensions e < d.  E is a macro of four others,
 * which load, as a vector or something that acts as one: F(f) what belongs to a pair, R(b) to a
 * dimension, P(y) to both, Q(t) to both in vectors that are as far apart as those of p.  In flat
 * loops, ps is d. */
#define KD_MAP(d, count, p, ps, E)                                                          \
    do {                                                                                    \
        ptrdiff_t j = 0;                                                                    \
        if ((d) <= FLAT_D)                                                                  \
            for (; j + VL <= (count); j += VL)                                              \
                for (int k = 0; k < (d); k++)                                               \
                    *(vec_u *)((p) + j * (d) + k * VL) = E(FLAT_F, FLAT_R, FLAT_P, FLAT_P); \
        for (; j < (count); j++) KD_ROW(d, (p) + j * (ps), E(ROW_F, ROW_R, ROW_P, ROW_Q));  \
    } while (0)
#define FLAT_F(f) pick(*(const vec_u *)((f) + j), *(const vec_i *)pair_of[d - 1][k])
#define FLAT_R(b) (*(const vec_u *)((b) + k * VL))
#define FLAT_P(y) (*(const vec_u *)((y) + j * d + k * VL))
#define ROW_F(f) (f)[j]
#define ROW_R(b) AT(b)
#define ROW_P(y) AT((y) + j * d)
#define ROW_Q(t) AT((t) + j * ps)

/* p = q, or p += q, or the same with q times f, for a form q. */
#define E_FORM(F, R, P, Q) (R(w) * (R(base) + cy * P(y)))
#define E_SET(F, R, P, Q) E_FORM(F, R, P, Q)
#define E_SET_F(F, R, P, Q) (F(f) * E_FORM(F, R, P, Q))
#define E_ADD_F(F, R, P, Q) (Q(p) + F(f) * E_FORM(F, R, P, Q))
#define E_FORM_V(F, R, P, Q) (R(w) * (R(base) + cy * P(y) + cv * P(v)))
#define E_SET_V(F, R, P, Q) E_FORM_V(F, R, P, Q)
#define E_SET_VF(F, R, P, Q) (F(f) * E_FORM_V(F, R, P, Q))
#define E_ADD_VF(F, R, P, Q) (Q(p) + F(f) * E_FORM_V(F, R, P, Q))

INLINE void put_form(real *restrict p, ptrdiff_t ps, const real *f, const form *q, const real *y,
                     const real *v, ptrdiff_t count, ptrdiff_t d, int add) {
    const real *w = q->w, *base = q->base;
    const real cy = q->cy, cv = q->cv;
    if (__builtin_expect(cv != 0, 0)) {
        if (!f)
            KD_MAP(d, count, p, ps, E_SET_V);
        else if (!add)
            KD_MAP(d, count, p, ps, E_SET_VF);
        else
            KD_MAP(d, count, p, ps, E_ADD_VF);
    } else if (!f)
        KD_MAP(d, count, p, ps, E_SET);
    else if (!add)
        KD_MAP(d, count, p, ps, E_SET_F);
    else
        KD_MAP(d, count, p, ps, E_ADD_F);
}

/* p = t v + c f w, or p += that. */
#define E_DIAG(F, R, P, Q) (Q(t) * Q(v) + (c * F(f)) * R(w))
#define E_DIAG_ADD(F, R, P, Q) (Q(p) + Q(t) * Q(v) + (c * F(f)) * R(w))

INLINE void put_diagonal(real *restrict p, ptrdiff_t ps, const real *t, const real *v, real c,
                         const real *f, const real *w, ptrdiff_t count, ptrdiff_t d, int add) {
    if (add)
        KD_MAP(d, count, p, ps, E_DIAG_ADD);
    else
        KD_MAP(d, count, p, ps, E_DIAG);
}

/* p = f2 q r + c f1 w, for forms q and r without directions: the diagonal of a Hessian when there
 * is one invariant. */
#define E_DIAG_ONE(F, R, P, Q)                                                      \
    ((F(f2) * (R(w) * (R(base) + cy * P(y)))) * (R(w2) * (R(base2) + cy2 * P(y))) + \
     (c * F(f1)) * R(weights))

INLINE void put_diagonal_one(real *restrict p, real c, const real *f1, const real *f2,
                             const form *q, const form *r, const real *y, ptrdiff_t count,
                             ptrdiff_t d) {
    const real *w = q->w, *base = q->base, *w2 = r->w, *base2 = r->base;
    const real *weights = q->weights;
    const real cy = q->cy, cy2 = r->cy;
    const ptrdiff_t ps = d;
    KD_MAP(d, count, p, ps, E_DIAG_ONE);
}

/* ------------------------------------------------------------------------ operations --- */

/* What follows are the operations on a run of columns j0 ... j0 + count - 1 with points at y and
 * directions at v, which write `count` times their entries to p and may spill over. */

static void run_value(const strip_row *s, const real *y, const real *v, ptrdiff_t j0,
                      ptrdiff_t count, real *restrict p, ptrdiff_t d) {
    (void)y, (void)v, (void)d;
    memcpy(p, jet0(s, j0), (size_t)count * sizeof(real));
}

/* How many pairs, of those left, can be worked on in several passes: a pass that adds must not find
 * what the one before has spilled, and only whole groups of the flat loops do not spill. */
INLINE ptrdiff_t group(const strip_row *s, ptrdiff_t left, ptrdiff_t d) {
    return s->m == 1 ? left : d <= FLAT_D && left >= VL ? VL : 1;
}

/* grad k = sum_l F_l grad a_l */
INLINE void gradient_of(const strip_row *s, const form *side, const real *y, const real *v,
                        ptrdiff_t j0, ptrdiff_t count, real *restrict p, ptrdiff_t ps,
                        ptrdiff_t d) {
    for (ptrdiff_t j = 0, n; j < count; j += n) {
        n = group(s, count - j, d);
        for (ptrdiff_t l = 0; l < s->m; l++)
            put_form(p + j * ps, ps, jet1(s, l, j0 + j), &side[l], y + j * d, v + j * d, n, d,
                     l > 0);
    }
}

INLINE void run_gradient(const strip_row *s, const real *y, const real *v, ptrdiff_t j0,
                         ptrdiff_t count, real *restrict p, ptrdiff_t d) {
    gradient_of(s, s->first, y, v, j0, count, p, d, d);
}

/* The unmixed second derivatives of F(s), s = sum_a q_a, q_a = w_a e_a^2, for VL pairs:
 *
 *     F'' (2 w_a e_a)^2 + 2 w_a F' = w_a (g q_a + 2 F' sum_{b != a} q_b) / s,    g = 2 F' + 4 s
 * F'',
 *
 * in which nothing cancels that does not do so in g: the sum is s - q_a only where that is most of
 * s.  In place of e; `before` is room for d more.  0 where s is: of dimensions that are not seen it
 * is right, and others have no derivatives. */
static void radial_diagonal(ptrdiff_t d, const real *w, vec s, vec f1, vec g, vec *e, vec *before) {
    const vec divisor = s + (vec)((vec_i)all(1) & (s == 0));
    vec sum = all(0);
    for (ptrdiff_t a = 0; a < d; a++) {
        before[a] = sum;
        e[a] = w[a] * e[a] * e[a];
        sum += e[a];
    }
    sum = all(0);
    for (ptrdiff_t a = d - 1; a >= 0; a--) {
        const vec q = e[a];
        const vec_i large = q + q > s;
        const vec_i others = ((vec_i)(before[a] + sum) & large) | ((vec_i)(s - q) & ~large);
        e[a] = w[a] * (g * (q / divisor) + 2 * (f1 * ((vec)others / divisor)));
        sum += q;
    }
}

/* g = the diagonal of a second derivative, first and other the forms of its sides, where invariants
 * have a radial derivative. */
static void put_radial(const strip_row *s, const form *first, const form *other, const real *y,
                       const real *v, ptrdiff_t j, int which, real *g) {
#define ENTRY(q, a) ((q).w[a] * ((q).base[a] + (q).cy * y[a] + ((q).cv != 0 ? (q).cv * v[a] : 0)))
    const int32_t *radial = s->call->prog->radial;
    const ptrdiff_t d = s->d, m = s->m;
    for (ptrdiff_t a = 0; a < d; a++) g[a] = 0;
    for (ptrdiff_t l = 0; l < m; l++) {
        const real c = s->second[3 * l + which], f1 = *jet1(s, l, j), *w = first[l].weights;
        if (radial[l] >= 0) {
            const real g_l = s->bufs[radial[l] * s->stride + j], s_l = s->bufs[l * s->stride + j];
            for (ptrdiff_t a = 0; a < d; a++)
                s->radial[a] = all(first[l].base[a] + first[l].cy * y[a]);
            radial_diagonal(d, w, all(s_l), all(f1), all(g_l), s->radial, s->radial + d);
            for (ptrdiff_t a = 0; a < d; a++) g[a] += c / 2 * s->radial[a][0];
        } else
            for (ptrdiff_t a = 0; a < d; a++) g[a] += c * f1 * w[a];
        for (ptrdiff_t k = 0; k < m; k++) {
            if (k == l && radial[l] >= 0) continue;
            const real f2 = *jet2(s, k, l, j);
            for (ptrdiff_t a = 0; a < d; a++) g[a] += f2 * ENTRY(first[k], a) * ENTRY(other[l], a);
        }
    }
#undef ENTRY
}

/* Hess k = sum_l t_l v_l' + diagonal, v_l = grad a_l on the other side, t_l = sum_k F_kl grad a_k
 * on the first; what is made of it here are t, v and g, the whole diagonal. */
INLINE void hessian_vectors(const strip_row *s, const real *y, const real *v, ptrdiff_t j0,
                            ptrdiff_t count, ptrdiff_t d, int which) {
    const ptrdiff_t ps = apart(d);
    for (ptrdiff_t j = 0, n; j < count; j += n) {
        const ptrdiff_t e = j * d;
        n = group(s, count - j, d);
        for (ptrdiff_t l = 0; l < s->m; l++) {
            real *tl = s->t + l * s->room + j * ps, *vl = s->v2 + l * s->room + j * ps;
            put_form(vl, ps, NULL, &s->other[l], y + e, v + e, n, d, 0);
            for (ptrdiff_t k = 0; k < s->m; k++)
                put_form(tl, ps, jet2(s, k, l, j0 + j), &s->first[k], y + e, v + e, n, d, k > 0);
            put_diagonal(s->g + j * ps, ps, tl, vl, s->second[3 * l + which], jet1(s, l, j0 + j),
                         s->first[l].weights, n, d, l > 0);
        }
    }
    if (__builtin_expect(s->call->prog->radial != NULL, 0))
        for (ptrdiff_t j = 0; j < count; j++)
            put_radial(s, s->first, s->other, y + j * d, v + j * d, j0 + j, which, s->g + j * ps);
}

INLINE void run_hessian_diag(const strip_row *s, const real *y, const real *v, ptrdiff_t j0,
                             ptrdiff_t count, real *restrict p, ptrdiff_t d) {
    const int which = s->call->which;
    if (s->m == 1 && s->first->cv == 0 && s->other->cv == 0 && !s->call->prog->radial) {
        put_diagonal_one(p, s->second[which], jet1(s, 0, j0), jet2(s, 0, 0, j0), s->first, s->other,
                         y, count, d);
        return;
    }
    const ptrdiff_t batch = d <= BATCH_D ? BATCH : 1;
    for (ptrdiff_t jb = 0; jb < count; jb += batch) {
        const ptrdiff_t nb = count - jb < batch ? count - jb : batch;
        hessian_vectors(s, y + jb * d, v + jb * d, j0 + jb, nb, d, which);
        for (ptrdiff_t j = 0; j < nb; j++) KD_ROW(d, p + (jb + j) * d, AT(s->g + j * apart(d)));
    }
}

/* The product of column t (entry a of each t_l) with all v_l, from dimension b on. */
INLINE void put_outer(ptrdiff_t m, ptrdiff_t room, real *restrict p, const real *restrict t,
                      const real *restrict v, ptrdiff_t a, ptrdiff_t b, ptrdiff_t d) {
    if (m == 1) {
        const real t0 = t[a];
        KD_ROW(d - b, p, t0 * AT(v + b));
        return;
    }
    {
        const real t0 = t[a], t1 = t[room + a];
        KD_ROW(d - b, p, t0 * AT(v + b) + t1 * AT(v + room + b));
    }
    for (ptrdiff_t l = 2; l < m; l++) {
        const real tl = t[l * room + a];
        KD_ROW(d - b, p, AT(p) + tl * AT(v + l * room + b));
    }
}

INLINE void hessian_rows(const strip_row *s, ptrdiff_t m, ptrdiff_t count, real *restrict p,
                         ptrdiff_t d, int packed) {
    const ptrdiff_t ps = apart(d);
    for (ptrdiff_t j = 0; j < count; j++) {
        const real *restrict g = s->g + j * ps;
        for (ptrdiff_t a = 0; a < d; a++) {
            const ptrdiff_t b = packed ? a : 0;
            put_outer(m, s->room, p, s->t + j * ps, s->v2 + j * ps, a, b, d);
            p[a - b] = g[a];
            p += d - b;
        }
    }
}

/* Only where any permutation of a vector is one instruction. */
#if defined(__AVX512F__) || (defined(__AVX2__) && KD_F32)
enum { SMALL_D = VL };
#else
enum { SMALL_D = 0 };
#endif

/* Fills the table, of at most VL vectors, for matrices of d <= VL dimensions. */
static void fill_patterns(pattern *table, const real *weights, real c, ptrdiff_t d, int packed) {
    ptrdiff_t n = 0;
    for (ptrdiff_t a = 0; a < d; a++)
        for (ptrdiff_t b = packed ? a : 0; b < d; b++, n++) {
            table[n / VL].row[n % VL] = (lane)a;
            table[n / VL].column[n % VL] = (lane)b;
            table[n / VL].diagonal[n % VL] = a == b ? c * weights[a] : 0;
        }
    const ptrdiff_t last = (n + VL - 1) / VL;
    for (; n < last * VL; n++) {
        table[n / VL].row[n % VL] = table[n / VL].column[n % VL] = 0;
        table[n / VL].diagonal[n % VL] = 0;
    }
}

INLINE void hessian_small(const strip_row *s, int n_vectors, ptrdiff_t j0, ptrdiff_t count,
                          real *restrict p, ptrdiff_t d, ptrdiff_t size) {
    const ptrdiff_t ps = apart(d);
    const real *restrict f = jet1(s, 0, j0), *restrict t = s->t, *restrict v = s->v2;
    const pattern *restrict table = s->patterns;
    for (ptrdiff_t j = 0; j < count; j++) {
        const vec tj = *(const vec_u *)(t + j * ps), vj = *(const vec_u *)(v + j * ps);
        for (int k = 0; k < n_vectors; k++)
            *(vec_u *)(p + j * size + k * VL) =
                pick(tj, table[k].row) * pick(vj, table[k].column) + f[j] * table[k].diagonal;
    }
}

INLINE void run_hessian_layout(const strip_row *s, const real *y, const real *v, ptrdiff_t j0,
                               ptrdiff_t count, real *restrict p, ptrdiff_t d, int packed) {
    const ptrdiff_t size = packed ? d * (d + 1) / 2 : d * d;
    if (s->patterns && d <= SMALL_D) {
        const int n_vectors = (int)((size + VL - 1) / VL);
        for (ptrdiff_t jb = 0; jb < count; jb += BATCH) {
            const ptrdiff_t nb = count - jb < BATCH ? count - jb : BATCH;
            put_form(s->v2, apart(d), NULL, s->other, y + jb * d, v + jb * d, nb, d, 0);
            put_form(s->t, apart(d), jet2(s, 0, 0, j0 + jb), s->first, y + jb * d, v + jb * d, nb,
                     d, 0);
            hessian_small(s, n_vectors, j0 + jb, nb, p + jb * size, d, size);
        }
        return;
    }
    for (ptrdiff_t jb = 0; jb < count; jb += BATCH) {
        const ptrdiff_t nb = count - jb < BATCH ? count - jb : BATCH;
        hessian_vectors(s, y + jb * d, v + jb * d, j0 + jb, nb, d, s->call->which);
        if (s->m == 1)
            hessian_rows(s, 1, nb, p + jb * size, d, packed);
        else
            hessian_rows(s, s->m, nb, p + jb * size, d, packed);
    }
}

INLINE void run_hessian(const strip_row *s, const real *y, const real *v, ptrdiff_t j0,
                        ptrdiff_t count, real *restrict p, ptrdiff_t d) {
    run_hessian_layout(s, y, v, j0, count, p, d, 0);
}

INLINE void run_hessian_packed(const strip_row *s, const real *y, const real *v, ptrdiff_t j0,
                               ptrdiff_t count, real *restrict p, ptrdiff_t d) {
    run_hessian_layout(s, y, v, j0, count, p, d, 1);
}

/* Each operation once more for the dimensions that people use most, as constants. */
#define KD_BY_DIM(name)                                                                       \
    static void name##_by_dim(const strip_row *s, const real *y, const real *v, ptrdiff_t j0, \
                              ptrdiff_t count, real *restrict p, ptrdiff_t d) {               \
        switch (d) {                                                                          \
        case 1:                                                                               \
            name(s, y, v, j0, count, p, 1);                                                   \
            break;                                                                            \
        case 2:                                                                               \
            name(s, y, v, j0, count, p, 2);                                                   \
            break;                                                                            \
        case 3:                                                                               \
            name(s, y, v, j0, count, p, 3);                                                   \
            break;                                                                            \
        case 4:                                                                               \
            name(s, y, v, j0, count, p, 4);                                                   \
            break;                                                                            \
        case 5:                                                                               \
            name(s, y, v, j0, count, p, 5);                                                   \
            break;                                                                            \
        case 6:                                                                               \
            name(s, y, v, j0, count, p, 6);                                                   \
            break;                                                                            \
        case 8:                                                                               \
            name(s, y, v, j0, count, p, 8);                                                   \
            break;                                                                            \
        case 10:                                                                              \
            name(s, y, v, j0, count, p, 10);                                                  \
            break;                                                                            \
        default:                                                                              \
            name(s, y, v, j0, count, p, d);                                                   \
        }                                                                                     \
    }

KD_BY_DIM(run_gradient)
KD_BY_DIM(run_hessian_diag)
KD_BY_DIM(run_hessian)
KD_BY_DIM(run_hessian_packed)

/* THE list of operations: what writes a run of columns, and the entries of a pair. */
static const struct {
    void (*run)(const strip_row *, const real *, const real *, ptrdiff_t, ptrdiff_t, real *restrict,
                ptrdiff_t);
    int matrix; /* entries: 0 a number, 1 a vector, 2 a matrix, 3 its upper triangle */
} operations[KD_N_TENSORS] = {
    [KD_VALUE] = {run_value, 0},
    [KD_GRADIENT] = {run_gradient_by_dim, 1},
    [KD_HESSIAN_DIAG] = {run_hessian_diag_by_dim, 1},
    [KD_HESSIAN] = {run_hessian_by_dim, 2},
    [KD_HESSIAN_PACKED] = {run_hessian_packed_by_dim, 3},
};

static int tensor_order(int32_t tensor) {
    return tensor == KD_VALUE ? 0 : tensor == KD_GRADIENT ? 1 : 2;
}

static ptrdiff_t entries(int32_t tensor, ptrdiff_t d) {
    switch (operations[tensor].matrix) {
    case 0:
        return 1;
    case 1:
        return d;
    case 2:
        return d * d;
    default:
        return d * (d + 1) / 2;
    }
}

/* Where row a of a matrix begins among the entries of a pair. */
INLINE ptrdiff_t matrix_offset(ptrdiff_t d, ptrdiff_t a, int matrix) {
    return matrix == 2 ? a * d : matrix == 3 ? a * d - a * (a - 1) / 2 : 0;
}

/* ----------------------------------------------------- where derivatives do not exist --- */

/* Whether a derivative in `order` dimensions, of which dims[0 .. order - 1] are named, does not
 * exist at a pair whose invariant is zero.  Only dimensions that the rough part sees count. */
INLINE int does_not_exist(const kd_rough *q, int order, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c,
                          ptrdiff_t e) {
    const ptrdiff_t dims[4] = {a, b, c, e};
    int seen = q->already;
    for (int k = 0; k < order; k++) seen += q->seen[dims[k]] != 0;
    return seen >= q->limit;
}

/* Whether points of a row are so far apart that a squared distance has overflowed. */
static int overflows(const strip_row *s) {
    const real limit = sizeof(real) == 8 ? (real)DBL_MAX : (real)FLT_MAX;
    int any = 0;
    for (ptrdiff_t l = 0; l < s->m; l++)
        if (s->call->prog->inv[l].kind == KD_SQDIST)
            for (ptrdiff_t j = 0; j < s->count; j++) any |= s->bufs[l * s->stride + j] > limit;
    return any;
}

/* There, a kernel and its derivatives have underflowed, and 0 times infinity is 0. */
static void clear(const strip_row *s, ptrdiff_t j, real *p, ptrdiff_t size) {
    for (ptrdiff_t l = 0; l < s->m; l++)
        if (s->call->prog->inv[l].kind == KD_SQDIST && isinf(s->bufs[l * s->stride + j]))
            for (ptrdiff_t e = 0; e < size; e++)
                if (isnan(p[e])) p[e] = 0;
}

/* Mends the entries of a run of a tensor, or of rows a0 to a1 - 1 of a matrix: marks those that do
 * not exist, and clears those of points that are too far apart. */
static void mend_run(const strip_row *s, ptrdiff_t j0, ptrdiff_t count, ptrdiff_t a0, ptrdiff_t a1,
                     real *p) {
    const ptrdiff_t d = s->d, size = entries(s->call->tensor, d);
    const int matrix = operations[s->call->tensor].matrix;
    const int order = tensor_order(s->call->tensor);
    for (int32_t r = 0; r < s->call->n_rough; r++) {
        const kd_rough *q = &s->call->rough[r];
        const real *inv = s->bufs + q->inv * s->stride + j0;
        for (ptrdiff_t j = 0; j < count; j++) {
            if (inv[j] != 0) continue;
            real *pj = p + j * size;
            if (matrix <= 1) {
                for (ptrdiff_t a = 0; a < size; a++)
                    if (does_not_exist(q, order, a, a, 0, 0)) pj[a] = (real)NAN;
            } else {
                for (ptrdiff_t a = a0; a < a1; a++)
                    for (ptrdiff_t b = matrix == 3 ? a : 0; b < d; b++, pj++)
                        if (does_not_exist(q, 2, a, b, 0, 0)) *pj = (real)NAN;
            }
        }
    }
    if (s->overflow)
        for (ptrdiff_t j = 0; j < count; j++)
            clear(s, j0 + j, p + j * size,
                  a1 - a0 == d ? size
                               : matrix_offset(d, a1, matrix) - matrix_offset(d, a0, matrix));
}

/* ----------------------------------------------------------------------- dense tensors --- */

/* A vector longer than the sink, in pieces; each piece as the pair of points cut to it, unless an
 * entry is made of all coordinates. */
static void put_long_vector(const strip_row *s, const real *y, const real *v, ptrdiff_t j,
                            sink *k) {
    form first[KD_MAX_INV], other[KD_MAX_INV];
    const int whole = s->call->prog->radial && s->call->tensor == KD_HESSIAN_DIAG;
    if (whole) put_radial(s, s->first, s->other, y, v, j, s->call->which, s->g);
    for (ptrdiff_t e = 0; e < s->d; e += SINK / 2) {
        const ptrdiff_t len = s->d - e < SINK / 2 ? s->d - e : SINK / 2;
        strip_row piece = *s;
        for (ptrdiff_t l = 0; l < s->m; l++) {
            first[l] = s->first[l], other[l] = s->other[l];
            first[l].base += e, first[l].w += e, first[l].weights += e;
            other[l].base += e, other[l].w += e, other[l].weights += e;
        }
        piece.first = first, piece.other = other, piece.d = len;
        real *p = sink_room(k, len);
        if (whole)
            memcpy(p, s->g + e, (size_t)len * sizeof(real));
        else
            operations[s->call->tensor].run(&piece, y + e, v + e, j, 1, p, len);
        k->fill += len;
    }
}

/* A matrix larger than the sink, its rows from a0 to a1 - 1, and these in pieces. */
static void put_long_matrix(const strip_row *s, const real *y, const real *v, ptrdiff_t j, sink *k,
                            int packed, ptrdiff_t a0, ptrdiff_t a1) {
    const ptrdiff_t d = s->d;
    hessian_vectors(s, y, v, j, 1, d, s->call->which);
    for (ptrdiff_t a = a0; a < a1; a++)
        for (ptrdiff_t b = packed ? a : 0, end; b < d; b = end) {
            end = d - b < SINK / 2 ? d : b + SINK / 2;
            real *p = sink_room(k, end - b);
            put_outer(s->m, s->room, p, s->t, s->v2, a, b, end);
            if (b <= a && a < end) p[a - b] = s->g[a];
            k->fill += end - b;
        }
}

/* The points (or directions) of a run that begins at column j; a run ends before column `last`, or
 * begins there or after.  The last points of all are read from a padded copy, as vectors may reach
 * beyond them. */
INLINE const real *run_points(const strip_row *s, const real *y, const real *last, ptrdiff_t j) {
    return j < s->last ? y + j * s->d : last + (j - s->last) * s->d;
}
INLINE ptrdiff_t run_length(const strip_row *s, ptrdiff_t j) {
    return j < s->last ? s->last - j : s->count - j;
}

/* The row's entries, in runs that fit the sink. */
static void put_row(const strip_row *s, sink *k, ptrdiff_t a0, ptrdiff_t a1, real *dst) {
    const int32_t tensor = s->call->tensor;
    const int matrix = operations[tensor].matrix;
    const ptrdiff_t size = entries(tensor, s->d), most = size ? SINK / 2 / size : s->count;
    const ptrdiff_t safe = size ? s->count - (VL + size - 1) / size : 0;
    const int mend = s->call->n_rough || s->overflow;
    sink_begin(k, dst);
    for (ptrdiff_t j = 0, count; j < s->count; j += count) {
        const real *y = run_points(s, s->y, s->y_last, j);
        const real *v = run_points(s, s->v, s->v_last, j);
        count = run_length(s, j);
        if (most) {
            /* Ordinary stores need no sink, up to where a vector could spill over the row's end. */
            const int direct = !k->stream && j < safe;
            if (direct && count > safe - j) count = safe - j;
            if (count > most) count = most;
            real *p = direct ? dst + j * size : sink_room(k, count * size);
            operations[tensor].run(s, y, v, j, count, p, s->d);
            if (mend) mend_run(s, j, count, 0, s->d, p);
            if (direct)
                sink_begin(k, p + count * size);
            else
                k->fill += count * size;
        } else {
            real *to = dst + j * size + matrix_offset(s->d, a0, matrix);
            count = 1;
            sink_flush(k, 1);
            sink_begin(k, to);
            if (matrix == 1)
                put_long_vector(s, y, v, j, k);
            else
                put_long_matrix(s, y, v, j, k, matrix == 3, a0, a1);
            if (mend) {
                sink_flush(k, 1); /* it went in pieces, and is in memory already */
                stream_end(k->stream);
                mend_run(s, j, 1, a0, a1, to);
            }
        }
    }
    sink_flush(k, 1);
}

/* ------------------------------------------------------------- covariances: fast blocks --- */

/* Functionals of a side, as bits: what stands in the block of a pair, in this order. */
enum { HAS_VALUE = 1, HAS_GRADIENT = 2, HAS_HESSIAN = 4 };

static ptrdiff_t components(int32_t parts, ptrdiff_t d) {
    return (parts & HAS_VALUE ? 1 : 0) + (parts & HAS_GRADIENT ? d : 0) +
           (parts & HAS_HESSIAN ? d * d : 0);
}

/* Where rows of the matrix of blocks go: the block row of x_i begins at out + i * rows * ld. */
typedef struct {
    real *out; /* entry of the first row component of x_i and the first column of the strip row */
    ptrdiff_t ld;
    ptrdiff_t skip; /* columns at its beginning that are left out: 1 if only the triangle counts */
} block_row;

static void mend_block(const strip_row *s, ptrdiff_t j, int row_order, ptrdiff_t ra, ptrdiff_t rb,
                       real *p);

/* Row a of the blocks of a run: derivatives by x_a. */
INLINE void gradient_row(const strip_row *s, ptrdiff_t m, int32_t cols, ptrdiff_t count,
                         ptrdiff_t a, ptrdiff_t d, real *restrict p) {
    const ptrdiff_t size = components(cols, d), cg = cols & HAS_VALUE ? 1 : 0, ps = apart(d);
    for (ptrdiff_t j = 0; j < count; j++) {
        real *pj = p + j * size;
        if (cols & HAS_GRADIENT) {
            put_outer(m, s->room, pj + cg, s->t + j * ps, s->v2 + j * ps, a, 0, d);
            pj[cg + a] = s->g[j * ps + a];
        }
        if (cg) pj[0] = s->gx[j * ps + a];
    }
}

/* Values and gradients on both sides.  For a run of columns the vectors of all pairs are made
 * first, then each row of the blocks is written in one go. */
INLINE void run_block(const strip_row *s, sink *k, const block_row *to, const real *y,
                      const real *v, ptrdiff_t j0, ptrdiff_t count, ptrdiff_t d) {
    const int32_t rows = s->call->rows, cols = s->call->cols;
    const ptrdiff_t size = components(cols, d), cg = cols & HAS_VALUE ? 1 : 0;
    const ptrdiff_t n_rows = components(rows, d);
    real *const gx = s->gx, *const gy = s->gy;
    /* As in put_row; what a vector spills over must be written later. */
    const int direct = !k->stream && (s->count - j0 - count) * size >= VL;
    if ((rows & HAS_GRADIENT) && (cols & HAS_GRADIENT))
        hessian_vectors(s, y, v, j0, count, d, KD_XY);
    if ((rows & HAS_GRADIENT) && (cols & HAS_VALUE))
        gradient_of(s, s->first, y, v, j0, count, gx, apart(d), d);
    if ((rows & HAS_VALUE) && (cols & HAS_GRADIENT))
        gradient_of(s, s->other, y, v, j0, count, gy, apart(d), d);
    const real *f0 = jet0(s, j0);
    for (ptrdiff_t r = 0; r < n_rows; r++) {
        const ptrdiff_t a = r - (rows & HAS_VALUE ? 1 : 0);
        const ptrdiff_t skip = to->skip && j0 == 0 ? r : 0;
        real *dst = to->out + r * to->ld + j0 * size + skip;
        sink_begin(k, dst);
        real *p = direct && !skip ? dst : sink_room(k, count * size);
        if (a < 0) {
            for (ptrdiff_t j = 0; j < count; j++) {
                if (cols & HAS_GRADIENT) KD_ROW(d, p + j * size + cg, AT(gy + j * apart(d)));
                if (cg) p[j * size] = f0[j];
            }
        } else if (s->m == 1)
            gradient_row(s, 1, cols, count, a, d, p);
        else
            gradient_row(s, s->m, cols, count, a, d, p);
        if (s->call->n_rough || s->overflow)
            for (ptrdiff_t j = 0; j < count; j++)
                mend_block(s, j0 + j, a < 0 ? 0 : 1, a, a, p + j * size);
        if (p == dst) continue;
        k->fill = count * size - skip;
        if (skip) memmove(p, p + skip, (size_t)k->fill * sizeof(real));
        sink_flush(k, 1);
    }
}

static void run_block_by_dim(const strip_row *s, sink *k, const block_row *to, const real *y,
                             const real *v, ptrdiff_t j0, ptrdiff_t count) {
    switch (s->d) {
    case 1:
        run_block(s, k, to, y, v, j0, count, 1);
        break;
    case 2:
        run_block(s, k, to, y, v, j0, count, 2);
        break;
    case 3:
        run_block(s, k, to, y, v, j0, count, 3);
        break;
    case 4:
        run_block(s, k, to, y, v, j0, count, 4);
        break;
    case 5:
        run_block(s, k, to, y, v, j0, count, 5);
        break;
    case 10:
        run_block(s, k, to, y, v, j0, count, 10);
        break;
    default:
        run_block(s, k, to, y, v, j0, count, s->d);
    }
}

/* ---------------------------------------------------------- covariances: general blocks --- */

/* The general case, Hessians included, in two steps.  Applying one component of the row's
 * functional, 1, d/dx_a or d2/dx_a dx_b, to F(a_1(x, y), ...) gives a function of y whose own
 * derivatives with respect to y are
 *
 *     value       g0
 *     gradient    sum_n g1_n U_n + h0 e                                         U_n = grad_y a_n
 *     Hessian     sum_nk g2_nk U_n U_k' + sum_n g1_n diag(a_n,yy)
 *                 + sum (e h' + h e') + z (e_a e_b' + e_b e_a'),       h = sum_n h1_n U_n
 *
 * with the unit vectors e of a and b, where invariants couple x_a to y_a.  All of it follows from
 * the chain rule and from invariants being quadratic. */
typedef struct {
    real g0, g1[KD_MAX_INV], g2[KD_MAX_INV * KD_MAX_INV];
    int n_h;
    ptrdiff_t at[2];
    real h0[2], h1[2][KD_MAX_INV];
    real z;
} applied;

/* Index of F, F_l, F_lk, F_lkn, F_lkno in the table of jets. */
INLINE ptrdiff_t jet_base(int order, ptrdiff_t m) {
    ptrdiff_t base = 0, power = 1;
    for (int q = 0; q < order; q++) base += power, power *= m;
    return base;
}

/* ux[l * room + a]: gradients of the invariants; f: all jets of the pair. */
static void apply_row(const strip_row *s, const real *f, const real *ux, int order, ptrdiff_t a,
                      ptrdiff_t b, int col_order, applied *r) {
    const ptrdiff_t m = s->m, room = s->room;
    const real *f1 = f + 1, *f2 = f + jet_base(2, m), *f3 = f + jet_base(3, m);
    const real *f4 = f + jet_base(4, m);
#define W(l, e) (s->first[l].weights[e])
#define S(l, which) (s->second[3 * (l) + (which)])
    r->g0 = r->h0[0] = r->h0[1] = r->z = 0;
    r->n_h = 0;
    for (ptrdiff_t n = 0; n < m; n++) r->g1[n] = r->h1[0][n] = r->h1[1][n] = 0;
    for (ptrdiff_t n = 0; n < m * m; n++) r->g2[n] = 0;
    if (order == 0) {
        r->g0 = f[0];
        if (col_order >= 1) memcpy(r->g1, f1, (size_t)m * sizeof(real));
        if (col_order >= 2) memcpy(r->g2, f2, (size_t)(m * m) * sizeof(real));
    } else if (order == 1) {
        r->n_h = 1;
        r->at[0] = a;
        for (ptrdiff_t l = 0; l < m; l++) {
            const real ul = ux[l * room + a], xy = S(l, KD_XY) * W(l, a);
            r->g0 += f1[l] * ul;
            r->h0[0] += f1[l] * xy;
            if (col_order >= 1)
                for (ptrdiff_t n = 0; n < m; n++) r->g1[n] += f2[l * m + n] * ul;
            if (col_order >= 2)
                for (ptrdiff_t n = 0; n < m; n++) {
                    r->h1[0][n] += f2[l * m + n] * xy;
                    for (ptrdiff_t o = 0; o < m; o++)
                        r->g2[n * m + o] += f3[(l * m + n) * m + o] * ul;
                }
        }
    } else {
        r->n_h = 2;
        r->at[0] = a, r->at[1] = b;
        for (ptrdiff_t l = 0; l < m; l++) {
            const real xx = a == b ? S(l, KD_XX) * W(l, a) : 0;
            r->g0 += f1[l] * xx;
            if (col_order >= 1)
                for (ptrdiff_t n = 0; n < m; n++) r->g1[n] += f2[l * m + n] * xx;
            if (col_order >= 2)
                for (ptrdiff_t n = 0; n < m * m; n++) r->g2[n] += f3[l * m * m + n] * xx;
            for (ptrdiff_t k = 0; k < m; k++) {
                const real ua = ux[k * room + a], ub = ux[k * room + b];
                const real uu = ux[l * room + a] * ub;
                const real xa = S(l, KD_XY) * W(l, a), xb = S(l, KD_XY) * W(l, b);
                const ptrdiff_t lk = l * m + k;
                r->g0 += f2[lk] * uu;
                r->h0[0] += f2[lk] * xa * ub;
                r->h0[1] += f2[lk] * xb * ua;
                r->z += f2[lk] * xa * (S(k, KD_XY) * W(k, b));
                if (col_order >= 1)
                    for (ptrdiff_t n = 0; n < m; n++) r->g1[n] += f3[lk * m + n] * uu;
                if (col_order >= 2)
                    for (ptrdiff_t n = 0; n < m; n++) {
                        r->h1[0][n] += f3[lk * m + n] * xa * ub;
                        r->h1[1][n] += f3[lk * m + n] * xb * ua;
                        for (ptrdiff_t o = 0; o < m; o++)
                            r->g2[n * m + o] += f4[(lk * m + n) * m + o] * uu;
                    }
            }
        }
    }
}

/* The entries of a row of a block; uy[n * room + c]: gradients of the invariants. */
static void put_applied(const strip_row *s, const applied *r, const real *uy, int32_t cols,
                        real *p) {
    const ptrdiff_t m = s->m, room = s->room, d = s->d;
    if (cols & HAS_VALUE) *p++ = r->g0;
    if (cols & HAS_GRADIENT) {
        for (ptrdiff_t c = 0; c < d; c++) p[c] = 0;
        for (ptrdiff_t n = 0; n < m; n++)
            for (ptrdiff_t c = 0; c < d; c++) p[c] += r->g1[n] * uy[n * room + c];
        for (int h = 0; h < r->n_h; h++) p[r->at[h]] += r->h0[h];
        p += d;
    }
    if (cols & HAS_HESSIAN) {
        for (ptrdiff_t c = 0; c < d; c++) {
            real *pc = p + c * d;
            for (ptrdiff_t e = 0; e < d; e++) pc[e] = 0;
            for (ptrdiff_t n = 0; n < m; n++) {
                real left = 0;
                for (ptrdiff_t k = 0; k < m; k++) left += r->g2[k * m + n] * uy[k * room + c];
                for (ptrdiff_t e = 0; e < d; e++) pc[e] += left * uy[n * room + e];
                pc[c] += r->g1[n] * S(n, KD_YY) * W(n, c);
            }
        }
        for (int h = 0; h < r->n_h; h++)
            for (ptrdiff_t n = 0; n < m; n++)
                for (ptrdiff_t c = 0; c < d; c++) {
                    const real hc = r->h1[h][n] * uy[n * room + c];
                    p[r->at[h] * d + c] += hc;
                    p[c * d + r->at[h]] += hc;
                }
        if (r->n_h == 2) {
            p[r->at[0] * d + r->at[1]] += r->z;
            p[r->at[1] * d + r->at[0]] += r->z;
        }
    }
}
#undef W
#undef S

/* Puts the unmixed second derivatives into a row of a block where invariants have a radial
 * derivative: that of its order, by x_a and x_b. */
static void put_radial_block(const strip_row *s, int order, ptrdiff_t a, ptrdiff_t b, const real *y,
                             const real *v, ptrdiff_t j, real *p) {
    const ptrdiff_t d = s->d;
    const int32_t cols = s->call->cols;
    const form *x = s->first, *of_y = s->other;
    if (order == 2 && a == b && (cols & HAS_VALUE)) {
        put_radial(s, x, x, y, v, j, KD_XX, s->g);
        p[0] = s->g[a];
    }
    if (order == 1 && (cols & HAS_GRADIENT)) {
        put_radial(s, x, of_y, y, v, j, KD_XY, s->g);
        p[(cols & HAS_VALUE ? 1 : 0) + a] = s->g[a];
    }
    if (order == 0 && (cols & HAS_HESSIAN)) {
        put_radial(s, of_y, of_y, y, v, j, KD_YY, s->g);
        p += components(cols & ~HAS_HESSIAN, d);
        for (ptrdiff_t c = 0; c < d; c++) p[c * (d + 1)] = s->g[c];
    }
}

static void general_block(const strip_row *s, const block_row *to, const real *y, const real *v,
                          ptrdiff_t j, ptrdiff_t r0, ptrdiff_t r1) {
    const ptrdiff_t d = s->d, m = s->m;
    const int32_t rows = s->call->rows, cols = s->call->cols;
    const ptrdiff_t size = components(cols, d);
    const int row_order = rows & HAS_HESSIAN ? 2 : rows & HAS_GRADIENT ? 1 : 0;
    const int col_order = cols & HAS_HESSIAN ? 2 : cols & HAS_GRADIENT ? 1 : 0;
    const ptrdiff_t n_jets = jet_base(row_order + col_order + 1, m);
    real *f = s->scratch + size;
    for (ptrdiff_t q = 0; q < n_jets; q++) f[q] = s->bufs[s->jet[q] * s->stride + j];
    for (ptrdiff_t l = 0; l < m; l++) {
        put_form(s->t + l * s->room, apart(d), NULL, &s->first[l], y, v, 1, d, 0);
        put_form(s->v2 + l * s->room, apart(d), NULL, &s->other[l], y, v, 1, d, 0);
    }
    applied r;
    for (ptrdiff_t row = r0; row < r1; row++) {
        ptrdiff_t e = row - (rows & HAS_VALUE ? 1 : 0), a = 0, b = 0;
        int order = 0;
        if (e >= 0 && (rows & HAS_GRADIENT)) {
            if (e < d) order = 1, a = b = e;
            e -= d;
        }
        if (e >= 0 && (rows & HAS_HESSIAN)) order = 2, a = e / d, b = e % d;
        apply_row(s, f, s->t, order, a, b, col_order, &r);
        put_applied(s, &r, s->v2, cols, s->scratch);
        if (s->call->prog->radial) put_radial_block(s, order, a, b, y, v, j, s->scratch);
        if (s->call->n_rough || s->overflow) mend_block(s, j, order, a, b, s->scratch);
        const ptrdiff_t skip = to->skip && j == 0 ? row : 0;
        memcpy(to->out + row * to->ld + j * size + skip, s->scratch + skip,
               (size_t)(size - skip) * sizeof(real));
    }
}

/* Mends the entries of a row of a block, as mend_run. */
static void mend_block(const strip_row *s, ptrdiff_t j, int row_order, ptrdiff_t ra, ptrdiff_t rb,
                       real *p) {
    const ptrdiff_t d = s->d;
    const int32_t cols = s->call->cols;
    for (int32_t r = 0; r < s->call->n_rough; r++) {
        const kd_rough *q = &s->call->rough[r];
        if (s->bufs[q->inv * s->stride + j] != 0) continue;
        real *pj = p;
        const int n = row_order;
        const ptrdiff_t x[2] = {ra, rb};
        if (cols & HAS_VALUE) {
            if (does_not_exist(q, n, x[0], x[1], 0, 0)) *pj = (real)NAN;
            pj++;
        }
        if (cols & HAS_GRADIENT)
            for (ptrdiff_t c = 0; c < d; c++, pj++)
                if (does_not_exist(q, n + 1, n > 0 ? x[0] : c, n > 1 ? x[1] : c, c, 0))
                    *pj = (real)NAN;
        if (cols & HAS_HESSIAN)
            for (ptrdiff_t c = 0; c < d; c++)
                for (ptrdiff_t e = 0; e < d; e++, pj++)
                    if (does_not_exist(q, n + 2, n > 0 ? x[0] : c,
                                       n > 1    ? x[1]
                                       : n == 1 ? c
                                                : e,
                                       n == 2 ? c : e, e))
                        *pj = (real)NAN;
    }
    if (s->overflow) clear(s, j, p, components(cols, d));
}

/* Pairs of a batch, of a tensor or of blocks. */
static ptrdiff_t most_pairs(ptrdiff_t d) {
    const ptrdiff_t of_blocks = SINK / 4 / (d > 0 ? d : 1) + 1;
    return of_blocks > BATCH ? of_blocks : BATCH;
}

/* A row of a strip of blocks. */
static void put_blocks(const strip_row *s, sink *k, ptrdiff_t r0, ptrdiff_t r1,
                       const block_row *to) {
    const int32_t parts = s->call->rows | s->call->cols;
    const ptrdiff_t d = s->d, size = components(s->call->cols, d);
    const int fast = !(parts & HAS_HESSIAN) && d <= BATCH_D;
    for (ptrdiff_t j = 0, count; j < s->count; j += count) {
        const real *y = run_points(s, s->y, s->y_last, j);
        const real *v = run_points(s, s->v, s->v_last, j);
        count = run_length(s, j);
        if (fast) {
            const ptrdiff_t most =
                SINK / 4 / size < most_pairs(d) ? SINK / 4 / size : most_pairs(d);
            if (count > most) count = most;
            run_block_by_dim(s, k, to, y, v, j, count);
        } else {
            count = 1;
            general_block(s, to, y, v, j, r0, r1);
        }
    }
}

/* ------------------------------------------------------------------------------ walk --- */

static ptrdiff_t padded(ptrdiff_t d) { return (d + PAD - 1) / PAD * PAD + PAD; }

/* Room for the vectors of a batch.  Only points of few dimensions come in batches of many. */
static ptrdiff_t batch_room(ptrdiff_t d) {
    const ptrdiff_t batch = d <= BATCH_D ? most_pairs(d) : 1;
    return (batch * apart(d) + 2 * PAD) / PAD * PAD;
}

/* Columns of a strip: fewer where a program has many buffers, so that they stay in cache. */
static ptrdiff_t strip_columns(const kd_program *prog) {
    ptrdiff_t cols = COLS;
    while (cols > PANEL && prog->n_buf * KD_ROWS * cols * (ptrdiff_t)sizeof(real) > STRIP_BYTES)
        cols /= 2;
    return cols;
}

/* Elements of workspace, part by part. */
static size_t work_bytes(const kd_call *c) {
    const ptrdiff_t d = c->d, m = c->prog->n_inv;
    const ptrdiff_t size = c->blocks ? components(c->cols, d) : 0;
    const ptrdiff_t strip = c->prog->n_buf * KD_ROWS * strip_columns(c->prog);
    const ptrdiff_t scratch = size + (c->blocks ? jet_base(c->prog->order + 1, m) : 0) + PAD;
    const ptrdiff_t radial = c->prog->radial ? 2 * d * VL + PAD : 0;
    return sizeof(real) *
           (size_t)(strip + 5 * m * padded(d) + (2 * m + 3) * batch_room(d) +
                    (scratch + PAD) / PAD * PAD + radial + SINK + SINK / 2 + LINE + PAD);
}

/* A vector, once, or as often as the flat loops over small dimensions want it. */
static void repeat(const real *x, real c, const real *u, real cu, ptrdiff_t d, real *out) {
    for (ptrdiff_t e = 0; e < d; e++) out[e] = c * x[e] + (cu != 0 ? cu * u[e] : 0);
    if (d <= FLAT_D)
        for (ptrdiff_t e = d; e < d * VL; e++) out[e] = out[e - d];
}

static void tensor(const kd_call *c, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t j0, ptrdiff_t j1,
                   ptrdiff_t a0, ptrdiff_t a1, void *work) {
    const kd_program *prog = c->prog;
    const ptrdiff_t d = c->d, dp = padded(d), m = prog->n_inv, room = batch_room(d);
    const ptrdiff_t strip_cols = strip_columns(prog), stride = KD_ROWS * strip_cols;
    const real *x = c->x, *y = c->y, *u = c->u, *v = c->v, *w = c->weights;
    const real *panels = c->panels, *v_panels = c->v_panels;
    real *bufs = work;
    real *base = bufs + prog->n_buf * stride; /* 5 vectors for each invariant */
    const ptrdiff_t first_last = c->m < KD_LAST ? 0 : c->m - KD_LAST;
    strip_row s = {.call = c, .jet = prog->jet};
    s.d = d, s.m = m, s.stride = stride, s.room = room;
    s.t = base + 5 * m * dp, s.v2 = s.t + m * room, s.g = s.v2 + m * room;
    s.gx = s.g + room, s.gy = s.gx + room;
    sink k = {.buf = s.gy + room, .stream = c->stream};
    s.radial = (vec *)(k.buf + SINK + SINK / 2 + LINE);
    s.scratch = (real *)(s.radial + (prog->radial ? 2 * d : 0));
    form forms[2][KD_MAX_INV];
    real second[3 * KD_MAX_INV], cx[2][KD_MAX_INV], cu[2][KD_MAX_INV];
    for (ptrdiff_t l = 0; l < m; l++) {
        const double *p = prog->inv[l].left, *q = prog->inv[l].right;
        real *room_l = base + 5 * l * dp; /* weights; base and w for x; base and w for y */
        repeat(w + l * dp, 1, NULL, 0, d, room_l);
        for (int side = 0; side < 2; side++) {
            /* The derivative of L R with respect to x (or y) is p_x R + q_x L. */
            const double pl = side ? p[KD_Y] : p[KD_X], ql = side ? q[KD_Y] : q[KD_X];
            double f[4], most = 0;
            for (int e = 0; e < 4; e++) {
                f[e] = pl * q[e] + ql * p[e];
                if (fabs(f[e]) > most) most = fabs(f[e]);
            }
            for (int e = 0; e < 4; e++) f[e] = most > 0 ? f[e] / most : 0;
            real *of_side = room_l + (1 + 2 * side) * dp;
            repeat(w + l * dp, (real)most, NULL, 0, d, of_side + dp);
            forms[side][l] = (form){of_side, of_side + dp, (real)f[KD_Y], (real)f[KD_V], room_l};
            cx[side][l] = (real)f[KD_X];
            cu[side][l] = (real)f[KD_U];
        }
        second[3 * l + KD_XX] = (real)(2 * p[KD_X] * q[KD_X]);
        second[3 * l + KD_XY] = (real)(p[KD_X] * q[KD_Y] + p[KD_Y] * q[KD_X]);
        second[3 * l + KD_YY] = (real)(2 * p[KD_Y] * q[KD_Y]);
    }
    pattern table[VL];
    const int matrix = c->blocks ? 0 : operations[c->tensor].matrix;
    if (m == 1 && matrix >= 2 && d <= SMALL_D && !prog->radial) {
        fill_patterns(table, forms[0][0].weights, second[c->which], d, matrix == 3);
        s.patterns = table;
    }
    const int order = c->blocks ? 2 : tensor_order(c->tensor);
    const int used[2] = {
        (order > 0 && !c->first_y) || (order > 1 && !c->other_y),
        (order > 0 && c->first_y) || (order > 1 && c->other_y),
    };
    s.second = second;
    s.first = forms[c->first_y], s.other = forms[c->other_y];
    const ptrdiff_t size = c->blocks ? components(c->cols, d) : entries(c->tensor, d);
    for (ptrdiff_t jb = j0 - j0 % PANEL; jb < j1; jb += strip_cols) {
        const ptrdiff_t je = jb + strip_cols < j1 ? jb + strip_cols : j1, jf = jb > j0 ? jb : j0;
        const ptrdiff_t np = (je - jb + PANEL - 1) / PANEL, ld = np * PANEL;
        for (ptrdiff_t i = i0; i < i1; i += KD_ROWS) {
            const ptrdiff_t rows = i1 - i < KD_ROWS ? i1 - i : KD_ROWS;
            if (c->lower && je <= i) break; /* nothing from here on down is in the triangle */
            const real *xr[KD_ROWS], *ur[KD_ROWS];
            for (ptrdiff_t r = 0; r < KD_ROWS; r++) {
                xr[r] = x + (i + (r < rows ? r : rows - 1)) * d;
                ur[r] = u + (i + (r < rows ? r : rows - 1)) * d;
            }
            for (ptrdiff_t l = 0; l < m; l++) {
                invariant_of(&prog->inv[l], xr, ur, panels + jb * d, v_panels + jb * d, np, d,
                             w + l * dp, bufs + l * stride, ld);
            }
            run_program(prog, bufs, stride, rows * ld);
            for (ptrdiff_t r = 0; r < rows; r++) {
                const ptrdiff_t from = c->lower && i + r > jf ? i + r : jf;
                if (from >= je) break;
                for (ptrdiff_t l = 0; l < m; l++)
                    for (int side = 0; side < 2; side++)
                        if (used[side])
                            repeat(xr[r], cx[side][l], ur[r], cu[side][l], d,
                                   base + (5 * l + 1 + 2 * side) * dp);
                s.y = y + from * d;
                s.v = v + from * d;
                s.count = je - from;
                s.last = je <= first_last ? s.count : from > first_last ? 0 : first_last - from;
                s.y_last = (const real *)c->y_last + (from + s.last - first_last) * d;
                s.v_last = (const real *)c->v_last + (from + s.last - first_last) * d;
                s.bufs = bufs + r * ld + (from - jb);
                real *out = (real *)c->out;
                s.overflow = overflows(&s);
                if (c->blocks) {
                    const block_row to = {out + (i + r) * components(c->rows, d) * c->ld +
                                              from * size,
                                          c->ld, c->lower && from == i + r};
                    put_blocks(&s, &k, a0, a1, &to);
                } else {
                    put_row(&s, &k, a0, a1, out + ((i + r) * c->m + from) * size);
                }
            }
        }
    }
    stream_end(c->stream);
}

/* Only the jets: for n sets of invariants, a[l * n + i], all derivatives out[q * n + i]. */
static void jets(const kd_program *prog, const void *a_, ptrdiff_t n, void *out_, void *work) {
    const real *a = a_;
    real *out = out_, *bufs = work;
    const ptrdiff_t stride = KD_ROWS * strip_columns(prog);
    const ptrdiff_t n_jets = jet_base(prog->order + 1, prog->n_inv);
    for (ptrdiff_t i0 = 0; i0 < n; i0 += stride) {
        const ptrdiff_t len = n - i0 < stride ? n - i0 : stride;
        for (ptrdiff_t l = 0; l < prog->n_inv; l++)
            for (ptrdiff_t i = 0; i < stride; i++)
                bufs[l * stride + i] = a[l * n + i0 + (i < len ? i : len - 1)];
        run_program(prog, bufs, stride, (len + PANEL - 1) / PANEL * PANEL);
        for (ptrdiff_t q = 0; q < n_jets; q++)
            memcpy(out + q * n + i0, bufs + prog->jet[q] * stride, (size_t)len * sizeof(real));
    }
}

static void widen(const double *weights, ptrdiff_t d, void *out) {
    for (ptrdiff_t a = 0; a < d; a++) ((real *)out)[a] = weights ? (real)weights[a] : 1;
}

static void pack(const void *y_, ptrdiff_t m, ptrdiff_t d, ptrdiff_t p0, ptrdiff_t p1,
                 void *panels_) {
    const real *y = y_;
    for (ptrdiff_t p = p0; p < p1; p++) {
        real *q = (real *)panels_ + p * d * PANEL;
        for (ptrdiff_t l = 0; l < PANEL; l++) {
            const ptrdiff_t j = p * PANEL + l < m ? p * PANEL + l : m - 1;
            for (ptrdiff_t a = 0; a < d; a++) q[a * PANEL + l] = y[j * d + a];
        }
    }
}

#include "products.h"

#include "contractions.h"

#include "tanh.h"

/* ------------------------------------------------------------------- single functions --- */

#define KD_FN_ENUM(name) KD_FN_##name,
enum { KD_VMATH1(KD_FN_ENUM) KD_VMATH2(KD_FN_ENUM) };

#define KD_FN(name, ...)                                                                          \
    case KD_FN_##name:                                                                            \
        _Pragma("omp simd") for (ptrdiff_t i = 0; i < n; i++) y[i] = kd_##name(x[i] __VA_ARGS__); \
        break;
#define KD_FN1(name) KD_FN(name, )
#define KD_FN2(name) KD_FN(name, , (real)p)

static void vmath(int32_t which, const void *x_, double p, void *y_, ptrdiff_t n) {
    const real *restrict x = x_;
    real *restrict y = y_;
    switch (which) { KD_VMATH1(KD_FN1) KD_VMATH2(KD_FN2) }
}

static void fill(void *out, double value, ptrdiff_t n, int32_t stream) {
    real *p = out;
    ptrdiff_t i = 0;
    if (stream) {
        real line[LINE];
        for (int e = 0; e < LINE; e++) line[e] = (real)value;
        for (; i < n && ((uintptr_t)(p + i) & 63); i++) p[i] = (real)value;
        for (; i + LINE <= n; i += LINE) stream_line(p + i, line);
    }
    for (; i < n; i++) p[i] = (real)value;
    stream_end(stream);
}

#if KD_F32
#define KD_SUFFIX _f32
#else
#define KD_SUFFIX _f64
#endif

const kd_table KD_CAT4(kd_table_, KD_ISA, KD_SUFFIX, ) = {
    .name = KD_STR(KD_ISA),
    .real_bytes = sizeof(real),
    .work_bytes = work_bytes,
    .tanh_work_bytes = tanh_work_bytes,
    .jets = jets,
    .widen = widen,
    .pack = pack,
    .tensor = tensor,
    .product_work_bytes = product_work_bytes,
    .product = product,
    .product_finish = product_finish,
    .contraction_work_bytes = contraction_work_bytes,
    .contract = contract,
    .tanh_pack = tanh_pack,
    .tanh = tanh_rows,
    .tanh_back = tanh_back,
    .tanh_finish = tanh_finish,
    .vmath = vmath,
    .fill = fill,
};
