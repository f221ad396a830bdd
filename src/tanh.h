/* Layers of tanh units: part of tile.c.
 *
 *     z = x1 W,    phi = tanh z,    x1 = (x, 1)
 *
 * A layer is worked on in tiles of some points and some units, in memory of its own in the
 * first-level cache: z, the function of it that is wanted, and what that is multiplied by. tanh and
 * its derivative are both functions of z, so that nothing cancels where units saturate. Lanes are
 * units; for the cotangent of x, dimensions. */

enum {
    UNITS = 512,     /* most units of a tile, */
    UNITS_BACK = 64, /* and where sums over points are wanted, which like many points; */
    TILE = 4096      /* elements of a tile */
};

INLINE ptrdiff_t up(ptrdiff_t n, ptrdiff_t step) { return (n + step - 1) / step * step; }

static ptrdiff_t tile_units(const kd_tanh_call *c, ptrdiff_t most) {
    const ptrdiff_t k = up(c->k, PANEL);
    return k < most ? k : most;
}

static ptrdiff_t tile_rows(ptrdiff_t units) {
    const ptrdiff_t rows = TILE / units / KD_ROWS * KD_ROWS;
    return rows > 64 ? 64 : rows;
}

/* Where a product of two tiles goes: to a tile, or to sums in double. */
enum { SET, ADD, ADD_DOUBLE };

/* KD_ROWS x nv vectors of out[r][v] = sum_t x[r * x_row + t * x_step] y[t * y_step + v]. */
INLINE void multiply_vectors(const real *x, ptrdiff_t x_row, ptrdiff_t x_step, const real *y,
                             ptrdiff_t y_step, const ptrdiff_t *at, int nv, ptrdiff_t terms,
                             int how, void *out, ptrdiff_t ld) {
    vec acc[KD_ROWS][AT_ONCE];
    for (int r = 0; r < KD_ROWS; r++)
        for (int v = 0; v < nv; v++) acc[r][v] = all(0);
    for (ptrdiff_t t = 0; t < terms; t++)
        for (int v = 0; v < nv; v++) {
            vec yt = load(y + t * y_step + at[v]);
            KEEP(yt);
            for (int r = 0; r < KD_ROWS; r++) acc[r][v] += x[r * x_row + t * x_step] * yt;
        }
    for (int r = 0; r < KD_ROWS; r++)
        for (int v = 0; v < nv; v++) {
            if (how == ADD_DOUBLE && sizeof(real) < sizeof(double)) {
                double *o = (double *)out + r * ld + v * VL;
                for (int l = 0; l < VL; l++) o[l] += (double)acc[r][v][l];
            } else {
                real *o = (real *)out + r * ld + v * VL;
                store(o, how == SET ? acc[r][v] : load(o) + acc[r][v]);
            }
        }
}

/* The same for all rows, a multiple of KD_ROWS, and n_vec vectors; y stands in panels that are
 * `step` apart. DBLOCK terms are summed apart, as for invariants. */
INLINE void multiply(const real *x, ptrdiff_t x_row, ptrdiff_t x_step, ptrdiff_t rows,
                     const real *y, ptrdiff_t y_step, ptrdiff_t step, ptrdiff_t n_vec,
                     ptrdiff_t terms, int how, void *out, ptrdiff_t ld) {
    const size_t item = how == ADD_DOUBLE ? sizeof(double) : sizeof(real);
    for (ptrdiff_t t = 0; t < terms; t += DBLOCK) {
        const ptrdiff_t len = terms - t < DBLOCK ? terms - t : DBLOCK;
        const real *xt = x + t * x_step, *yt = y + t * y_step;
        const int now = how == SET && t ? ADD : how;
        for (ptrdiff_t v = 0; v < n_vec; v += AT_ONCE) {
            ptrdiff_t at[AT_ONCE];
            for (int e = 0; e < AT_ONCE; e++) at[e] = (v + e) / VPP * step + (v + e) % VPP * VL;
            const ptrdiff_t nv = n_vec - v;
            for (ptrdiff_t r = 0; r < rows; r += KD_ROWS) {
                const real *xr = xt + r * x_row;
                void *o = (char *)out + (size_t)(r * ld + v * VL) * item;
                if (nv >= AT_ONCE)
                    multiply_vectors(xr, x_row, x_step, yt, y_step, at, AT_ONCE, len, now, o, ld);
                else if (nv == 3)
                    multiply_vectors(xr, x_row, x_step, yt, y_step, at, 3, len, now, o, ld);
                else if (nv == 2)
                    multiply_vectors(xr, x_row, x_step, yt, y_step, at, 2, len, now, o, ld);
                else
                    multiply_vectors(xr, x_row, x_step, yt, y_step, at, 1, len, now, o, ld);
            }
        }
    }
}

/* z of a tile: points in rows of x1, units from panels. */
static void tile_sums(const kd_tanh_call *c, const real *x1, ptrdiff_t rows, const void *panels,
                      ptrdiff_t k0, ptrdiff_t nk, int how, real *z, ptrdiff_t ld) {
    const ptrdiff_t terms = c->d + 1;
    const real *y = (const real *)panels + k0 * terms;
    multiply(x1, terms, 1, up(rows, KD_ROWS), y, PANEL, terms * PANEL, (nk + VL - 1) / VL, terms,
             how, z, ld);
}

/* Copies a row in vectors, which may reach beyond the ends of both. */
INLINE void copy_row(real *to, const real *from, ptrdiff_t n) { KD_ROW(n, to, AT(from)); }

/* How many rows of an array (n, d) are followed by so much of it that vectors may reach beyond
 * their end. */
INLINE ptrdiff_t inner_rows(ptrdiff_t n, ptrdiff_t d) { return d ? n - 1 - (VL + d - 1) / d : 0; }

/* Points and a last column. */
static void tile_points(const kd_tanh_call *c, const void *x, ptrdiff_t i, ptrdiff_t rows,
                        real last, real *x1) {
    const ptrdiff_t d = c->d, inner = inner_rows(c->n, d);
    for (ptrdiff_t r = 0; r < rows; r++, x1 += d + 1) {
        const real *from = (const real *)x + (i + r) * d;
        if (i + r < inner)
            copy_row(x1, from, d);
        else
            memcpy(x1, from, (size_t)d * sizeof(real));
        x1[d] = last;
    }
}

/* Elements of a tile of points, whose last rows are padded: a vector may be written beyond the end
 * of a row, and up(d + 1, KD_ROWS) columns are read. */
static ptrdiff_t points_size(const kd_tanh_call *c, ptrdiff_t rows) {
    return up(up(rows, KD_ROWS) * (c->d + 1) + VL + KD_ROWS, PAD);
}

/* Weights (d + 1, k) as panels (ceil(k / panel), d + 1, panel), padded with zeros. */
static void tanh_pack(ptrdiff_t d, ptrdiff_t k, const void *w, void *panels) {
    real *to = panels;
    for (ptrdiff_t k0 = 0; k0 < k; k0 += PANEL)
        for (ptrdiff_t a = 0; a <= d; a++, to += PANEL) {
            const ptrdiff_t nk = k - k0 < PANEL ? k - k0 : PANEL;
            memcpy(to, (const real *)w + a * k + k0, (size_t)nk * sizeof(real));
            memset(to + nk, 0, (size_t)(PANEL - nk) * sizeof(real));
        }
}

static size_t tanh_work_bytes(const kd_tanh_call *c) {
    const ptrdiff_t units = tile_units(c, c->what == KD_TANH_BACK ? UNITS_BACK : UNITS);
    const ptrdiff_t rows = tile_rows(units), tile = rows * units + PAD;
    const ptrdiff_t points = points_size(c, rows), back = rows * up(c->d, PANEL);
    switch (c->what) {
    case KD_TANH_BACK:
        return sizeof(real) * (size_t)(tile + points + (c->x_out ? back : 0));
    case KD_TANH_TANGENT:
        return sizeof(real) * (size_t)(2 * tile + 2 * points);
    case KD_TANH_JACOBIAN:
    case KD_TANH_INPUT_JACOBIAN:
    case KD_TANH_INPUT_HESSIAN:
        return sizeof(real) *
               (size_t)(tile + points + SINK + SINK / 2 + LINE + PAD + up(c->d, PAD) + PAD);
    default:
        return sizeof(real) * (size_t)(tile + points);
    }
}

/* A vector times a number, in pieces that fit the sink. */
static void put_scaled(sink *k, real c, const real *v, ptrdiff_t n) {
    for (ptrdiff_t e0 = 0; e0 < n; e0 += SINK / 2) {
        const ptrdiff_t len = n - e0 < SINK / 2 ? n - e0 : SINK / 2;
        real *p = sink_room(k, len);
        KD_ROW(len, p, c * AT(v + e0));
        k->fill += len;
    }
}

/* A function of a tile, whose rows are whole vectors without gaps. */
#define KD_TILE(n, expr)                                                    \
    do {                                                                    \
        const ptrdiff_t n_ = (n);                                           \
        _Pragma("omp simd") for (ptrdiff_t q = 0; q < n_; q++) z[q] = expr; \
    } while (0)

/* tanh'' = -2 tanh (1 - tanh^2). */
INLINE real tanh_second(real z) {
    real t, s;
    kd_tanh_sech2(z, &t, &s);
    return -2 * t * s;
}

/* What is wanted of a tile's arguments z. */
static void tile_functions(const kd_tanh_call *c, ptrdiff_t n, real *restrict z,
                           const real *restrict dz) {
    switch (c->what) {
    case KD_TANH_ARGUMENT:
    case KD_TANH_CHAIN:
        break;
    case KD_TANH_VALUE:
        KD_TILE(n, kd_tanh(z[q]));
        break;
    case KD_TANH_INPUT_HESSIAN:
        KD_TILE(n, tanh_second(z[q]));
        break;
    case KD_TANH_TANGENT:
        KD_TILE(n, kd_sech2(z[q]) * dz[q]);
        break;
    default:
        KD_TILE(n, kd_sech2(z[q]));
    }
}

/* What belongs to one point and nk units from k0 on; vectors may reach beyond the end if `inner`
 * says so. */
static void put_units(const kd_tanh_call *c, ptrdiff_t i, ptrdiff_t k0, ptrdiff_t nk,
                      const real *x1, real *z, real *u, int inner, sink *k) {
    const ptrdiff_t d = c->d, kk = c->k;
    /* A basis that fits one block is written as one run of d + 1 rows. */
    const int whole = nk == kk;
    switch (c->what) {
    case KD_TANH_JACOBIAN:
        for (ptrdiff_t a = 0; a <= d; a++) {
            if (!whole || a == 0) sink_begin(k, (real *)c->out + (i * (d + 1) + a) * kk + k0);
            put_scaled(k, x1[a], z, nk);
            if (!whole || a == d) sink_flush(k, 1);
        }
        break;
    case KD_TANH_INPUT_JACOBIAN:
        sink_begin(k, (real *)c->out + (i * kk + k0) * d);
        for (ptrdiff_t q = 0; q < nk; q++)
            put_scaled(k, z[q], (const real *)c->slopes + (k0 + q) * d, d);
        sink_flush(k, 1);
        break;
    case KD_TANH_INPUT_HESSIAN:
        sink_begin(k, (real *)c->out + (i * kk + k0) * d * d);
        for (ptrdiff_t q = 0; q < nk; q++) {
            /* In equal factors, so that the result is symmetric to the last digit. */
            const real *v = (const real *)c->slopes + (k0 + q) * d, root = KD_SQRT(kd_abs(z[q]));
            KD_ROW(d, u, root * AT(v));
            for (ptrdiff_t a = 0; a < d; a++) put_scaled(k, z[q] < 0 ? -u[a] : u[a], u, d);
        }
        sink_flush(k, 1);
        break;
    case KD_TANH_CHAIN:
        if (c->g) {
            const real *g = (const real *)c->g + i / c->group * kk + k0;
            for (ptrdiff_t q = 0; q < nk; q++) z[q] *= g[q];
        } /* fall through */
    default: {
        real *out = (real *)c->out + i * kk + k0;
        if (whole && inner)
            copy_row(out, z, nk);
        else
            memcpy(out, z, (size_t)nk * sizeof(real));
    }
    }
}

static void tanh_rows(const kd_tanh_call *c, ptrdiff_t i0, ptrdiff_t i1, void *work) {
    const ptrdiff_t d = c->d, kk = c->k, units = tile_units(c, UNITS), most = tile_rows(units);
    const int tangent = c->what == KD_TANH_TANGENT;
    /* What is spilled is written later, but for the last rows of others' and of this task. */
    const ptrdiff_t inner = i0 + inner_rows(i1 - i0, kk);
    real *z = work, *x1 = z + most * units + PAD, *dz = x1 + points_size(c, most);
    real *dx1 = dz + most * units + PAD;
    sink k = {.buf = dz, .stream = c->stream};
    real *u = dz + SINK + SINK / 2 + LINE + PAD;
    for (ptrdiff_t i = i0; i < i1; i += most) {
        const ptrdiff_t rows = i1 - i < most ? i1 - i : most;
        tile_points(c, c->x, i, rows, c->what != KD_TANH_CHAIN, x1);
        if (tangent && c->dx) tile_points(c, c->dx, i, rows, 0, dx1);
        for (ptrdiff_t k0 = 0; k0 < kk; k0 += units) {
            const ptrdiff_t nk = kk - k0 < units ? kk - k0 : units, ld = up(nk, VL);
            tile_sums(c, x1, rows, c->panels, k0, nk, SET, z, ld);
            if (tangent) tile_sums(c, x1, rows, c->dw_panels, k0, nk, SET, dz, ld);
            if (tangent && c->dx) tile_sums(c, dx1, rows, c->panels, k0, nk, ADD, dz, ld);
            tile_functions(c, rows * ld, z, dz);
            for (ptrdiff_t r = 0; r < rows; r++)
                put_units(c, i + r, k0, nk, x1 + r * (d + 1), z + r * ld, u, i + r < inner, &k);
        }
    }
    stream_end(c->stream);
}

/* Adds x1' H to sums, (d + 1 rounded up to KD_ROWS, k to panels), H = G o (1 - tanh^2 z); and
 * writes H a', the cotangent of x, if that is wanted. */
static void tanh_back(const kd_tanh_call *c, ptrdiff_t i0, ptrdiff_t i1, double *sums, void *work) {
    const ptrdiff_t d = c->d, kk = c->k, kp = up(kk, PANEL), dp = up(d, PANEL);
    const ptrdiff_t units = tile_units(c, UNITS_BACK), most = tile_rows(units);
    const ptrdiff_t inner = inner_rows(c->n, kk);
    real *z = work, *x1 = z + most * units + PAD, *back = x1 + points_size(c, most);
    for (ptrdiff_t i = i0; i < i1; i += most) {
        const ptrdiff_t rows = i1 - i < most ? i1 - i : most;
        tile_points(c, c->x, i, rows, 1, x1);
        for (ptrdiff_t k0 = 0; k0 < kk; k0 += units) {
            const ptrdiff_t nk = kk - k0 < units ? kk - k0 : units, ld = up(nk, VL);
            tile_sums(c, x1, rows, c->panels, k0, nk, SET, z, ld);
            KD_TILE(rows * ld, kd_sech2(z[q]));
            for (ptrdiff_t r = 0; r < rows; r++) {
                real *h = z + r * ld;
                const real *g = (const real *)c->g + (i + r) * kk + k0;
                /* What is beyond the last unit goes where nobody looks. */
                if (i + r < inner)
                    for (ptrdiff_t q = 0; q < ld; q += VL)
                        store(h + q, load(h + q) * *(const vec_u *)(g + q));
                else
                    for (ptrdiff_t q = 0; q < nk; q++) h[q] *= g[q];
            }
            multiply(x1, 1, d + 1, up(d + 1, KD_ROWS), z, ld, PANEL, ld / VL, rows, ADD_DOUBLE,
                     sums + k0, kp);
            if (c->x_out)
                multiply(z, ld, 1, up(rows, KD_ROWS), (const real *)c->back + k0 * PANEL, PANEL,
                         kk * PANEL, (d + VL - 1) / VL, nk, k0 ? ADD : SET, back, dp);
        }
        if (c->x_out)
            for (ptrdiff_t r = 0; r < rows; r++)
                memcpy((real *)c->x_out + (i + r) * d, back + r * dp, (size_t)d * sizeof(real));
    }
}

/* Row a of the cotangent of the weights: the lanes' sums in their order. */
static void tanh_finish(const kd_tanh_call *c, const double *sums, ptrdiff_t lanes, ptrdiff_t a) {
    const ptrdiff_t kp = up(c->k, PANEL), size = up(c->d + 1, KD_ROWS) * kp;
    for (ptrdiff_t q = 0; q < c->k; q++) {
        double sum = 0;
        for (ptrdiff_t e = 0; e < lanes; e++) sum += sums[e * size + a * kp + q];
        ((real *)c->out)[a * c->k + q] = (real)sum;
    }
}
