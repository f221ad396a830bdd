/* Contractions of derivatives of a covariance: part of tile.c.
 *
 *     sum_ij sum_rc W_ir,jc dC_ir,jc / d(hyperparameter, or coordinate of x_i)
 *
 * For functionals of values and gradients, a pair's block of W meets the kernel in a few numbers
 *
 *     sum_rc W_rc C_rc = M F + sum_l M_l F_l + sum_ln M_ln F_ln
 *     M = W_00,   M_l = W_0y . U_l + W_x0 . T_l + sum_a a_l,xy W_aa,   M_ln = T_l' W_xy U_n
 *
 * with T_l = grad_x a_l and U_l = grad_y a_l, so that a kernel's derivative by a hyperparameter
 * costs another table of jets (a head), and no more.  A length scale of its own for each dimension
 * has dk/d log l_a = -2 q_a G with q_a = w_a (x_a - y_a)^2 and a kernel G that is the same for all
 * of them: one head with d results.  Lanes are columns, as in products. */

/* What W says of row point i and the columns j ... j + VL - 1: block[r * n_cols + c]. */
static void read_weights(const kd_contraction *c, ptrdiff_t i, ptrdiff_t j, ptrdiff_t n_rows,
                         ptrdiff_t n_cols, vec *block) {
    if (!c->w) {
        const ptrdiff_t uk = (c->side[0].n + PANEL - 1) / PANEL * PANEL * n_rows;
        const ptrdiff_t vk = (c->side[1].n + PANEL - 1) / PANEL * PANEL * n_cols;
        const real *u = (const real *)c->side[0].in + i / PANEL * PANEL * n_rows + i % PANEL;
        const real *v = (const real *)c->side[1].in + j / PANEL * PANEL * n_cols + j % PANEL;
        for (ptrdiff_t r = 0; r < n_rows; r++)
            for (ptrdiff_t e = 0; e < n_cols; e++) {
                vec sum = all(0);
                for (ptrdiff_t k = 0; k < c->k; k++)
                    sum += u[k * uk + r * PANEL] * load(v + k * vk + e * PANEL);
                block[r * n_cols + e] = sum;
            }
        return;
    }
    const real *w = c->w;
    real *lanes = (real *)block;
    /* Of a symmetric matrix the lower triangle is read; other than where a point meets itself, all
     * entries are in one triangle. */
    const int64_t p0 = c->row_start + i * n_rows, q0 = c->col_start + j * n_cols;
    const int above = c->triangle && q0 >= p0 + n_rows;
    const int one_triangle = !c->triangle || above || q0 + VL * n_cols <= p0 + 1;
    if (!c->row_at && one_triangle && j + VL <= c->side[1].n) {
        const ptrdiff_t step = above ? c->row_step : c->col_step;
        for (ptrdiff_t r = 0; r < n_rows; r++) {
            const real *from =
                w + (above ? q0 : p0 + r) * c->row_step + (above ? p0 + r : q0) * c->col_step;
            real *to = lanes + r * n_cols * VL;
            if (step == 1)
                for (ptrdiff_t e = 0; e < n_cols; e++)
                    for (int l = 0; l < VL; l++) to[e * VL + l] = from[l * n_cols + e];
            else
                for (ptrdiff_t e = 0; e < n_cols; e++)
                    for (int l = 0; l < VL; l++) to[e * VL + l] = from[(l * n_cols + e) * step];
        }
        return;
    }
    for (ptrdiff_t r = 0; r < n_rows; r++)
        for (int l = 0; l < VL; l++)
            for (ptrdiff_t e = 0; e < n_cols; e++) {
                int64_t p = p0 + r, q = q0 + l * n_cols + e;
                if (c->row_at) {
                    p = c->row_at[i * n_rows + r];
                    q = c->col_at[(j + l) * n_cols + e];
                } else if (j + l >= c->side[1].n)
                    q = -1;
                const int swap = c->triangle && q > p;
                const int64_t at = (swap ? q : p) * c->row_step + (swap ? p : q) * c->col_step;
                lanes[(r * n_cols + e) * VL + l] = p < 0 || q < 0 ? 0 : w[at];
            }
}

/* Their block of W, of values and gradients: a directional derivative's number becomes a multiple
 * of the direction. */
static void load_weights(const kd_contraction *c, ptrdiff_t i, ptrdiff_t j, const real *u,
                         const real *v, vec *block) {
    const ptrdiff_t n_rows = components(c->side[0].parts, c->d);
    const ptrdiff_t n_cols = components(c->side[1].parts, c->d);
    const int by_u = c->side[0].directional, by_v = c->side[1].directional;
    if (!by_u && !by_v) {
        read_weights(c, i, j, n_rows, n_cols, block);
        return;
    }
    const ptrdiff_t small_rows = by_u ? 1 : n_rows, small_cols = by_v ? 1 : n_cols;
    vec *small = block + n_rows * n_cols;
    read_weights(c, i, j, small_rows, small_cols, small);
    for (ptrdiff_t r = 0; r < n_rows; r++)
        for (ptrdiff_t e = 0; e < n_cols; e++) {
            vec w = small[(by_u ? 0 : r) * small_cols + (by_v ? 0 : e)];
            if (by_u) w *= u[r];
            if (by_v) w *= load(v + e * PANEL);
            block[r * n_cols + e] = w;
        }
}

/* What is known of a pair, besides W. */
typedef struct {
    ptrdiff_t d, m;
    int row_value, col_value, row_gradient, col_gradient;
    const vec *w; /* the block, in rows of n_cols */
    ptrdiff_t n_cols;
    const vec *ux, *uy; /* (m, d) */
    vec *wu, *wt;       /* W_xy U_l and W_xy' T_l, (m, d) */
    vec *moments;       /* M, M_l, M_ln */
    const double *second;
} pair;

INLINE vec block_at(const pair *p, ptrdiff_t r, ptrdiff_t c) { return p->w[r * p->n_cols + c]; }

#define W(l, a) (((const real *)call->weights)[(l) * dp + (a)])
#define SECOND(which, l) ((real)p->second[(which) * KD_MAX_INV + (l)])

static void moments_of(const kd_contraction *call, const pair *p) {
    const ptrdiff_t d = p->d, m = p->m, dp = padded(d), gr = p->row_value, gc = p->col_value;
    vec *first = p->moments + 1, *other = first + m;
    const int both = p->row_gradient && p->col_gradient;
    p->moments[0] = gr && gc ? block_at(p, 0, 0) : all(0);
    for (ptrdiff_t l = 0; l < m; l++) {
        vec sum = all(0);
        for (ptrdiff_t a = 0; a < d; a++) {
            vec wu = all(0), wt = all(0);
            if (gr && p->col_gradient) sum += block_at(p, 0, gc + a) * p->uy[l * d + a];
            if (gc && p->row_gradient) sum += block_at(p, gr + a, 0) * p->ux[l * d + a];
            if (both) {
                sum += (SECOND(KD_XY, l) * W(l, a)) * block_at(p, gr + a, gc + a);
                for (ptrdiff_t b = 0; b < d; b++) {
                    wu += block_at(p, gr + a, gc + b) * p->uy[l * d + b];
                    wt += block_at(p, gr + b, gc + a) * p->ux[l * d + b];
                }
            }
            p->wu[l * d + a] = wu;
            p->wt[l * d + a] = wt;
        }
        first[l] = sum;
    }
    for (ptrdiff_t l = 0; l < m * m; l++) {
        vec sum = all(0);
        if (both)
            for (ptrdiff_t a = 0; a < d; a++) sum += p->ux[l / m * d + a] * p->wu[l % m * d + a];
        other[l] = sum;
    }
}

/* M F + sum M_l F_l + sum M_ln F_ln, for the jets (or derivatives of them) at f0, f1, f2. */
INLINE vec contract_jets(const pair *p, vec f0, const vec *f1, const vec *f2) {
    const ptrdiff_t m = p->m;
    const vec *first = p->moments + 1, *other = first + m;
    vec sum = p->moments[0] * f0;
    if (p->row_gradient || p->col_gradient)
        for (ptrdiff_t l = 0; l < m; l++) sum += first[l] * f1[l];
    if (p->row_gradient && p->col_gradient)
        for (ptrdiff_t l = 0; l < m * m; l++) sum += other[l] * f2[l];
    return sum;
}

/* A head with d results: -2 d(q_a G), see above; with h_a = dq_a/dx_a = 2 w_a e_a,
 *     q_a (M G + ...) + h_a (G (W_a0 - W_0a) + (W_xy grad_y G)_a - (W_xy' grad_x G)_a)
 *     - 2 w_a G W_aa. */
static void contract_dimensions(const pair *p, const vec *f, const real *w, const real *x,
                                const real *y, vec_i good, vec factor, vec *sums) {
    const ptrdiff_t d = p->d, m = p->m, gr = p->row_value, gc = p->col_value;
    const vec *f1 = f + 1, *f2 = f1 + m, whole = contract_jets(p, f[0], f1, f2);
    for (ptrdiff_t a = 0; a < d; a++) {
        const vec e = x[a] - load(y + a * PANEL), we = w[a] * e;
        vec by_h = all(0), sum = we * e * whole;
        if (p->row_gradient && gc) by_h += f[0] * block_at(p, gr + a, 0);
        if (p->col_gradient && gr) by_h -= f[0] * block_at(p, 0, gc + a);
        if (p->row_gradient && p->col_gradient) {
            for (ptrdiff_t l = 0; l < m; l++) by_h += f1[l] * (p->wu[l * d + a] - p->wt[l * d + a]);
            sum -= (2 * w[a]) * (f[0] * block_at(p, gr + a, gc + a));
        }
        sums[a] += only(-2 * factor * (sum + 2 * (we * by_h)), good);
    }
}

/* Derivatives by the coordinates of x. */
static void contract_points(const kd_contraction *call, const pair *p, const vec *f, vec_i good,
                            real *sums) {
    const ptrdiff_t d = p->d, m = p->m, dp = padded(d), gr = p->row_value, gc = p->col_value;
    const vec *f1 = f + 1, *f2 = f1 + m, *f3 = f2 + m * m;
    for (ptrdiff_t a = 0; a < d; a++) {
        vec sum = all(0);
        for (ptrdiff_t l = 0; l < m; l++) {
            const vec c = contract_jets(p, f1[l], f2 + l * m, f3 + l * m * m);
            sum += p->ux[l * d + a] * c;
            if (gr && p->col_gradient)
                sum += f1[l] * ((SECOND(KD_XY, l) * W(l, a)) * block_at(p, 0, gc + a));
            if (gc && p->row_gradient)
                sum += f1[l] * ((SECOND(KD_XX, l) * W(l, a)) * block_at(p, gr + a, 0));
            if (p->row_gradient && p->col_gradient)
                for (ptrdiff_t n = 0; n < m; n++)
                    sum += f2[l * m + n] * ((SECOND(KD_XX, l) * W(l, a)) * p->wu[n * d + a] +
                                            (SECOND(KD_XY, l) * W(l, a)) * p->wt[n * d + a]);
        }
        store(sums + a * VL, load(sums + a * VL) + only(sum, good));
    }
}
#undef W
#undef SECOND

/* Whether a part of the block of a pair, or of its derivative by a coordinate (order 1) in
 * dimension a, does not exist. */
static int contraction_missing(const kd_contraction *c, const kd_rough *q, ptrdiff_t i, ptrdiff_t j,
                               int order, ptrdiff_t a) {
    const int32_t parts[2] = {c->side[0].parts, c->side[1].parts};
    const ptrdiff_t n_rows = components(parts[0], c->d), n_cols = components(parts[1], c->d);
    for (ptrdiff_t r = 0; r < n_rows; r++)
        for (ptrdiff_t e = 0; e < n_cols; e++) {
            ptrdiff_t dims[5] = {a};
            if (c->row_at && (c->row_at[i * n_rows + r] < 0 || c->col_at[j * n_cols + e] < 0))
                continue;
            int n = order + component_dims(parts[0], c->d, r, dims + order);
            n += component_dims(parts[1], c->d, e, dims + n);
            if (does_not_exist(q, n, dims[0], dims[1], dims[2], dims[3])) return 1;
        }
    return 0;
}

static ptrdiff_t contraction_columns(const kd_contraction *c) {
    ptrdiff_t cols = strip_columns(c->prog);
    while (cols > PANEL && cols * c->d * (ptrdiff_t)sizeof(real) > 24576) cols /= 2;
    return cols;
}

static ptrdiff_t contraction_results(const kd_contraction *c) {
    ptrdiff_t n = 0;
    for (int32_t h = 0; h < c->n_heads; h++) n += c->heads[h].weights ? c->d : 1;
    return n;
}

static size_t contraction_work_bytes(const kd_contraction *c) {
    const ptrdiff_t d = c->d, m = c->prog->n_inv, cols = contraction_columns(c);
    const ptrdiff_t block = components(c->side[0].parts, d) * components(c->side[1].parts, d);
    const ptrdiff_t n_jets = jet_base(c->prog->order + 1, m);
    return sizeof(real) * (size_t)(c->prog->n_buf * KD_ROWS * cols + 2 * KD_ROWS * (d + PAD) +
                                   VL * (2 * block + 4 * m * d + 1 + m + m * m + n_jets +
                                         contraction_results(c) + KD_ROWS * d) +
                                   4 * PAD);
}

/* Rows [i0, i1) against columns [j0, j1).  Adds to results[...], one after the other of the heads,
 * or to the derivatives by points, in panels, at side[0].out. */
static void contract(const kd_contraction *c, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t j0,
                     ptrdiff_t j1, double *results, void *work) {
    const kd_program *prog = c->prog;
    const ptrdiff_t d = c->d, m = prog->n_inv, cols = contraction_columns(c);
    const ptrdiff_t n_rows = components(c->side[0].parts, d);
    const ptrdiff_t n_cols = components(c->side[1].parts, d);
    const ptrdiff_t stride = KD_ROWS * cols, n_results = contraction_results(c);
    const ptrdiff_t n_jets = jet_base(prog->order + 1, m);
    real *bufs = work, *x = bufs + prog->n_buf * stride;
    real *u = x + (KD_ROWS * d + PAD) / PAD * PAD;
    vec *block = (vec *)(u + (KD_ROWS * d + PAD) / PAD * PAD), *ux = block + 2 * n_rows * n_cols;
    vec *uy = ux + m * d, *wu = uy + m * d, *wt = wu + m * d, *moments = wt + m * d;
    vec *f = moments + 1 + m + m * m, *sums = f + n_jets, *of_points = sums + n_results;
    double second[3 * KD_MAX_INV];
    second_of_invariants(prog, second);
    const kd_product call = {.prog = prog, .d = d, .weights = c->weights};
    strip s = {.call = &call, .d = d, .m = m, .stride = stride, .bufs = bufs};
    pair p = {.d = d, .m = m, .w = block, .n_cols = n_cols, .ux = ux, .uy = uy, .wu = wu};
    p.wt = wt, p.moments = moments, p.second = second;
    p.row_value = c->side[0].parts & HAS_VALUE, p.col_value = c->side[1].parts & HAS_VALUE;
    p.row_gradient = (c->side[0].parts & HAS_GRADIENT) != 0;
    p.col_gradient = (c->side[1].parts & HAS_GRADIENT) != 0;
    for (ptrdiff_t jb = j0; jb < j1; jb += cols) {
        const ptrdiff_t je = jb + cols < j1 ? jb + cols : j1;
        s.np = (je - jb + PANEL - 1) / PANEL, s.ld = s.np * PANEL;
        s.y = (const real *)c->side[1].points + jb * d;
        s.v = (const real *)c->side[1].directions + jb * d;
        for (ptrdiff_t i = i0; i < i1; i += KD_ROWS) {
            if (c->triangle == KD_ONCE && jb + s.ld <= i) continue;
            rows_of(c->side[0].points, i, d, x, d);
            rows_of(c->side[0].directions, i, d, u, d);
            strip_invariants(prog, c->weights, d, x, u, s.y, s.v, s.np, bufs, stride);
            run_program(prog, bufs, stride, KD_ROWS * s.ld);
            s.overflow = strip_overflows(&s);
            memset(sums, 0, (size_t)(n_results + KD_ROWS * d) * sizeof(vec));
            for (ptrdiff_t r = 0; r < KD_ROWS && i + r < c->side[0].n; r++)
                for (ptrdiff_t at = 0; at < s.ld; at += VL) {
                    const ptrdiff_t j = jb + at, row = i + r;
                    if (c->triangle == KD_ONCE && j + VL <= row) continue;
                    if (j >= c->side[1].n) continue;
                    const ptrdiff_t point = at / PANEL * d * PANEL + at % PANEL;
                    vec factor = all(1);
                    if (c->triangle == KD_ONCE)
                        for (int l = 0; l < VL; l++)
                            factor[l] = j + l > row ? 2 : j + l == row ? 1 : 0;
                    vec_i good = lanes_of(&s, r * s.ld + at);
                    load_weights(c, row, j, u + r * d, s.v + point, block);
                    gradients_of_invariants(&call, x + r * d, u + r * d, s.y + point, s.v + point,
                                            ux, uy);
                    moments_of(c, &p);
                    for (int32_t h = 0, result = 0; h < c->n_heads; h++) {
                        const kd_head *head = &c->heads[h];
                        for (ptrdiff_t q = 0; q < n_jets; q++)
                            f[q] = load(bufs + head->jet[q] * stride + r * s.ld + at);
                        if (head->weights) {
                            contract_dimensions(&p, f, head->weights, x + r * d, s.y + point, good,
                                                factor, sums + result);
                            result += d;
                        } else
                            sums[result++] +=
                                only(factor * contract_jets(&p, f[0], f + 1, f + 1 + m), good);
                    }
                    if (!c->n_heads) {
                        for (ptrdiff_t q = 0; q < n_jets; q++)
                            f[q] = load(strip_jet(&s, q) + r * s.ld + at);
                        contract_points(c, &p, f, good, (real *)(of_points + r * d));
                    }
                    for (int32_t e = 0; e < c->n_rough; e++)
                        for (int l = 0; l < VL; l++) {
                            const real inv = bufs[c->rough[e].inv * stride + r * s.ld + at + l];
                            const int same = j + l == row && c->side[0].points == c->side[1].points;
                            if (inv != 0 || j + l >= c->side[1].n || (!c->n_heads && same))
                                continue;
                            if (factor[l] == 0) continue;
                            if (c->n_heads &&
                                contraction_missing(c, &c->rough[e], row, j + l, 0, 0))
                                for (ptrdiff_t q = 0; q < n_results; q++)
                                    ((real *)&sums[q])[l] = (real)NAN;
                            for (ptrdiff_t a = 0; a < d && !c->n_heads; a++)
                                if (contraction_missing(c, &c->rough[e], row, j + l, 1, a))
                                    ((real *)&of_points[r * d + a])[l] = (real)NAN;
                        }
                }
            for (ptrdiff_t q = 0; q < n_results; q++)
                for (int l = 0; l < VL; l++) results[q] += (double)sums[q][l];
            if (c->n_heads) continue;
            for (ptrdiff_t r = 0; r < KD_ROWS; r++)
                for (ptrdiff_t a = 0; a < d; a++) {
                    real *to = (real *)c->side[0].out + (i / PANEL * d + a) * PANEL + i % PANEL;
                    to[r] += fold(of_points + r * d + a, 1)[0];
                }
        }
    }
}
