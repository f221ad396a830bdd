/* Products with covariances that are never built: part of tile.c.
 *
 *     points -> invariants -> jets -> coefficients of a pair -> sums over pairs
 *
 * Lanes are columns throughout, so that nothing is shuffled: vectors come in panels, as points do,
 * and go out in panels.  Sums over a row's columns stay in vectors, in registers within a strip and
 * in the workspace between strips, and are added across lanes once for a block of rows.  With
 * `both`, a tile and its transpose are multiplied at once, from the same jets.
 *
 * L and M are the functionals of rows and columns, and (alpha, beta, Gamma) what M's entries are
 * multiplied by.  With U_n = grad_y a_n, the product's entries for a pair are L applied to
 *
 *     g(x) = alpha F + sum_n F_n b_n + sum_nk F_nk q_nk,
 *     b_n = U_n . beta + tr(a_n,yy Gamma),    q_nk = U_n' Gamma U_k.
 */

/* Groups of KD_ROWS rows that go through blocks of dimensions together, so that these stay in the
 * first-level cache where all dimensions do not. */
enum { GROUPS = 4, MANY_D = 48 };

static ptrdiff_t product_groups(const kd_product *c) {
    return c->d >= MANY_D && c->prog->n_inv == 1 ? GROUPS : 1;
}

/* Rows whose sums are kept at a time: few enough for the second-level cache. */
static ptrdiff_t product_rows(const kd_product *c) {
    const ptrdiff_t size = c->k * components(c->side[0].parts, c->d) * (ptrdiff_t)sizeof(real);
    ptrdiff_t rows = 64;
    while (rows > KD_ROWS * GROUPS && rows * size > 262144) rows /= 2;
    return rows;
}

/* Columns of a strip: their points and vectors stay in the first-level cache, unless there are so
 * many dimensions that a strip would be too short for its sums.  Hessians of an expansion read a
 * few dimensions at a time, and have more sums. */
static ptrdiff_t product_columns(const kd_product *c) {
    const ptrdiff_t size = c->d + components(c->side[1].parts & ~HAS_HESSIAN, c->d);
    const ptrdiff_t least = c->side[0].parts & HAS_HESSIAN ? 8 * PANEL : 4 * PANEL;
    ptrdiff_t cols = strip_columns(c->prog);
    if (c->side[0].parts == HAS_HESSIAN && c->side[1].parts == HAS_VALUE) return 2 * cols;
    while (cols > least && cols * size * (ptrdiff_t)sizeof(real) > 32768) cols /= 2;
    return cols;
}

/* KD_ROWS rows against a strip of columns. */
typedef struct {
    const kd_product *call;
    ptrdiff_t d, m, k;
    ptrdiff_t i, j;           /* the first row and column */
    ptrdiff_t np, ld, stride; /* panels and columns of the strip; between buffers */
    const real *bufs;
    const real *x, *u;          /* points and directions of the rows, (KD_ROWS, d) */
    const real *row_in, *row_w; /* their vectors, (KD_ROWS, k, n_rows); gradients times weights */
    const real *y, *v;          /* points and directions of the columns, in panels */
    const real *in;             /* their vectors, in panels; in_k from one right-hand side on */
    real *col_out;              /* sums of the columns, likewise */
    ptrdiff_t in_k, n_rows, n_cols; /* n: components of the two functionals */
    real *sums;                     /* of the rows */
    ptrdiff_t sum_step, sum_row;    /* between components (of all vectors), and between rows */
    real *room;
    const real *zeros;
    int overflow;
} strip;

/* Keeps a value that is used more than once in a register: as an operand in memory it would be
 * loaded for each use, and loads are what these loops run out of. */
#if defined(__AVX512F__)
#define KEEP(v) __asm__("" : "+v"(v))
#elif defined(__SSE2__)
#define KEEP(v) __asm__("" : "+x"(v))
#else
#define KEEP(v) (void)0
#endif

INLINE vec load(const real *p) { return *(const vec *)p; }
INLINE void store(real *p, vec v) { *(vec *)p = v; }

/* Sums across lanes.  fold_pair halves the groups of g lanes of two vectors, adding their halves;
 * those of a come first.  So n vectors become one, whose first n lanes are their sums. */
#define KD_GROUPS(g) (VL / (g) > 0 ? VL / (g) : 1)
#define KD_LOW(g, t)                                                                   \
    ((t) / ((g) / 2) < KD_GROUPS(g) ? 0 : VL) + (t) / ((g) / 2) % KD_GROUPS(g) * (g) + \
        (t) % ((g) / 2)
#define KD_LOW4(g, t, h) \
    KD_LOW(g, t) + h, KD_LOW(g, t + 1) + h, KD_LOW(g, t + 2) + h, KD_LOW(g, t + 3) + h
#define KD_LOW16(g, h) {KD_LOW4(g, 0, h), KD_LOW4(g, 4, h), KD_LOW4(g, 8, h), KD_LOW4(g, 12, h)}
/* By the logarithm of g: the lanes of the lower halves, and of the upper ones. */
static const lane fold_lanes[5][2][16] __attribute__((aligned(64))) = {
    [1] = {KD_LOW16(2, 0), KD_LOW16(2, 1)},
    [2] = {KD_LOW16(4, 0), KD_LOW16(4, 2)},
    [3] = {KD_LOW16(8, 0), KD_LOW16(8, 4)},
    [4] = {KD_LOW16(16, 0), KD_LOW16(16, 8)},
};

INLINE vec fold_pair(vec a, vec b, int log_g) {
#if defined(__clang__)
    vec r;
    for (int t = 0; t < VL; t++) {
        const lane low = fold_lanes[log_g][0][t], high = fold_lanes[log_g][1][t];
        r[t] = (low < VL ? a[low] : b[low - VL]) + (high < VL ? a[high] : b[high - VL]);
    }
    return r;
#else
    return __builtin_shuffle(a, b, *(const vec_i *)fold_lanes[log_g][0]) +
           __builtin_shuffle(a, b, *(const vec_i *)fold_lanes[log_g][1]);
#endif
}

/* n is a power of two, at most VL. */
INLINE vec fold(const vec *v, int n) {
    vec t[VL];
    for (int e = 0; e < n; e++) t[e] = v[e];
#define KD_FOLD(log_g)                                                           \
    if (VL >= 1 << log_g) {                                                      \
        const int two = n > 1;                                                   \
        n = two ? n / 2 : 1;                                                     \
        for (int e = 0; e < n; e++)                                              \
            t[e] = fold_pair(t[two ? 2 * e : 0], t[two ? 2 * e + 1 : 0], log_g); \
    }
    KD_FOLD(4)
    KD_FOLD(3)
    KD_FOLD(2)
    KD_FOLD(1)
#undef KD_FOLD
    return t[0];
}

/* Adds to the sums of KD_ROWS rows: those of v[n * r + e] to component e, of n; n is 1, 2 or 4. */
INLINE void add_rows(const vec *v, int n, real *to, ptrdiff_t step) {
    enum { ROWS_OF = VL < 4 ? VL : 4, OF = VL / ROWS_OF };
    for (int r0 = 0; r0 < KD_ROWS; r0 += ROWS_OF)
        for (int e0 = 0; e0 < n; e0 += OF) {
            const int count = n - e0 < OF ? n - e0 : OF;
            vec t[VL];
            for (int e = 0; e < count; e++)
                for (int r = 0; r < ROWS_OF; r++) t[e * ROWS_OF + r] = v[n * (r0 + r) + e0 + e];
            const vec sum = fold(t, count * ROWS_OF);
            for (int e = 0; e < count; e++)
                for (int r = 0; r < ROWS_OF; r++)
                    to[(e0 + e) * step + r0 + r] += sum[e * ROWS_OF + r];
        }
}

INLINE const real *strip_jet(const strip *s, ptrdiff_t q) {
    return s->bufs + s->call->prog->jet[q] * s->stride;
}

/* Where a squared distance has overflowed, kernels of it and their derivatives are 0, and what
 * comes with them matters no more: 0 times infinity would be NaN. */
static void clear_overflow(const strip *s, real *c, int only_nan) {
    const real limit = sizeof(real) == 8 ? (real)DBL_MAX : (real)FLT_MAX;
    for (ptrdiff_t l = 0; l < s->m; l++)
        if (s->call->prog->inv[l].kind == KD_SQDIST)
            for (ptrdiff_t i = 0; i < KD_ROWS * s->ld; i++)
                if (s->bufs[l * s->stride + i] > limit && (!only_nan || isnan(c[i]))) c[i] = 0;
}

/* Without what is NaN in other lanes than these. */
INLINE vec only(vec v, vec_i lanes) { return (vec)((vec_i)v & (lanes | (v == v))); }

/* Lanes whose squared distances have not overflowed. */
INLINE vec_i lanes_of(const strip *s, ptrdiff_t at) {
    const real limit = sizeof(real) == 8 ? (real)DBL_MAX : (real)FLT_MAX;
    vec_i good = ~(vec_i){0};
    if (s->overflow)
        for (ptrdiff_t l = 0; l < s->m; l++)
            if (s->call->prog->inv[l].kind == KD_SQDIST)
                good &= ~(load(s->bufs + l * s->stride + at) > limit);
    return good;
}

/* Unmixed second derivatives by all squared distances that have a radial one, (m, d), for a row and
 * VL columns from `at` on; room for d more follows. */
static void radial_diagonals(const strip *s, ptrdiff_t at, const real *x, const real *y, vec *out) {
    const ptrdiff_t d = s->d, dp = padded(d);
    const int32_t *radial = s->call->prog->radial;
    for (ptrdiff_t l = 0; l < s->m; l++) {
        if (radial[l] < 0) continue;
        for (ptrdiff_t a = 0; a < d; a++) out[l * d + a] = x[a] - load(y + a * PANEL);
        radial_diagonal(d, (const real *)s->call->weights + l * dp,
                        load(s->bufs + l * s->stride + at), load(strip_jet(s, 1 + l) + at),
                        load(s->bufs + radial[l] * s->stride + at), out + l * d, out + s->m * d);
    }
}

/* ------------------------------------------------------------------ values with values --- */

INLINE void values_of(const strip *s, ptrdiff_t k0, int nk, int both) {
    const real *f = strip_jet(s, 0);
    vec sum[KD_ROWS * 4];
    for (int r = 0; r < KD_ROWS; r++)
        for (int e = 0; e < nk; e++) sum[r * nk + e] = all(0);
    for (ptrdiff_t at = 0; at < s->ld; at += VL) {
        vec g[KD_ROWS];
        for (int r = 0; r < KD_ROWS; r++) g[r] = load(f + r * s->ld + at);
        for (int e = 0; e < nk; e++) {
            const vec alpha = load(s->in + (k0 + e) * s->in_k + at);
            for (int r = 0; r < KD_ROWS; r++) sum[r * nk + e] += g[r] * alpha;
            if (both) {
                real *to = s->col_out + (k0 + e) * s->in_k + at;
                vec t = load(to);
                for (int r = 0; r < KD_ROWS; r++) t += g[r] * s->row_in[r * s->k + k0 + e];
                store(to, t);
            }
        }
    }
    add_rows(sum, nk, s->sums + k0 * s->sum_step, s->sum_step);
}

static void product_values(const strip *s, int both) {
    ptrdiff_t k = 0;
    if (both) {
        for (; k + 4 <= s->k; k += 4) values_of(s, k, 4, 1);
        for (; k < s->k; k++) values_of(s, k, 1, 1);
    } else {
        for (; k + 4 <= s->k; k += 4) values_of(s, k, 4, 0);
        for (; k < s->k; k++) values_of(s, k, 1, 0);
    }
}

/* ----------------------------------------------- values and gradients, for one invariant --- */

/* The gradients of s are 2 w o e and -2 w o e with e = x - y, those of p are w o y and w o x.
 *
 * tau[r][column] = sum_a w_a e_a q_a, with vectors q of the columns, or (else) of the rows. */
INLINE void taus_vectors(const strip *s, int dot, const real *w, ptrdiff_t a0, ptrdiff_t a1,
                         const real *y, const real *q, const real *row_w, int nv, real *tau) {
    const ptrdiff_t d = s->d, step = s->k * s->n_rows;
    vec sum[KD_ROWS][AT_ONCE];
    for (int r = 0; r < KD_ROWS; r++)
        for (int v = 0; v < nv; v++) sum[r][v] = all(0);
    for (ptrdiff_t a = a0; a < a1; a++)
        for (int v = 0; v < nv; v++) {
            const vec ya = load(y + a * PANEL + vector_at(v, d * PANEL));
            vec b = all(0);
            if (q) b = w[a] * load(q + a * PANEL + vector_at(v, s->n_cols * PANEL));
            for (int r = 0; r < KD_ROWS; r++) {
                const real xa = s->x[r * d + a];
                if (!q) b = all(row_w[r * step + a]);
                sum[r][v] += (!dot ? xa - ya : q ? all(xa) : ya) * b;
            }
        }
    for (int r = 0; r < KD_ROWS; r++)
        for (int v = 0; v < nv; v++) {
            real *t = tau + r * s->ld + v * VL;
            store(t, a0 ? load(t) + sum[r][v] : sum[r][v]);
        }
}

INLINE void product_taus(const strip *s, int dot, const real *w, ptrdiff_t a0, ptrdiff_t a1,
                         const real *q, const real *row_w, real *tau) {
    ptrdiff_t v = 0;
#define KD_TAUS(nv)                                                                    \
    taus_vectors(s, dot, w, a0, a1, s->y + v / VPP * s->d * PANEL + v % VPP * VL,      \
                 q ? q + v / VPP * s->n_cols * PANEL + v % VPP * VL : NULL, row_w, nv, \
                 tau + v * VL)
    for (; v + AT_ONCE <= s->np * VPP; v += AT_ONCE) KD_TAUS(AT_ONCE);
    for (; v < s->np * VPP; v += 2) KD_TAUS(2);
#undef KD_TAUS
}

/* Squared distances with the first of these sums, and of those for rows, as both need e. */
INLINE void distances_and_taus(const strip *s, const real *w, int plain, int both, int nv,
                               ptrdiff_t a0, ptrdiff_t a1, const real *y, const real *q,
                               const real *row, real *distance, real *tau, real *tau_back) {
    enum { MOST = KD_VEC_BYTES == 64 ? 2 : 1 };
    const ptrdiff_t d = s->d, step = s->k * s->n_rows;
    vec sum[3][KD_ROWS][MOST];
    for (int r = 0; r < KD_ROWS; r++)
        for (int v = 0; v < nv; v++) sum[0][r][v] = sum[1][r][v] = sum[2][r][v] = all(0);
    for (ptrdiff_t a = a0; a < a1; a++)
        for (int v = 0; v < nv; v++) {
            const vec ya = load(y + a * PANEL + v * VL);
            vec b = load(q + a * PANEL + v * VL);
            KEEP(b);
            for (int r = 0; r < KD_ROWS; r++) {
                const vec e = s->x[r * d + a] - ya, we = plain ? e : w[a] * e;
                sum[0][r][v] += we * e;
                sum[1][r][v] += we * b;
                if (both) sum[2][r][v] += we * row[r * step + a];
            }
        }
    real *const to[3] = {distance, tau, tau_back};
    for (int k = 0; k < (both ? 3 : 2); k++)
        for (int r = 0; r < KD_ROWS; r++)
            for (int v = 0; v < nv; v++) {
                real *t = to[k] + r * s->ld + v * VL;
                store(t, a0 ? load(t) + sum[k][r][v] : sum[k][r][v]);
            }
}

static void product_distances(const strip *s, int both, ptrdiff_t a0, ptrdiff_t a1) {
    enum { STEP = KD_VEC_BYTES == 64 ? 2 : 1 };
    const ptrdiff_t n = KD_ROWS * s->ld, size = s->n_cols * PANEL;
    const real *w = s->call->weights, *q = s->in + (s->call->side[1].parts & HAS_VALUE) * PANEL;
    const real *row = s->row_in + (s->call->side[0].parts & HAS_VALUE);
    real *distance = (real *)s->bufs, *tau = s->room, *tau_back = tau + n;
    const int plain = s->call->prog->inv->plain;
    for (ptrdiff_t v = 0; v < s->np * VPP; v += STEP) {
        const ptrdiff_t lane = v % VPP * VL, at = v * VL;
#define KD_DISTANCES(plain, both)                                                             \
    distances_and_taus(s, w, plain, both, STEP, a0, a1, s->y + v / VPP * s->d * PANEL + lane, \
                       q + v / VPP * size + lane, row, distance + at, tau + at, tau_back + at)
        if (both)
            plain ? KD_DISTANCES(1, 1) : KD_DISTANCES(0, 1);
        else
            plain ? KD_DISTANCES(1, 0) : KD_DISTANCES(0, 0);
#undef KD_DISTANCES
    }
}

/* What e and the vector of a pair are multiplied by in gradients: for each vector of columns and
 * row, C for e and BACK for e in the sums of columns, both with F for the vector. */
enum { C, F, BACK, N_COEFFICIENTS };

INLINE real *coefficient(real *c, ptrdiff_t v, ptrdiff_t r, int which) {
    return c + ((v * KD_ROWS + r) * N_COEFFICIENTS + which) * VL;
}

/* Values of a strip, and coefficients of its gradients. */
INLINE void product_coefficients(const strip *s, int dot, int both, ptrdiff_t k, const real *tau,
                                 const real *tau_back, real *c) {
    const int row_value = s->call->side[0].parts & HAS_VALUE;
    const int col_value = s->call->side[1].parts & HAS_VALUE;
    const int order = s->call->prog->order;
    const real cx = dot ? 1 : 2, cy = dot ? 1 : -2, cxy = dot ? 1 : -2;
    const real *f0 = strip_jet(s, 0), *f1 = order > 0 ? strip_jet(s, 1) : s->zeros;
    const real *f2 = order > 1 ? strip_jet(s, 2) : s->zeros;
    vec values[KD_ROWS];
    for (ptrdiff_t r = 0; r < KD_ROWS; r++) {
        const real back = both && row_value ? s->row_in[(r * s->k + k) * s->n_rows] : 0;
        vec value = all(0);
        for (ptrdiff_t v = 0; v < s->np * VPP; v++) {
            const ptrdiff_t at = r * s->ld + v * VL;
            const ptrdiff_t of_panel = k * s->in_k + v / VPP * s->n_cols * PANEL + v % VPP * VL;
            const vec g0 = load(f0 + at), g1 = load(f1 + at), g2 = load(f2 + at);
            const vec alpha = col_value ? load(s->in + of_panel) : all(0);
            const vec b = cy * load(tau + at);
            value += alpha * g0 + b * g1;
            store(coefficient(c, v, r, C), cx * (alpha * g1 + b * g2));
            store(coefficient(c, v, r, F), cxy * g1);
            if (both) {
                const vec t = cx * load(tau_back + at);
                store(coefficient(c, v, r, BACK), cy * (back * g1 + t * g2));
                if (col_value) {
                    real *to = s->col_out + of_panel;
                    store(to, load(to) + (back * g0 + t * g1));
                }
            }
        }
        values[r] = value;
    }
    if (row_value) add_rows(values, 1, s->sums + k * s->n_rows * s->sum_step, s->sum_step);
}

/* Dimensions a .. a + na - 1 of the gradients: rows sum C e + F q over columns, q their vectors,
 * and with `both` columns sum BACK e + F q over rows. */
INLINE void product_gradients(const strip *s, int dot, int has_q, int both, int na, ptrdiff_t a,
                              ptrdiff_t k, const real *c) {
    const ptrdiff_t d = s->d;
    const ptrdiff_t row_a = (s->call->side[0].parts & HAS_VALUE) + a;
    const ptrdiff_t col_a = (s->call->side[1].parts & HAS_VALUE) + a;
    vec sum[KD_ROWS * 2];
    real x[KD_ROWS][2], b[KD_ROWS][2];
    for (ptrdiff_t r = 0; r < KD_ROWS; r++)
        for (int e = 0; e < na; e++) {
            const ptrdiff_t at = (r * s->k + k) * s->n_rows + row_a + e;
            sum[r * na + e] = all(0);
            x[r][e] = s->x[r * d + a + e];
            b[r][e] = both ? s->row_in[at] : 0;
        }
    const real *y = s->y + a * PANEL, *q = s->in + k * s->in_k + col_a * PANEL;
    real *col = both ? s->col_out + k * s->in_k + col_a * PANEL : NULL;
    for (ptrdiff_t p = 0; p < s->np; p++) {
        for (int v = 0; v < VPP; v++) {
            vec ye[2], qe[2], ce[2];
            for (int e = 0; e < na; e++) {
                ye[e] = load(y + e * PANEL + v * VL);
                qe[e] = has_q ? load(q + e * PANEL + v * VL) : all(0);
                ce[e] = both ? load(col + e * PANEL + v * VL) : all(0);
            }
            for (int r = 0; r < KD_ROWS; r++) {
                const real *cr = c + (v * KD_ROWS + r) * N_COEFFICIENTS * VL;
                vec c0 = load(cr + C * VL), f = load(cr + F * VL);
                vec back = both ? load(cr + BACK * VL) : all(0);
                KEEP(c0);
                KEEP(f);
                if (both) KEEP(back);
                for (int e = 0; e < na; e++) {
                    const vec t = x[r][e] - ye[e];
                    sum[r * na + e] += c0 * (dot ? ye[e] : t);
                    if (has_q) sum[r * na + e] += f * qe[e];
                    if (both) ce[e] += back * (dot ? all(x[r][e]) : t);
                    if (both) ce[e] += f * b[r][e];
                }
            }
            if (both)
                for (int e = 0; e < na; e++) store(col + e * PANEL + v * VL, ce[e]);
        }
        c += VPP * KD_ROWS * N_COEFFICIENTS * VL;
        y += d * PANEL, q += s->n_cols * PANEL;
        if (both) col += s->n_cols * PANEL;
    }
    add_rows(sum, na, s->sums + (k * s->n_rows + row_a) * s->sum_step, s->sum_step);
}

/* Dimensions a0 .. a1 - 1 in blocks, at least one: all of them if they are few, or as many as stay
 * in the first-level cache for a strip. */
enum { FEW_D = 64, BLOCK_D = 16 };
#define KD_BLOCKS(d)                                                  \
    for (ptrdiff_t a0 = 0, step_ = (d) > FEW_D ? BLOCK_D : FEW_D, a1; \
         a1 = a0 + step_ < (d) ? a0 + step_ : (d), a0 < (d) || a0 == 0; a0 += step_)

/* The weights of the invariant are left out of the gradients: product_finish puts them in. */
INLINE void product_one(const strip *strips, int n_groups, int dot, int has_q, int both) {
    const strip *const end = strips + n_groups, *const s0 = strips;
    const ptrdiff_t n = KD_ROWS * s0->ld, row_a = s0->call->side[0].parts & HAS_VALUE;
    const ptrdiff_t col_a = s0->call->side[1].parts & HAS_VALUE;
    const int row_gradient = (s0->call->side[0].parts & HAS_GRADIENT) != 0;
    const real *w = s0->call->weights;
#define TAU(s) ((s)->room)
#define TAU_BACK(s) ((s)->room + n)
#define COEFFICIENTS(s) ((s)->room + 2 * n)
    for (ptrdiff_t k = 0; k < s0->k; k++) {
        if (!has_q)
            for (const strip *s = s0; s < end; s++) memset(TAU(s), 0, (size_t)n * sizeof(real));
        else if (k > 0 || dot) /* or else product_distances has been here */
            KD_BLOCKS (s0->d)
                for (const strip *s = s0; s < end; s++) {
                    const real *q = s->in + k * s->in_k + col_a * PANEL;
                    product_taus(s, dot, w, a0, a1, q, NULL, TAU(s));
                    if (both)
                        product_taus(s, dot, w, a0, a1, NULL, s->row_w + k * s->n_rows + row_a,
                                     TAU_BACK(s));
                }
        for (const strip *s = s0; s < end; s++) {
            if (s->overflow) clear_overflow(s, TAU(s), 0);
            if (s->overflow && both) clear_overflow(s, TAU_BACK(s), 0);
            product_coefficients(s, dot, both, k, TAU(s), TAU_BACK(s), COEFFICIENTS(s));
        }
        if (!row_gradient) continue;
        for (ptrdiff_t a = 0; a < s0->d; a += 2)
            for (const strip *s = s0; s < end; s++)
                if (a + 1 < s->d)
                    product_gradients(s, dot, has_q, both, 2, a, k, COEFFICIENTS(s));
                else
                    product_gradients(s, dot, has_q, both, 1, a, k, COEFFICIENTS(s));
    }
#undef TAU
#undef TAU_BACK
#undef COEFFICIENTS
}

static void product_sqdist(const strip *s, int n) { product_one(s, n, 0, 1, 0); }
static void product_sqdist_value(const strip *s, int n) { product_one(s, n, 0, 0, 0); }
static void product_sqdist_both(const strip *s, int n) { product_one(s, n, 0, 1, 1); }
static void product_dot(const strip *s, int n) { product_one(s, n, 1, 1, 0); }
static void product_dot_value(const strip *s, int n) { product_one(s, n, 1, 0, 0); }
static void product_dot_both(const strip *s, int n) { product_one(s, n, 1, 1, 1); }

/* ------------------------------------- Hessians of an expansion, for one squared distance --- */

/* Entries of a block, OUTER_A dimensions by OUTER_B: as many sums as registers hold.  Their sums
 * are added as vectors of SUMS. */
enum { OUTER_A = 3, OUTER_B = KD_VEC_BYTES == 64 ? 8 : 4 };
enum { SUMS = (int)VL < (int)OUTER_B ? (int)VL : (int)OUTER_B };
typedef real sums_u
    __attribute__((vector_size(SUMS * sizeof(real)), aligned(sizeof(real)), may_alias));

/* For each row, sums (a * d + b) += w_a w_b sum c e_a e_b over the strip's columns, e = y - x, for
 * na dimensions a and nb dimensions b from `a` and `b` on; adds zeros to up to OUTER_B - 1 numbers
 * that follow, as weights are padded with zeros.  Differences are formed anew for each block:
 * subtractions have units of their own, and differences that were stored would displace points from
 * the first-level cache. */
INLINE void outer_sums(const strip *s, const real *c, ptrdiff_t k, ptrdiff_t a, ptrdiff_t b, int na,
                       int nb) {
    const ptrdiff_t d = s->d;
    const real *w = s->call->weights;
    for (ptrdiff_t r = 0; r < KD_ROWS; r++) {
        const real *xa = s->x + r * d + a, *xb = s->x + r * d + b;
        const real *ya = s->y + a * PANEL, *yb = s->y + b * PANEL;
        vec sum[OUTER_A * OUTER_B];
#pragma GCC unroll 32
        for (int at = 0; at < OUTER_A * OUTER_B; at++) sum[at] = all(0);
        for (ptrdiff_t p = 0; p < s->np; p++, ya += d * PANEL, yb += d * PANEL)
            for (int v = 0; v < VPP; v++, c += VL) {
                vec t[OUTER_A];
                for (int i = 0; i < na; i++) {
                    t[i] = load(c) * (load(ya + i * PANEL + v * VL) - xa[i]);
                    KEEP(t[i]);
                }
                for (int j = 0; j < nb; j++) {
                    vec e = load(yb + j * PANEL + v * VL) - xb[j];
                    KEEP(e);
                    for (int i = 0; i < na; i++) sum[i * OUTER_B + j] += t[i] * e;
                }
            }
        real *sums = s->sums + r * s->sum_row + k * s->n_rows + a * d + b;
        /* Unrolled, or the sums would not be in registers. */
#pragma GCC unroll 32
        for (int at = 0; at < OUTER_A * OUTER_B; at += SUMS) {
            const int i = at / OUTER_B, j = at % OUTER_B;
            if (i >= na || j >= nb) continue;
            const vec folded = fold(sum + at, SUMS);
            const sums_u *wb = (const sums_u *)(w + b + j);
            sums_u found;
            memcpy(&found, &folded, sizeof(found));
            *(sums_u *)(sums + i * d + j) += (w[a + i] * *wb) * found;
        }
    }
}

/* The same with na and nb as constants, so that the sums stay in registers. */
static void outer_block(const strip *s, const real *c, ptrdiff_t k, ptrdiff_t a, ptrdiff_t b,
                        int na, int nb) {
    switch (nb + OUTER_B * na) {
#define KD_OUTER(na, nb)     \
    case nb + OUTER_B *(na): \
        outer_sums(s, c, k, a, b, na, nb);
        KD_OUTER(1, 1) break;
        KD_OUTER(2, 2) break;
        KD_OUTER(3, 2) break;
        KD_OUTER(3, 3) break;
        KD_OUTER(3, 4) break;
#if KD_VEC_BYTES == 64
        KD_OUTER(3, 5) break;
        KD_OUTER(3, 6) break;
        KD_OUTER(3, 7) break;
        KD_OUTER(3, 8) break;
#endif
#undef KD_OUTER
    }
}

/* sum = the unmixed second derivatives of row r, times alpha, lane by lane. */
static void sum_radial(const strip *s, ptrdiff_t k, ptrdiff_t r, vec *unmixed, vec *sum) {
    const ptrdiff_t d = s->d;
    for (ptrdiff_t a = 0; a < d; a++) sum[a] = all(0);
    for (ptrdiff_t at = 0; at < s->ld; at += VL) {
        const vec alpha = load(s->in + k * s->in_k + at);
        const vec_i good = lanes_of(s, r * s->ld + at);
        radial_diagonals(s, r * s->ld + at, s->x + r * d,
                         s->y + at / PANEL * d * PANEL + at % PANEL, unmixed);
        for (ptrdiff_t a = 0; a < d; a++) sum[a] += only(alpha * unmixed[a], good);
    }
}

/* sum alpha (4 F'' (w o e) (w o e)' + 2 F' diag(w)), of which entries a <= b count, and some
 * others are sums of nothing in particular: see product_finish. */
static void product_hessian(const strip *s) {
    const ptrdiff_t d = s->d;
    const real *w = s->call->weights, *f1 = strip_jet(s, 1), *f2 = strip_jet(s, 2);
    const int radial = s->call->prog->radial != NULL;
    real *c = s->room;
    /* Where there is a radial derivative, entries on the diagonal are summed apart, and kept while
     * the others are. */
    vec *unmixed = (vec *)(c + KD_ROWS * s->ld), *sum = unmixed + 2 * d;
    real *kept = (real *)(sum + d);
    for (ptrdiff_t k = 0; k < s->k; k++) {
        for (ptrdiff_t r = 0; r < KD_ROWS; r++) {
            real *sums = s->sums + k * s->n_rows + r * s->sum_row;
            vec trace = all(0);
            for (ptrdiff_t at = 0; at < s->ld; at += VL) {
                const ptrdiff_t of_row = r * s->ld + at;
                const vec alpha = load(s->in + k * s->in_k + at);
                store(c + of_row, 4 * (alpha * load(f2 + of_row)));
                trace += 2 * (alpha * load(f1 + of_row));
            }
            const real total = fold(&trace, 1)[0];
            if (radial) sum_radial(s, k, r, unmixed, sum);
            for (ptrdiff_t a = 0; a < d; a++)
                if (radial)
                    kept[r * d + a] = sums[a * (d + 1)] + fold(sum + a, 1)[0];
                else
                    sums[a * (d + 1)] += w[a] * total;
        }
        for (ptrdiff_t a = 0; a < d; a += OUTER_A) {
            const int na = (int)(d - a < OUTER_A ? d - a : OUTER_A);
            /* Blocks of about the same size, as small ones wait for their sums. */
            const int blocks = (int)(d - a + OUTER_B - 1) / OUTER_B;
            const int nb = (int)(d - a) / blocks, more = (int)(d - a) % blocks;
            ptrdiff_t b = a;
            for (int q = 0; q < blocks; b += nb + (q < more), q++)
                outer_block(s, c, k, a, b, na, nb + (q < more));
        }
        for (ptrdiff_t at = 0; at < (radial ? KD_ROWS * d : 0); at++)
            s->sums[k * s->n_rows + at / d * s->sum_row + at % d * (d + 1)] = kept[at];
    }
}

/* ------------------------------------------------------------------------- general case --- */

/* One row against VL columns, or (back) the other way round; any functionals and invariants. */
typedef struct {
    const real *in; /* components of a vector, in_step apart */
    real *out;      /* sums, likewise */
    ptrdiff_t in_step, out_step;
    const vec *ui, *uo; /* gradients of the invariants, (m, d), on the side of in and of out */
    const vec *f;       /* all jets */
    const double *sii, *soo, *sxy; /* second derivatives of the invariants, times the weights */
    const vec *radial; /* (m, d), unmixed second derivatives of all that have a radial one; NULL */
    int32_t in_parts, out_parts;
    vec_i good; /* lanes that have not overflowed */
} general;

static void general_product(const kd_product *call, const general *g, vec *room) {
    const ptrdiff_t d = call->d, m = call->prog->n_inv, dp = padded(d);
    const vec *f = g->f, *f1 = f + 1, *f2 = f + jet_base(2, m), *f3 = f + jet_base(3, m);
    const vec *f4 = f + jet_base(4, m);
    vec *p = room, *t = p + m * d, *b = t + m * d, *q = b + m, *c = q + m * m;
    vec *h = c + m;
#define W(n, a) (((const real *)call->weights)[(n) * dp + (a)])
#define SXY(n) ((real)g->sxy[n])
    const int value = g->in_parts & HAS_VALUE, gradient = g->in_parts & HAS_GRADIENT;
    const int hessian = g->in_parts & HAS_HESSIAN;
    const real *beta = g->in + value * g->in_step;
    const real *gamma = beta + (gradient ? d : 0) * g->in_step;
#define BETA(a) (*(const vec *)(beta + (a) * g->in_step))
#define GAMMA(a, e)                                                      \
    ((real)0.5 * (*(const vec *)(gamma + ((a) * d + (e)) * g->in_step) + \
                  *(const vec *)(gamma + ((e) * d + (a)) * g->in_step)))
    const vec alpha = value ? load(g->in) : all(0);
    /* Unmixed second derivatives that g->radial has, and what they are multiplied by.  Programs
     * that have them are of order 2: of a Hessian's product, there is no more than a value. */
#define RADIAL(n) (g->radial && call->prog->radial[n] >= 0)
    vec unmixed = all(0);
    for (ptrdiff_t n = 0; n < m; n++) {
        b[n] = all(0);
        if (gradient)
            for (ptrdiff_t a = 0; a < d; a++) b[n] += g->ui[n * d + a] * BETA(a);
        for (ptrdiff_t a = 0; a < (hessian ? d : 0); a++)
            if (RADIAL(n))
                unmixed += g->radial[n * d + a] * GAMMA(a, a);
            else
                b[n] += ((real)g->sii[n] * W(n, a)) * GAMMA(a, a);
    }
    if (hessian)
        for (ptrdiff_t n = 0; n < m; n++)
            for (ptrdiff_t a = 0; a < d; a++) {
                vec sum = all(0);
                for (ptrdiff_t e = 0; e < d; e++) sum += GAMMA(a, e) * g->ui[n * d + e];
                p[n * d + a] = sum;
            }
    for (ptrdiff_t n = 0; n < m * m; n++) {
        q[n] = all(0);
        if (hessian && n / m == n % m && RADIAL(n / m)) {
            const vec *u = g->ui + n / m * d;
            for (ptrdiff_t a = 0; a < d; a++)
                for (ptrdiff_t e = 0; e < a; e++) q[n] += (2 * u[a]) * (u[e] * GAMMA(a, e));
        } else if (hessian)
            for (ptrdiff_t a = 0; a < d; a++) q[n] += g->ui[n / m * d + a] * p[n % m * d + a];
    }
    /* g, or a derivative of it by invariants whose jets are at f: the vector's part in it. */
#define APPLY(h0, h1, h2)                                                 \
    ({                                                                    \
        vec sum_ = alpha * (h0);                                          \
        if (gradient || hessian)                                          \
            for (ptrdiff_t n = 0; n < m; n++) sum_ += (h1)[n] * b[n];     \
        if (hessian)                                                      \
            for (ptrdiff_t n = 0; n < m * m; n++) sum_ += (h2)[n] * q[n]; \
        sum_;                                                             \
    })
    real *out = g->out;
    if (g->out_parts & HAS_VALUE) {
        store(out, load(out) + only(APPLY(f[0], f1, f2) + unmixed, g->good));
        out += g->out_step;
    }
    if (!(g->out_parts & (HAS_GRADIENT | HAS_HESSIAN))) return;
    for (ptrdiff_t l = 0; l < m; l++) c[l] = APPLY(f1[l], f2 + l * m, f3 + l * m * m);
    if (g->out_parts & HAS_GRADIENT)
        for (ptrdiff_t a = 0; a < d; a++, out += g->out_step) {
            vec sum = all(0);
            for (ptrdiff_t l = 0; l < m; l++) {
                vec z = all(0);
                if (gradient) z += f1[l] * BETA(a);
                if (hessian)
                    for (ptrdiff_t n = 0; n < m; n++) z += 2 * (f2[l * m + n] * p[n * d + a]);
                sum += g->uo[l * d + a] * c[l] + (SXY(l) * W(l, a)) * z;
            }
            store(out, load(out) + only(sum, g->good));
        }
    if (!(g->out_parts & HAS_HESSIAN)) return;
    /* t_l = d/da_l of sum_n sxy_n w_n o (F_n beta + 2 sum_k F_nk p_k) */
    for (ptrdiff_t l = 0; l < m; l++)
        for (ptrdiff_t a = 0; a < d; a++) {
            vec sum = all(0);
            for (ptrdiff_t n = 0; n < m; n++) {
                vec z = all(0);
                if (gradient) z += f2[l * m + n] * BETA(a);
                if (hessian)
                    for (ptrdiff_t k = 0; k < m; k++)
                        z += 2 * (f3[(l * m + n) * m + k] * p[k * d + a]);
                sum += (SXY(n) * W(n, a)) * z;
            }
            t[l * d + a] = sum;
        }
    for (ptrdiff_t l = 0; l < m * m; l++) h[l] = APPLY(f2[l], f3 + l * m, f4 + l * m * m);
    for (ptrdiff_t a = 0; a < d; a++)
        for (ptrdiff_t e = 0; e < d; e++, out += g->out_step) {
            vec sum = all(0);
            for (ptrdiff_t l = 0; l < m; l++) {
                const vec *uo = g->uo + l * d;
                sum += uo[a] * t[l * d + e] + t[l * d + a] * uo[e];
                const int radial = a == e && RADIAL(l);
                if (radial)
                    sum += alpha * g->radial[l * d + a];
                else if (a == e)
                    sum += ((real)g->soo[l] * W(l, a)) * c[l];
                for (ptrdiff_t k = 0; k < m; k++) {
                    if (!radial || k != l) sum += (uo[a] * h[l * m + k]) * g->uo[k * d + e];
                    if (hessian)
                        sum += (2 * SXY(l) * SXY(k) * W(l, a) * W(k, e)) *
                               (f2[l * m + k] * GAMMA(a, e));
                }
            }
            store(out, load(out) + only(sum, g->good));
        }
#undef APPLY
#undef RADIAL
#undef GAMMA
#undef BETA
#undef SXY
#undef W
}

/* Gradients of all invariants with respect to x and to y, for one row and VL columns. */
static void gradients_of_invariants(const kd_product *call, const real *x, const real *u,
                                    const real *y, const real *v, vec *ux, vec *uy) {
    const ptrdiff_t d = call->d, m = call->prog->n_inv, dp = padded(d);
    for (ptrdiff_t l = 0; l < m; l++) {
        const double *p = call->prog->inv[l].left, *q = call->prog->inv[l].right;
        const real *w = (const real *)call->weights + l * dp;
        for (int side = 0; side < 2; side++) {
            const double pl = side ? p[KD_Y] : p[KD_X], ql = side ? q[KD_Y] : q[KD_X];
            real c[4];
            for (int e = 0; e < 4; e++) c[e] = (real)(pl * q[e] + ql * p[e]);
            vec *to = (side ? uy : ux) + l * d;
            for (ptrdiff_t a = 0; a < d; a++) {
                vec sum = c[KD_X] * x[a] + c[KD_Y] * load(y + a * PANEL);
                if (c[KD_U] != 0) sum += c[KD_U] * u[a];
                if (c[KD_V] != 0) sum += c[KD_V] * load(v + a * PANEL);
                to[a] = w[a] * sum;
            }
        }
    }
}

/* Second derivatives of the invariants, which are these times the weights: xx, xy, yy. */
static void second_of_invariants(const kd_program *prog, double *second) {
    for (int32_t l = 0; l < prog->n_inv; l++) {
        const double *p = prog->inv[l].left, *q = prog->inv[l].right;
        second[l] = 2 * p[KD_X] * q[KD_X];
        second[KD_MAX_INV + l] = p[KD_X] * q[KD_Y] + p[KD_Y] * q[KD_X];
        second[2 * KD_MAX_INV + l] = 2 * p[KD_Y] * q[KD_Y];
    }
}

static void product_general(const strip *s, int both) {
    const ptrdiff_t d = s->d, m = s->m, n_jets = jet_base(s->call->prog->order + 1, m);
    vec *ux = (vec *)s->room, *uy = ux + m * d, *f = uy + m * d, *row = f + n_jets;
    vec *sums = row + s->n_rows, *radial = sums + s->k * s->n_rows;
    vec *room = radial + (s->call->prog->radial ? (m + 1) * d : 0);
    double second[3 * KD_MAX_INV];
    second_of_invariants(s->call->prog, second);
    for (ptrdiff_t r = 0; r < KD_ROWS; r++) {
        for (ptrdiff_t e = 0; e < s->k * s->n_rows; e++) sums[e] = all(0);
        for (ptrdiff_t at = 0; at < s->ld; at += VL) {
            const ptrdiff_t p = at / PANEL, lane = at % PANEL;
            const ptrdiff_t point = p * d * PANEL + lane, of_panel = p * s->n_cols * PANEL + lane;
            gradients_of_invariants(s->call, s->x + r * d, s->u + r * d, s->y + point, s->v + point,
                                    ux, uy);
            for (ptrdiff_t q = 0; q < n_jets; q++) f[q] = load(strip_jet(s, q) + r * s->ld + at);
            general g = {.f = f, .sxy = second + KD_MAX_INV, .good = lanes_of(s, r * s->ld + at)};
            if (s->call->prog->radial) {
                radial_diagonals(s, r * s->ld + at, s->x + r * d, s->y + point, radial);
                g.radial = radial;
            }
            for (ptrdiff_t k = 0; k < s->k; k++) {
                const ptrdiff_t at_row = (r * s->k + k) * s->n_rows;
                g.in = s->in + k * s->in_k + of_panel, g.in_step = PANEL;
                g.out = (real *)(sums + k * s->n_rows), g.out_step = VL;
                g.ui = uy, g.uo = ux, g.sii = second + 2 * KD_MAX_INV, g.soo = second;
                g.in_parts = s->call->side[1].parts, g.out_parts = s->call->side[0].parts;
                general_product(s->call, &g, room);
                if (!both) continue;
                for (ptrdiff_t e = 0; e < s->n_rows; e++) row[e] = all(s->row_in[at_row + e]);
                g.in = (const real *)row, g.in_step = VL;
                g.out = s->col_out + k * s->in_k + of_panel, g.out_step = PANEL;
                g.ui = ux, g.uo = uy, g.sii = second, g.soo = second + 2 * KD_MAX_INV;
                g.in_parts = s->call->side[0].parts, g.out_parts = s->call->side[1].parts;
                general_product(s->call, &g, room);
            }
        }
        for (ptrdiff_t e = 0; e < s->k * s->n_rows; e++)
            s->sums[e * s->sum_step + r * s->sum_row] += fold(sums + e, 1)[0];
    }
}

/* The dimensions of component c of a functional; returns how many there are. */
static int component_dims(int32_t parts, ptrdiff_t d, ptrdiff_t c, ptrdiff_t *dims) {
    if ((parts & HAS_VALUE) && c-- == 0) return 0;
    if (parts & HAS_GRADIENT) {
        if (c < d) return dims[0] = c, 1;
        c -= d;
    }
    dims[0] = c / d, dims[1] = c % d;
    return 2;
}

/* Whether entry (r, c) of a pair's block does not exist. */
static int entry_missing(const kd_rough *q, const int32_t *parts, ptrdiff_t d, ptrdiff_t r,
                         ptrdiff_t c) {
    ptrdiff_t dims[4] = {0};
    int order = component_dims(parts[0], d, r, dims);
    order += component_dims(parts[1], d, c, dims + order);
    return does_not_exist(q, order, dims[0], dims[1], dims[2], dims[3]);
}

/* Sums with a part that does not exist are NaN, whatever it is multiplied by. */
static void product_missing(const strip *s, int both) {
    const int32_t parts[2] = {s->call->side[0].parts, s->call->side[1].parts};
    for (int32_t e = 0; e < s->call->n_rough; e++) {
        const kd_rough *q = &s->call->rough[e];
        const real *inv = s->bufs + q->inv * s->stride;
        for (ptrdiff_t r = 0; r < KD_ROWS; r++)
            for (ptrdiff_t at = 0; at < s->ld; at++) {
                if (inv[r * s->ld + at] != 0) continue;
                if (s->call->total && s->i + r == s->j + at) continue;
                if (s->j + at >= s->call->side[1].n) continue; /* padding, its point twice */
                for (ptrdiff_t a = 0; a < s->n_rows; a++)
                    for (ptrdiff_t c = 0; c < s->n_cols; c++) {
                        if (!entry_missing(q, parts, s->d, a, c)) continue;
                        for (ptrdiff_t k = 0; k < s->k; k++) {
                            s->sums[(k * s->n_rows + a) * s->sum_step + r * s->sum_row] = (real)NAN;
                            if (both)
                                s->col_out[k * s->in_k + (at / PANEL * s->n_cols + c) * PANEL +
                                           at % PANEL] = (real)NAN;
                        }
                    }
            }
    }
}

/* ---------------------------------------------------------------------------------- walk --- */

typedef void strip_product(const strip *strips, int n_groups);

#define KD_FOR_GROUPS(name, call)                                \
    static void name(const strip *strips, int n) {               \
        for (const strip *s = strips; s < strips + n; s++) call; \
    }
KD_FOR_GROUPS(product_value, product_values(s, 0))
KD_FOR_GROUPS(product_value_both, product_values(s, 1))
KD_FOR_GROUPS(product_hessians, product_hessian(s))
KD_FOR_GROUPS(product_any, product_general(s, 0))
KD_FOR_GROUPS(product_any_both, product_general(s, 1))

/* What multiplies a strip.  All that is not the general case is for one invariant, or none. */
static strip_product *choose_product(const kd_product *c, int both) {
    const int32_t rows = c->side[0].parts, cols = c->side[1].parts;
    const kd_invariant *inv = c->prog->inv;
    const int dot = inv->kind == KD_DOT, hessian = (rows | cols) & HAS_HESSIAN;
    if (rows == HAS_VALUE && cols == HAS_VALUE) return both ? product_value_both : product_value;
    if (c->prog->n_inv > 1 || inv->kind == KD_BILINEAR)
        return both ? product_any_both : product_any;
    if (both) {
        if (rows == cols && !hessian) return dot ? product_dot_both : product_sqdist_both;
        return product_any_both;
    }
    if (rows == HAS_HESSIAN && cols == HAS_VALUE && !dot) return product_hessians;
    if (hessian) return product_any;
    if (cols & HAS_GRADIENT) return dot ? product_dot : product_sqdist;
    return dot ? product_dot_value : product_sqdist_value;
}

/* Which of them leave the weights to product_finish. */
static int unweighted(strip_product *f) {
    return f != product_value && f != product_value_both && f != product_any &&
           f != product_any_both && f != product_hessians;
}

/* Elements of workspace for the buffers and the multiplication of a group. */
static ptrdiff_t group_room(const kd_product *c) {
    const ptrdiff_t d = c->d, m = c->prog->n_inv, cols = product_columns(c);
    const ptrdiff_t n_rows = components(c->side[0].parts, d);
    const ptrdiff_t n_jets = jet_base(c->prog->order + 1, m);
    const ptrdiff_t radial = c->prog->radial ? (VL * (m + 2) + KD_ROWS) * d : 0;
    const ptrdiff_t of_general =
        radial + VL * (4 * m * d + n_jets + (1 + c->k) * n_rows + 2 * m + 2 * m * m);
    const ptrdiff_t of_one = radial + (2 + N_COEFFICIENTS) * KD_ROWS * cols;
    const ptrdiff_t room = of_general > of_one ? of_general : of_one;
    return c->prog->n_buf * KD_ROWS * cols + (room + PAD) / PAD * PAD;
}

static size_t product_work_bytes(const kd_product *c) {
    const ptrdiff_t per_row = c->k * components(c->side[0].parts, c->d);
    return sizeof(real) *
           (size_t)(KD_ROWS * product_columns(c) + product_rows(c) * (2 * c->d + 3 * per_row) +
                    product_groups(c) * group_room(c) + 4 * PAD);
}

/* Points (or vectors) of KD_ROWS rows, out of a panel. */
static void rows_of(const real *panels, ptrdiff_t i, ptrdiff_t size, real *rows, ptrdiff_t step) {
    const real *p = panels + i / PANEL * size * PANEL + i % PANEL;
    for (ptrdiff_t a = 0; a < size; a++)
        for (int r = 0; r < KD_ROWS; r++) rows[r * step + a] = p[a * PANEL + r];
}

/* The invariants of a strip. */
static void strip_invariants(const kd_program *prog, const real *weights, ptrdiff_t d,
                             const real *x, const real *u, const real *y, const real *v,
                             ptrdiff_t np, real *bufs, ptrdiff_t stride) {
    const ptrdiff_t dp = padded(d), ld = np * PANEL;
    const real *xr[KD_ROWS], *ur[KD_ROWS];
    for (int r = 0; r < KD_ROWS; r++) xr[r] = x + r * d, ur[r] = u + r * d;
    for (ptrdiff_t l = 0; l < prog->n_inv; l++)
        invariant_of(&prog->inv[l], xr, ur, y, v, np, d, weights + l * dp, bufs + l * stride, ld);
}

/* Whether a squared distance of a strip has overflowed. */
static int strip_overflows(const strip *s) {
    const real limit = sizeof(real) == 8 ? (real)DBL_MAX : (real)FLT_MAX;
    vec_i any = {0};
    for (ptrdiff_t l = 0; l < s->m; l++)
        if (s->call->prog->inv[l].kind == KD_SQDIST)
            for (ptrdiff_t i = 0; i < KD_ROWS * s->ld; i += 2 * VL) {
                const real *inv = s->bufs + l * s->stride + i;
                any |= (load(inv) > limit) | (load(inv + VL) > limit);
            }
    int found = 0;
    for (int l = 0; l < VL; l++) found |= any[l] != 0;
    return found;
}

/* Adds the sums of n rows to panels of size components, for k right-hand sides that are out_k
 * apart. */
static void flush_sums(const real *sums, ptrdiff_t step, ptrdiff_t row, ptrdiff_t i0, ptrdiff_t n,
                       ptrdiff_t k, ptrdiff_t size, real *out, ptrdiff_t out_k) {
    for (ptrdiff_t e = 0; e < k; e++)
        for (ptrdiff_t i = i0; i < i0 + n; i += KD_ROWS)
            for (ptrdiff_t a = 0; a < size; a++) {
                real *to = out + e * out_k + (i / PANEL * size + a) * PANEL + i % PANEL;
                for (int r = 0; r < KD_ROWS; r++)
                    to[r] += sums[(e * size + a) * step + (i - i0 + r) * row];
            }
}

static void product(const kd_product *c, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t j0, ptrdiff_t j1,
                    int both, void *out, void *work) {
    const kd_program *prog = c->prog;
    const ptrdiff_t d = c->d, m = prog->n_inv, cols = product_columns(c), block = product_rows(c);
    const ptrdiff_t n_rows = components(c->side[0].parts, d);
    const ptrdiff_t n_cols = components(c->side[1].parts, d), per_row = c->k * n_rows;
    const ptrdiff_t row_k = (c->side[0].n + PANEL - 1) / PANEL * PANEL * n_rows;
    strip_product *const multiply = choose_product(c, both);
    const int fused = multiply == product_sqdist || multiply == product_sqdist_both;
    strip s = {.call = c, .d = d, .m = m, .k = c->k, .n_rows = n_rows, .n_cols = n_cols};
    const ptrdiff_t stride = s.stride = KD_ROWS * cols, most = KD_ROWS * product_groups(c);
    s.in_k = (c->side[1].n + PANEL - 1) / PANEL * PANEL * n_cols;
    real *zeros = work, *sums = zeros + stride;
    real *x = sums + block * per_row;
    real *u = x + (block * (d + per_row) + PAD) / PAD * PAD, *row_in = x + block * d;
    real *row_w = u + block * d;
    real *of_groups = u + (block * (d + per_row) + PAD) / PAD * PAD;
    memset(zeros, 0, (size_t)stride * sizeof(real));
    s.zeros = zeros;
    /* Neighbours are what is added to at once: rows, but the components of Hessians. */
    const int by_row = (c->side[0].parts & HAS_HESSIAN) != 0;
    s.sum_step = by_row ? 1 : block, s.sum_row = by_row ? per_row : 1;
    strip groups[GROUPS];
    const ptrdiff_t n_jets = jet_base(prog->order + 1, m);
    for (ptrdiff_t ib = i0; ib < i1; ib += block) {
        const ptrdiff_t ie = ib + block < i1 ? ib + block : i1;
        memset(sums, 0, (size_t)(block * per_row) * sizeof(real));
        for (ptrdiff_t i = ib, r = 0; i < ie; i += KD_ROWS, r += KD_ROWS) {
            rows_of(c->side[0].points, i, d, x + r * d, d);
            rows_of(c->side[0].directions, i, d, u + r * d, d);
            for (ptrdiff_t k = 0; k < c->k && both; k++)
                rows_of((const real *)c->side[0].in + k * row_k, i, n_rows,
                        row_in + r * per_row + k * n_rows, per_row);
        }
        if (both && (c->side[0].parts & HAS_GRADIENT))
            for (ptrdiff_t r = 0; r < ie - ib; r++)
                for (ptrdiff_t k = 0; k < c->k; k++)
                    for (ptrdiff_t a = 0; a < d; a++) {
                        const ptrdiff_t at = r * per_row + (k + 1) * n_rows - d + a;
                        row_w[at] = row_in[at] * ((const real *)c->weights)[a];
                    }
        for (ptrdiff_t jb = j0; jb < j1; jb += cols) {
            const ptrdiff_t je = jb + cols < j1 ? jb + cols : j1;
            s.np = (je - jb + PANEL - 1) / PANEL, s.ld = s.np * PANEL, s.j = jb;
            s.y = (const real *)c->side[1].points + jb * d;
            s.v = (const real *)c->side[1].directions + jb * d;
            s.in = (const real *)c->side[1].in + jb * n_cols;
            if (both) s.col_out = (real *)c->side[1].out + jb * n_cols;
            for (ptrdiff_t i = ib; i < ie; i += most) {
                int n = 0;
                for (ptrdiff_t r = i - ib; r < ie - ib && n < most / KD_ROWS; r += KD_ROWS, n++) {
                    strip *g = &groups[n];
                    *g = s;
                    real *bufs = of_groups + n * group_room(c);
                    g->i = ib + r, g->bufs = bufs, g->room = bufs + prog->n_buf * stride;
                    g->x = x + r * d, g->u = u + r * d, g->sums = sums + r * s.sum_row;
                    g->row_in = row_in + r * per_row, g->row_w = row_w + r * per_row;
                    if (!fused)
                        strip_invariants(prog, c->weights, d, g->x, g->u, s.y, s.v, s.np, bufs,
                                         stride);
                }
                if (fused)
                    KD_BLOCKS (d)
                        for (int g = 0; g < n; g++) product_distances(&groups[g], both, a0, a1);
                for (int g = 0; g < n; g++) {
                    run_program(prog, (real *)groups[g].bufs, stride, KD_ROWS * s.ld);
                    groups[g].overflow = strip_overflows(&groups[g]);
                    for (ptrdiff_t q = 0; q < n_jets && groups[g].overflow; q++)
                        clear_overflow(&groups[g], (real *)strip_jet(&groups[g], q), 1);
                }
                multiply(groups, n);
                for (int g = 0; g < n && c->n_rough; g++) product_missing(&groups[g], both);
            }
        }
        flush_sums(sums, s.sum_step, s.sum_row, ib, ie - ib, c->k, n_rows, out, row_k);
    }
}

/* Ends a product with what its sums have left out: the weights of gradients, and the entries of
 * Hessians below the diagonal.  For panels p0 .. p1 - 1 of one side. */
static void product_finish(const kd_product *c, int side, int both, ptrdiff_t p0, ptrdiff_t p1) {
    const int32_t parts = c->side[side].parts;
    const ptrdiff_t d = c->d, size = components(parts, d);
    const ptrdiff_t step = (c->side[side].n + PANEL - 1) / PANEL * PANEL * size;
    strip_product *const multiply = choose_product(c, both);
    const int weigh = unweighted(multiply) && (parts & HAS_GRADIENT);
    const int mirror = multiply == product_hessians;
    const real *w = c->weights;
    for (ptrdiff_t k = 0; k < c->k && (weigh || mirror); k++)
        for (ptrdiff_t p = p0; p < p1; p++) {
            real *out = (real *)c->side[side].out + k * step + p * size * PANEL;
            if (weigh) {
                real *gradient = out + (parts & HAS_VALUE) * PANEL;
                for (ptrdiff_t a = 0; a < d; a++)
                    for (ptrdiff_t l = 0; l < PANEL; l++) gradient[a * PANEL + l] *= w[a];
            } else
                for (ptrdiff_t a = 0; a < d; a++)
                    for (ptrdiff_t b = 0; b < a; b++)
                        memcpy(out + (a * d + b) * PANEL, out + (b * d + a) * PANEL,
                               PANEL * sizeof(real));
        }
}
