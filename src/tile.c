/* The walk over a tile of pairs: invariants -> jets -> operation -> memory.
 *
 * Compiled once for each instruction set and each real type (KD_ISA, KD_REAL, KD_F32 come from the
 * build); exports one table.  Vectors are GNU vector types of the width of the instruction set:
 * wider ones, which the compiler would split, are a disaster on narrow machines.  Stage by stage:
 *
 *   invariants  lanes are columns (points of y, from the panels), rows share what is loaded;
 *   jets        lanes are pairs, one buffer of KD_STRIP pairs after the other;
 *   operation   lanes are dimensions, one pair after the other.  Vectors may spill over the end of
 *               what they write: what follows is written later.  So the last stop before memory is
 *               a small buffer (a sink), which also lets us store whole cache lines past the
 * caches.
 */
#include "kd.h"

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
    KD_STRIP = KD_ROWS * COLS,             /* pairs of a strip */
    PAD = KD_PAD_BYTES / sizeof(real),
    DBLOCK = 64,                     /* dimensions summed before they join the total */
    SINK = 16384 / (int)sizeof(real) /* elements of the sink */
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

/* The strip's invariants: rows x[0..3] against np panels; out[r * ld + column].  Differences are
 * formed directly, so that an offset common to all points costs no digits; blocks of DBLOCK terms
 * are summed apart, so that the error grows with DBLOCK + d / DBLOCK instead of d. */
INLINE void invariant_body(const real *const x[KD_ROWS], const real *panels, ptrdiff_t np,
                           ptrdiff_t d, const real *w, int dot, int plain, real *out,
                           ptrdiff_t ld) {
    enum { VPP = PANEL / VL };
    for (ptrdiff_t d0 = 0; d0 < d || d0 == 0; d0 += DBLOCK) {
        const ptrdiff_t d1 = d0 + DBLOCK < d ? d0 + DBLOCK : d;
        for (ptrdiff_t p = 0; p < np; p++) {
            for (int v = 0; v < VPP; v += 2) {
                vec acc[KD_ROWS][2];
                const real *y = panels + p * d * PANEL + v * VL;
                for (int r = 0; r < KD_ROWS; r++) acc[r][0] = acc[r][1] = (vec){0};
                for (ptrdiff_t a = d0; a < d1; a++) {
                    const vec y0 = *(const vec *)(y + a * PANEL),
                              y1 = *(const vec *)(y + a * PANEL + VL);
                    for (int r = 0; r < KD_ROWS; r++) {
                        const real xa = x[r][a];
                        if (dot) {
                            const real wx = plain ? xa : w[a] * xa;
                            acc[r][0] += wx * y0;
                            acc[r][1] += wx * y1;
                        } else {
                            const vec t0 = y0 - xa, t1 = y1 - xa;
                            acc[r][0] += (plain ? t0 : w[a] * t0) * t0;
                            acc[r][1] += (plain ? t1 : w[a] * t1) * t1;
                        }
                    }
                }
                for (int r = 0; r < KD_ROWS; r++) {
                    vec *o = (vec *)(out + r * ld + p * PANEL + v * VL);
                    if (d0) acc[r][0] += o[0], acc[r][1] += o[1];
                    o[0] = acc[r][0], o[1] = acc[r][1];
                }
            }
        }
    }
}

static void invariant(const kd_invariant *inv, const real *const x[KD_ROWS], const real *panels,
                      ptrdiff_t np, ptrdiff_t d, const real *w, real *out, ptrdiff_t ld) {
    if (inv->kind == KD_DOT) {
        if (inv->plain)
            invariant_body(x, panels, np, d, w, 1, 1, out, ld);
        else
            invariant_body(x, panels, np, d, w, 1, 0, out, ld);
    } else {
        if (inv->plain)
            invariant_body(x, panels, np, d, w, 0, 1, out, ld);
        else
            invariant_body(x, panels, np, d, w, 0, 0, out, ld);
    }
}

/* ------------------------------------------------------------------------------ jets --- */

static void run_program(const kd_program *prog, real *bufs, ptrdiff_t n) {
    for (int32_t k = 0; k < prog->n_instr; k++) {
        const kd_instr *in = &prog->instr[k];
        const real *a = bufs + (ptrdiff_t)in->a * KD_STRIP;
        real *f = bufs + (ptrdiff_t)in->dst * KD_STRIP;
        switch (in->op) {
#define KD_JET_CASE(name)                                                 \
    case KD_JET_##name:                                                   \
        kd_jet_##name(a, f, KD_STRIP, n, in->order, prog->par + in->par); \
        break;
            KD_JETS(KD_JET_CASE)
#undef KD_JET_CASE
        }
    }
}

/* ------------------------------------------------------------------------ operations --- */

/* A row of a strip: point x against `count` columns, whose jets begin at f. */
typedef struct {
    const real *x, *w;      /* padded; repeated to fill d vectors if d <= FLAT_D */
    const real *y, *y_last; /* the first column's point; the last point of all, padded */
    const real *f;          /* f of the columns; f' at + KD_STRIP, f'' at + 2 KD_STRIP, ... */
    ptrdiff_t count, last;  /* columns; the one that is the last point of all, or -1 */
    ptrdiff_t d;
    real sign;       /* -1 for a derivative of odd order in y */
    real *u, *v, *g; /* room for BATCH padded vectors each */
} strip_row;

/* Pairs whose vectors are made before the first of them is used: a load that spans two recent
 * stores waits for both. */
enum { BATCH = 8, BATCH_D = 64 };

/* Small dimensions, d a constant: VL pairs make d vectors without gaps, and which pair a lane
 * belongs to is known beforehand. */
#if KD_F32
typedef int32_t lane;
#else
typedef int64_t lane;
#endif
typedef lane vec_i __attribute__((vector_size(KD_VEC_BYTES)));

INLINE vec pick(vec v, vec_i index) {
#if defined(__clang__)
    vec r;
    for (int l = 0; l < VL; l++) r[l] = v[index[l]];
    return r;
#else
    return __builtin_shuffle(v, index);
#endif
}

enum { FLAT_D = 4 };

/* pair_of[d - 1][v][l]: the pair to which lane l of the v-th of these vectors belongs. */
#define KD_PAIR8(d, l)                                                                     \
    (l) / d, (l + 1) / d, (l + 2) / d, (l + 3) / d, (l + 4) / d, (l + 5) / d, (l + 6) / d, \
        (l + 7) / d
#define KD_PAIR16(d, l) {KD_PAIR8(d, (l)), KD_PAIR8(d, (l) + 8)}
#define KD_PAIRS(d) {KD_PAIR16(d, 0), KD_PAIR16(d, VL), KD_PAIR16(d, 2 * VL), KD_PAIR16(d, 3 * VL)}
static const lane pair_of[FLAT_D][FLAT_D][16]
    __attribute__((aligned(64))) = {KD_PAIRS(1), KD_PAIRS(2), KD_PAIRS(3), KD_PAIRS(4)};

/* For `count` pairs: p = c1 f1 w (x - y). */
INLINE void scaled_differences(real *restrict p, real c1, const real *f1, const strip_row *s,
                               const real *y, ptrdiff_t count, ptrdiff_t d) {
    const real *x = s->x, *w = s->w;
    ptrdiff_t j = 0;
    if (d <= FLAT_D)
        for (; j + VL <= count; j += VL) {
            const vec c = c1 * *(const vec_u *)(f1 + j);
            for (int v = 0; v < d; v++)
                *(vec_u *)(p + j * d + v * VL) =
                    pick(c, *(const vec_i *)pair_of[d - 1][v]) *
                    (((const vec *)w)[v] *
                     (((const vec *)x)[v] - *(const vec_u *)(y + j * d + v * VL)));
        }
    for (; j < count; j++) {
        const real c = c1 * f1[j];
        KD_ROW(d, p + j * d, c * (AT(w) * (AT(x) - AT(y + j * d))));
    }
}

/* For `count` pairs: p = c2 f2 (w (x - y))^2 + c1 f1 w. */
INLINE void squared_differences(real *restrict p, real c1, const real *f1, real c2, const real *f2,
                                const strip_row *s, const real *y, ptrdiff_t count, ptrdiff_t d) {
    const real *x = s->x, *w = s->w;
    ptrdiff_t j = 0;
    if (d <= FLAT_D)
        for (; j + VL <= count; j += VL) {
            const vec a = c1 * *(const vec_u *)(f1 + j), b = c2 * *(const vec_u *)(f2 + j);
            for (int v = 0; v < d; v++) {
                const vec wv = ((const vec *)w)[v];
                const vec t = wv * (((const vec *)x)[v] - *(const vec_u *)(y + j * d + v * VL));
                const vec_i pair = *(const vec_i *)pair_of[d - 1][v];
                *(vec_u *)(p + j * d + v * VL) = pick(b, pair) * t * t + pick(a, pair) * wv;
            }
        }
    for (; j < count; j++) {
        const real a = c1 * f1[j], b = c2 * f2[j];
        KD_ROW(d, p + j * d,
               b * (AT(w) * (AT(x) - AT(y + j * d))) * (AT(w) * (AT(x) - AT(y + j * d))) +
                   a * AT(w));
    }
}

/* f' and f'' of column j. */
INLINE const real *jet1(const strip_row *s, ptrdiff_t j) { return s->f + KD_STRIP + j; }
INLINE const real *jet2(const strip_row *s, ptrdiff_t j) { return s->f + 2 * KD_STRIP + j; }

/* What follows are the operations on a run of columns j0 ... j0 + count - 1 with points at y, which
 * write `count` times their entries to p and may spill over. */

static void run_value(const strip_row *s, const real *y, ptrdiff_t j0, ptrdiff_t count,
                      real *restrict p, ptrdiff_t d) {
    (void)y, (void)d;
    memcpy(p, s->f + j0, (size_t)count * sizeof(real));
}

/* dk/dx = 2 f' w delta */
INLINE void run_gradient(const strip_row *s, const real *y, ptrdiff_t j0, ptrdiff_t count,
                         real *restrict p, ptrdiff_t d) {
    scaled_differences(p, 2 * s->sign, jet1(s, j0), s, y, count, d);
}

/* d2k/dx_a dx_a = 4 f'' (w delta)_a^2 + 2 f' w_a */
INLINE void run_hessian_diag(const strip_row *s, const real *y, ptrdiff_t j0, ptrdiff_t count,
                             real *restrict p, ptrdiff_t d) {
    squared_differences(p, 2 * s->sign, jet1(s, j0), 4 * s->sign, jet2(s, j0), s, y, count, d);
}

/* d2k/dx dx' = 4 f'' (w delta)(w delta)' + 2 f' diag(w): rows u_a v, with the diagonal g. */
INLINE void hessian_vectors(const strip_row *s, const real *y, ptrdiff_t j, ptrdiff_t count,
                            ptrdiff_t d) {
    static const real one[BATCH] = {1, 1, 1, 1, 1, 1, 1, 1};
    scaled_differences(s->v, 1, one, s, y, count, d);
    scaled_differences(s->u, 4 * s->sign, jet2(s, j), s, y, count, d);
    squared_differences(s->g, 2 * s->sign, jet1(s, j), 4 * s->sign, jet2(s, j), s, y, count, d);
}

INLINE void run_hessian_layout(const strip_row *s, const real *y, ptrdiff_t j0, ptrdiff_t count,
                               real *restrict p, ptrdiff_t d, int packed) {
    for (ptrdiff_t jb = 0; jb < count; jb += BATCH) {
        const ptrdiff_t nb = count - jb < BATCH ? count - jb : BATCH;
        hessian_vectors(s, y + jb * d, j0 + jb, nb, d);
        for (ptrdiff_t j = 0; j < nb; j++) {
            const real *restrict u = s->u + j * d, *restrict v = s->v + j * d;
            const real *restrict g = s->g + j * d;
            for (ptrdiff_t a = 0; a < d; a++) {
                const ptrdiff_t b = packed ? a : 0;
                KD_ROW(d - b, p, u[a] * AT(v + b));
                p[a - b] = g[a];
                p += d - b;
            }
        }
    }
}

INLINE void run_hessian(const strip_row *s, const real *y, ptrdiff_t j0, ptrdiff_t count,
                        real *restrict p, ptrdiff_t d) {
    run_hessian_layout(s, y, j0, count, p, d, 0);
}

INLINE void run_hessian_packed(const strip_row *s, const real *y, ptrdiff_t j0, ptrdiff_t count,
                               real *p, ptrdiff_t d) {
    run_hessian_layout(s, y, j0, count, p, d, 1);
}

/* Each operation once more for the dimensions that people use most, as constants. */
#define KD_BY_DIM(name)                                                                         \
    static void name##_by_dim(const strip_row *s, const real *y, ptrdiff_t j0, ptrdiff_t count, \
                              real *p, ptrdiff_t d) {                                           \
        switch (d) {                                                                            \
        case 1:                                                                                 \
            name(s, y, j0, count, p, 1);                                                        \
            break;                                                                              \
        case 2:                                                                                 \
            name(s, y, j0, count, p, 2);                                                        \
            break;                                                                              \
        case 3:                                                                                 \
            name(s, y, j0, count, p, 3);                                                        \
            break;                                                                              \
        case 4:                                                                                 \
            name(s, y, j0, count, p, 4);                                                        \
            break;                                                                              \
        case 5:                                                                                 \
            name(s, y, j0, count, p, 5);                                                        \
            break;                                                                              \
        case 6:                                                                                 \
            name(s, y, j0, count, p, 6);                                                        \
            break;                                                                              \
        case 8:                                                                                 \
            name(s, y, j0, count, p, 8);                                                        \
            break;                                                                              \
        case 10:                                                                                \
            name(s, y, j0, count, p, 10);                                                       \
            break;                                                                              \
        default:                                                                                \
            name(s, y, j0, count, p, d);                                                        \
        }                                                                                       \
    }

KD_BY_DIM(run_gradient)
KD_BY_DIM(run_hessian_diag)
KD_BY_DIM(run_hessian)
KD_BY_DIM(run_hessian_packed)

/* THE list of operations: what writes a run of columns, and the entries of a pair. */
static const struct {
    void (*run)(const strip_row *, const real *, ptrdiff_t, ptrdiff_t, real *, ptrdiff_t);
    int matrix; /* entries: 0 a number, 1 a vector, 2 a matrix, 3 its upper triangle */
} operations[KD_N_TENSORS] = {
    [KD_VALUE] = {run_value, 0},
    [KD_GRADIENT] = {run_gradient_by_dim, 1},
    [KD_HESSIAN_DIAG] = {run_hessian_diag_by_dim, 1},
    [KD_HESSIAN] = {run_hessian_by_dim, 2},
    [KD_HESSIAN_PACKED] = {run_hessian_packed_by_dim, 3},
};

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

/* A vector longer than the sink, in pieces; each piece as the pair of points cut to it. */
static void put_long_vector(const strip_row *s, const real *y, ptrdiff_t j, sink *k,
                            int32_t tensor) {
    for (ptrdiff_t e = 0; e < s->d; e += SINK / 2) {
        const ptrdiff_t len = s->d - e < SINK / 2 ? s->d - e : SINK / 2;
        strip_row piece = *s;
        piece.x += e, piece.w += e, piece.d = len;
        operations[tensor].run(&piece, y + e, j, 1, sink_room(k, len), len);
        k->fill += len;
    }
}

/* A vector times a number, in pieces. */
static void put_scaled(sink *k, real c, const real *v, ptrdiff_t n) {
    for (ptrdiff_t e0 = 0; e0 < n; e0 += SINK / 2) {
        const ptrdiff_t len = n - e0 < SINK / 2 ? n - e0 : SINK / 2;
        real *p = sink_room(k, len);
        KD_ROW(len, p, c * AT(v + e0));
        k->fill += len;
    }
}

/* A matrix larger than the sink, row by row. */
static void put_long_matrix(const strip_row *s, const real *y, ptrdiff_t j, sink *k, int packed) {
    hessian_vectors(s, y, j, 1, s->d);
    for (ptrdiff_t a = 0; a < s->d; a++) {
        const ptrdiff_t b = packed ? a : 0;
        put_scaled(k, s->u[a], s->v + b, a - b);
        *sink_room(k, 1) = s->g[a];
        k->fill++;
        put_scaled(k, s->u[a], s->v + a + 1, s->d - a - 1);
    }
}

/* The row's entries, in runs that fit the sink.  The last point of all is read from a padded copy,
 * as vectors may reach beyond it. */
static void put_row(const strip_row *s, sink *k, int32_t tensor) {
    const ptrdiff_t size = entries(tensor, s->d), most = size ? SINK / 2 / size : s->count;
    for (ptrdiff_t j = 0, count; j < s->count; j += count) {
        const real *y = j == s->last ? s->y_last : s->y + j * s->d;
        count = j == s->last || s->last < 0 ? s->count - j : s->last - j;
        if (most) {
            if (count > most) count = most;
            operations[tensor].run(s, y, j, count, sink_room(k, count * size), s->d);
            k->fill += count * size;
        } else {
            count = 1;
            if (operations[tensor].matrix == 1)
                put_long_vector(s, y, j, k, tensor);
            else
                put_long_matrix(s, y, j, k, operations[tensor].matrix == 3);
        }
    }
}

/* ------------------------------------------------------------------------------ walk --- */

static ptrdiff_t padded(ptrdiff_t d) { return (d + PAD - 1) / PAD * PAD + PAD; }

/* Room for the vectors of a batch.  Only points of few dimensions come in batches of many. */
static ptrdiff_t batch_room(ptrdiff_t d) {
    return ((d <= BATCH_D ? BATCH : 1) * d + 2 * PAD) / PAD * PAD;
}

static size_t work_bytes(const kd_program *prog, ptrdiff_t d) {
    return sizeof(real) * ((size_t)prog->n_buf * KD_STRIP + 2 * (size_t)padded(d) +
                           3 * (size_t)batch_room(d) + SINK + SINK / 2 + LINE + PAD);
}

/* A vector, once, or as often as the flat loops over small dimensions want it. */
static void repeat(const real *x, ptrdiff_t d, real *out) {
    const ptrdiff_t n = d <= FLAT_D ? d * VL : d;
    for (ptrdiff_t e = 0; e < n; e += d) memcpy(out + e, x, (size_t)d * sizeof(real));
}

static void tensor(const kd_call *c, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t j0, ptrdiff_t j1,
                   void *work) {
    const ptrdiff_t d = c->d, dp = padded(d), size = entries(c->tensor, d);
    const real *x = c->x, *y = c->y, *panels = c->panels, *w = c->weights;
    real *bufs = work;
    real *xi = bufs + (ptrdiff_t)c->prog->n_buf * KD_STRIP, *wi = xi + dp;
    real *u = wi + dp, *v = u + batch_room(d);
    real *g = v + batch_room(d);
    strip_row s = {.x = xi, .w = wi, .y_last = c->y_last, .d = d, .u = u, .v = v, .g = g};
    sink k = {.buf = g + batch_room(d), .stream = c->stream};
    s.sign = c->mixed ? -1 : 1;
    repeat(w, d, wi);
    for (ptrdiff_t jb = j0 - j0 % PANEL; jb < j1; jb += COLS) {
        const ptrdiff_t je = jb + COLS < j1 ? jb + COLS : j1, jf = jb > j0 ? jb : j0;
        const ptrdiff_t np = (je - jb + PANEL - 1) / PANEL, ld = np * PANEL;
        for (ptrdiff_t i = i0; i < i1; i += KD_ROWS) {
            const ptrdiff_t rows = i1 - i < KD_ROWS ? i1 - i : KD_ROWS;
            const real *xr[KD_ROWS];
            for (ptrdiff_t r = 0; r < KD_ROWS; r++) xr[r] = x + (i + (r < rows ? r : rows - 1)) * d;
            for (int32_t l = 0; l < c->prog->n_inv; l++)
                invariant(&c->prog->inv[l], xr, panels + jb * d, np, d, w + l * dp,
                          bufs + (ptrdiff_t)l * KD_STRIP, ld);
            run_program(c->prog, bufs, rows * ld);
            s.y = y + jf * d;
            s.count = je - jf;
            s.last = je == c->m ? s.count - 1 : -1;
            for (ptrdiff_t r = 0; r < rows; r++) {
                repeat(xr[r], d, xi);
                s.f = bufs + (ptrdiff_t)c->prog->jet * KD_STRIP + r * ld + (jf - jb);
                sink_begin(&k, (real *)c->out + ((i + r) * c->m + jf) * size);
                put_row(&s, &k, c->tensor);
                sink_flush(&k, 1);
            }
        }
    }
    stream_end(c->stream);
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

/* ---------------------------------------------------------------------- tanh basis --- */

enum { KBLOCK = 512 }; /* units of a basis handled at once */

static size_t tanh_work_bytes(ptrdiff_t d, ptrdiff_t k) {
    (void)d, (void)k;
    return sizeof(real) * (3 * (KBLOCK + PAD) + SINK + SINK / 2 + LINE + PAD);
}

/* z = b + x a, for units k0 .. k0 + nk - 1. */
static void tanh_arguments(const kd_tanh_call *c, const real *x, ptrdiff_t k0, ptrdiff_t nk,
                           real *z) {
    const real *w = (const real *)c->w + k0, *b = w + c->d * c->k;
    for (ptrdiff_t q = 0; q < nk; q++) z[q] = b[q];
    for (ptrdiff_t a = 0; a < c->d; a++) {
        const real xa = x[a];
#pragma omp simd
        for (ptrdiff_t q = 0; q < nk; q++) z[q] += xa * w[a * c->k + q];
    }
}

static void tanh_rows(const kd_tanh_call *c, ptrdiff_t i0, ptrdiff_t i1, void *work) {
    const ptrdiff_t d = c->d, kk = c->k;
    real *z = work, *t = z + KBLOCK + PAD, *s = t + KBLOCK + PAD;
    sink k = {.buf = s + KBLOCK + PAD, .stream = c->stream};
    for (ptrdiff_t i = i0; i < i1; i++) {
        const real *x = (const real *)c->x + i * d;
        for (ptrdiff_t k0 = 0; k0 < kk; k0 += KBLOCK) {
            const ptrdiff_t nk = kk - k0 < KBLOCK ? kk - k0 : KBLOCK;
            tanh_arguments(c, x, k0, nk, z);
            if (!c->jacobian) {
#pragma omp simd
                for (ptrdiff_t q = 0; q < nk; q++) t[q] = kd_tanh(z[q]);
                memcpy((real *)c->out + i * kk + k0, t, (size_t)nk * sizeof(real));
                continue;
            }
#pragma omp simd
            for (ptrdiff_t q = 0; q < nk; q++) s[q] = kd_sech2(z[q]);
            /* A basis that fits one block is written as one run of d + 1 rows. */
            const int whole = nk == kk;
            for (ptrdiff_t a = 0; a <= d; a++) {
                if (!whole || a == 0) sink_begin(&k, (real *)c->out + (i * (d + 1) + a) * kk + k0);
                const real xa = a < d ? x[a] : 1;
                put_scaled(&k, xa, s, nk);
                if (!whole || a == d) sink_flush(&k, 1);
            }
        }
    }
    stream_end(c->stream);
}

/* ------------------------------------------------------------------- single functions --- */

#define KD_MAP_ENUM(name) KD_MAP_##name,
enum { KD_VMATH1(KD_MAP_ENUM) KD_VMATH2(KD_MAP_ENUM) };

#define KD_MAP(name, ...)                                                                         \
    case KD_MAP_##name:                                                                           \
        _Pragma("omp simd") for (ptrdiff_t i = 0; i < n; i++) y[i] = kd_##name(x[i] __VA_ARGS__); \
        break;
#define KD_MAP1(name) KD_MAP(name, )
#define KD_MAP2(name) KD_MAP(name, , (real)p)

static void vmath(int32_t which, const void *x_, double p, void *y_, ptrdiff_t n) {
    const real *restrict x = x_;
    real *restrict y = y_;
    switch (which) { KD_VMATH1(KD_MAP1) KD_VMATH2(KD_MAP2) }
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
    .widen = widen,
    .pack = pack,
    .tensor = tensor,
    .tanh = tanh_rows,
    .vmath = vmath,
    .fill = fill,
};
