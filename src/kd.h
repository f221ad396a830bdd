/* The C surface of kerneldiff: what Cython sees of src/, and nothing else.
 *
 * Why it is built so: every operation on a kernel is the same walk over a tile of pairs,
 *
 *     points  ->  invariants  ->  jets  ->  operation  ->  memory
 *
 * in which only the jets know the kernel and only the operation knows what is wanted.  A kernel
 * comes in as a short program (kd_program) over buffers of one strip of pairs, so that sums,
 * products and powers to any depth need no C of their own.  tile.c holds the walk and is compiled
 * once for each instruction set and each real type; each of these objects exports one kd_table.
 *
 * Nothing here allocates, fails, knows about strides or starts a thread.  The caller brings
 * checked, C-contiguous data, packed panels and a workspace per thread.
 */
#ifndef KD_H
#define KD_H

#include <stddef.h>
#include <stdint.h>

/* A panel holds the same coordinate of KD_PANEL_BYTES / sizeof(real) points side by side, a strip
 * is KD_ROWS rows of X against KD_ROW_BYTES / sizeof(real) columns of Y: one buffer of the jet
 * program is 4 KiB, so that the buffers of an ordinary kernel stay in the first-level cache. */
enum { KD_PANEL_BYTES = 128, KD_ROW_BYTES = 1024, KD_ROWS = 4 };

/* Bytes that may be read or written beyond the end of a padded vector. */
enum { KD_PAD_BYTES = 128 };

/* So many of the last points of y are read from a padded copy, as vectors may reach beyond them. */
enum { KD_LAST = 4 };

/* Programs have no more invariants than this, and no higher derivatives of them. */
enum { KD_MAX_INV = 64, KD_MAX_ORDER = 5 };

/* Invariants of a pair are bilinear,
 *
 *     a = sum_d w_d L_d R_d,    L and R linear combinations of x, y and two directions u, v,
 *
 * where u belongs to the row and v to the column.  Two kinds have their own code: s = sum_d w_d
 * (x_d - y_d)^2 and p = sum_d w_d x_d y_d; the others come from applying functionals to kernels. */
enum { KD_SQDIST, KD_DOT, KD_BILINEAR };
enum { KD_X, KD_Y, KD_U, KD_V };

typedef struct {
    int32_t kind;
    int32_t plain; /* all weights are 1: they are not multiplied by */
    double left[4], right[4];
} kd_invariant;

/* One step of a program over buffers of pairs.  Buffers 0 .. n_inv - 1 hold the invariants; the
 * others are free.  op is the number of a jet of jets.h, which writes f, f', ..., f^(order) of its
 * argument buffer a into buffers dst, dst + 1, ..., with its parameters in the program's par[par
 * ...]; or one of these, with c = par[par]:
 *     SET dst = c   ADD dst = a + b   SCALE dst = c a   SCALE_ADD dst += c a
 *     MUL dst = c a b   MUL_ADD dst += c a b   RECIPROCAL dst = 1 / a, or 0 if a has underflowed
 *     CALLBACK a jet computed by callback b. */
enum {
    KD_OP_SET = 1000,
    KD_OP_ADD,
    KD_OP_SCALE,
    KD_OP_SCALE_ADD,
    KD_OP_MUL,
    KD_OP_MUL_ADD,
    KD_OP_RECIPROCAL,
    KD_OP_CALLBACK
};

typedef struct {
    int32_t op;
    int32_t dst, a, b;
    int32_t order;
    int32_t par;
} kd_instr;

/* A jet from elsewhere: f[q * n + i] = F^(q)(a[i]), q = 0 .. order. */
typedef struct {
    void (*jet)(const double *a, ptrdiff_t n, int order, double *f, void *data);
    void *data;
} kd_callback;

/* After a run, jet[] names the buffers of F, of its m first derivatives by the m invariants, of
 * the m^2 second ones, ..., up to order.
 *
 * Near s = 0, kernels like exp(-sqrt(s)) have 2 F' and 4 s F'' that cancel.  A program of order 2
 * with such a kernel has radial[], for each invariant the buffer of 2 F_l + 4 s F_ll, the second
 * derivative by sqrt(s), or -1; there, unmixed second derivatives are made of that and of F_l. */
typedef struct {
    int32_t n_inv, n_instr, n_buf, order;
    const kd_invariant *inv;
    const kd_instr *instr;
    const double *par;
    const int32_t *jet;
    const int32_t *radial; /* or NULL */
    const kd_callback *callbacks;
} kd_program;

/* A part of a kernel that is not smooth where invariant inv is zero: derivatives do not exist there
 * if, with those that a functional has taken already, limit or more are with respect to dimensions
 * that the part sees. */
typedef struct {
    int32_t inv, limit, already;
    const int8_t *seen; /* d flags */
} kd_rough;

/* What is to be written for each pair: one tensor, or (blocks) the covariance of functionals. */
enum { KD_VALUE, KD_GRADIENT, KD_HESSIAN_DIAG, KD_HESSIAN, KD_HESSIAN_PACKED, KD_N_TENSORS };

typedef struct {
    const kd_program *prog;
    ptrdiff_t n, m, d;
    const void *x, *y;    /* (n, d) and (m, d) */
    const void *u, *v;    /* directions, likewise; x and y themselves if there are none */
    const void *panels;   /* y in panels: (ceil(m / panel), d, panel), padded with the last point */
    const void *v_panels; /* v likewise */
    const void *y_last, *v_last; /* the last KD_LAST points, padded */
    const void *weights;         /* (n_inv, d rounded up to the pad), zero-padded */
    void *out;
    int32_t tensor;           /* which tensor */
    int32_t which;            /* of its second derivatives: 0 xx, 1 xy or yx, 2 yy */
    int32_t first_y, other_y; /* whether the first and second derivative are with respect to y */
    int32_t blocks;           /* or blocks: */
    int32_t rows, cols;       /* the parts of each: bits 1 value, 2 gradient, 4 Hessian */
    int32_t lower;            /* only from the diagonal on, for n = m */
    ptrdiff_t ld;             /* elements between rows of the matrix of blocks */
    int32_t stream;           /* use stores that bypass the caches */
    int32_t n_rough;
    const kd_rough *rough;
} kd_call;

/* One side of a product. Points and vectors stand in panels: (ceil(n / panel), components, panel),
 * points padded with the last of them, vectors with zeros; several vectors one after the other. */
typedef struct {
    ptrdiff_t n;
    const void *points, *directions; /* directions are the points themselves if there are none */
    int32_t parts;       /* of the functional, as bits: 1 value, 2 gradient, 4 Hessian */
    int32_t directional; /* in contractions: it is one number, directions . gradient */
    const void *in;      /* what the functional's entries are multiplied by */
    void *out;           /* where sums over the other side go */
} kd_side;

/* The product of the covariance of rows and columns with k vectors; with `both`, that of its
 * transpose too. */
typedef struct {
    const kd_program *prog;
    ptrdiff_t d, k;
    kd_side side[2];     /* rows, columns */
    const void *weights; /* as in kd_call */
    int32_t total;       /* a total derivative: that of a point with itself does exist */
    int32_t n_rough;
    const kd_rough *rough;
} kd_product;

/* A derivative of a kernel by hyperparameters: its jets; and weights w if it stands for d of them,
 * -2 w_a (x_a - y_a)^2 times the kernel of these jets. */
typedef struct {
    const int32_t *jet;
    const void *weights;
} kd_head;

/* Which pairs count: all; or, for a symmetric W of which the lower triangle is read, all, or those
 * with j >= i and the others with them. */
enum { KD_ALL, KD_SYMMETRIC, KD_ONCE };

/* The sum over pairs of W with derivatives of a covariance; W is an array, or the product of the
 * vectors of both sides. Without heads, derivatives by the points of the rows. */
typedef struct {
    const kd_program *prog;
    ptrdiff_t d, k;
    kd_side side[2];
    const void *weights;
    const void *w;                  /* or NULL */
    ptrdiff_t row_start, col_start; /* where the functionals' entries begin in W */
    const int64_t *row_at, *col_at; /* or rows and columns of W by point and component; -1: none */
    ptrdiff_t row_step, col_step;   /* elements between rows and columns of W */
    int32_t triangle;
    int32_t n_heads;
    const kd_head *heads;
    int32_t n_rough;
    const kd_rough *rough;
} kd_contraction;

/* What is wanted of a layer of tanh units phi = tanh(x a + b): with w = (a, b), (d + 1, k),
 *     ARGUMENT        of tanh, (n, k)
 *     VALUE           (n, k)
 *     SLOPE           1 - phi^2, (n, k)
 *     JACOBIAN        by w, (n, d + 1, k), of each unit by its own weights
 *     INPUT_JACOBIAN  by x, (n, k, d)
 *     INPUT_HESSIAN   by x twice, (n, k, d, d)
 *     TANGENT         for tangents dw, and of x, (n, k)
 *     CHAIN           x a, (n, k), times factors of which `group` rows share one
 *     BACK            cotangents of w and x for a cotangent of phi. */
enum {
    KD_TANH_ARGUMENT,
    KD_TANH_VALUE,
    KD_TANH_SLOPE,
    KD_TANH_JACOBIAN,
    KD_TANH_INPUT_JACOBIAN,
    KD_TANH_INPUT_HESSIAN,
    KD_TANH_TANGENT,
    KD_TANH_CHAIN,
    KD_TANH_BACK
};

typedef struct {
    ptrdiff_t n, d, k;
    const void *x;         /* (n, d) */
    const void *panels;    /* w in panels, see tanh_pack */
    const void *dw_panels; /* TANGENT: dw likewise */
    const void *dx;        /* (n, d), or NULL */
    const void *slopes;    /* by x: a transposed, (k, d), padded */
    const void *g;         /* BACK: the cotangent (n, k); CHAIN: (n / group, k), or NULL for ones */
    ptrdiff_t group;
    void *x_out;      /* the cotangent of x, (n, d), or NULL; */
    const void *back; /* for it, a as d points of k coordinates, in the panels of pack */
    void *out;        /* what is wanted; of BACK, the cotangent of w, (d + 1, k) */
    int32_t what, stream;
} kd_tanh_call;

typedef struct {
    const char *name;
    int32_t real_bytes;
    /* Bytes of workspace a thread needs. */
    size_t (*work_bytes)(const kd_call *call);
    /* d weights as reals; ones for NULL. */
    void (*widen)(const double *weights, ptrdiff_t d, void *out);
    /* Packs panels [p0, p1) of y (m, d). */
    void (*pack)(const void *y, ptrdiff_t m, ptrdiff_t d, ptrdiff_t p0, ptrdiff_t p1, void *panels);
    /* Rows [i0, i1) against columns [j0, j1); of their matrices, where these are large, only rows
     * [a0, a1). */
    void (*tensor)(const kd_call *call, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t j0, ptrdiff_t j1,
                   ptrdiff_t a0, ptrdiff_t a1, void *work);
    /* All derivatives for n sets of invariants: a (n_inv, n), out (number of jets, n).  For work,
     * see work_bytes. */
    void (*jets)(const kd_program *prog, const void *a, ptrdiff_t n, void *out, void *work);
    /* Rows [i0, i1) against columns [j0, j1), all four whole panels.  Adds to `out`, which stands
     * for the rows' side[0].out; with `both`, also to the columns' side[1].out. */
    size_t (*product_work_bytes)(const kd_product *call);
    void (*product)(const kd_product *call, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t j0, ptrdiff_t j1,
                    int both, void *out, void *work);
    /* Ends all products of a side, panels [p0, p1). */
    void (*product_finish)(const kd_product *call, int side, int both, ptrdiff_t p0, ptrdiff_t p1);
    /* Likewise; adds to results, or without heads to side[0].out. */
    size_t (*contraction_work_bytes)(const kd_contraction *call);
    void (*contract)(const kd_contraction *call, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t j0,
                     ptrdiff_t j1, double *results, void *work);
    /* Weights (d + 1, k) as panels (ceil(k / panel), d + 1, panel), padded with zeros. */
    void (*tanh_pack)(ptrdiff_t d, ptrdiff_t k, const void *w, void *panels);
    /* Rows [i0, i1).  BACK adds to sums, for tanh_finish: (d + 1 rounded up to KD_ROWS, k rounded
     * up to a panel) of one lane; that adds row a of the lanes up. */
    size_t (*tanh_work_bytes)(const kd_tanh_call *call);
    void (*tanh)(const kd_tanh_call *call, ptrdiff_t i0, ptrdiff_t i1, void *work);
    void (*tanh_back)(const kd_tanh_call *call, ptrdiff_t i0, ptrdiff_t i1, double *sums,
                      void *work);
    void (*tanh_finish)(const kd_tanh_call *call, const double *sums, ptrdiff_t lanes, ptrdiff_t a);
    /* Function `which` of vmath.h, element by element, so that its errors can be measured; p is
     * the second argument of those that take one. */
    void (*vmath)(int32_t which, const void *x, double p, void *y, ptrdiff_t n);
    void (*fill)(void *out, double value, ptrdiff_t n, int32_t stream);
} kd_table;

/* The instruction sets, from the slowest to the fastest. */
enum { KD_BASELINE, KD_AVX2, KD_AVX512, KD_N_ISA };

/* Name of an instruction set; whether it was built; whether this machine can run it. */
const char *kd_isa_name(int isa);
int kd_isa_built(int isa);
int kd_isa_supported(int isa);

/* The functions for an instruction set that is built and supported, for float64 or float32. */
const kd_table *kd_get_table(int isa, int real_bytes);

/* The names of the jets and of the functions of vmath.h in their order, for the Python side. */
int kd_n_jets(void);
const char *kd_jet_name(int number);
int kd_n_vmath(void);
const char *kd_vmath_name(int number);

#endif
