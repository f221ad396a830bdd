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

/* Invariants of a pair: s = sum_d w_d (x_d - y_d)^2 and p = sum_d w_d x_d y_d. */
enum { KD_SQDIST = 0, KD_DOT = 1 };

typedef struct {
    int32_t kind;  /* KD_SQDIST or KD_DOT */
    int32_t plain; /* all weights are 1: they are not multiplied by */
} kd_invariant;

/* One step of a program.  Buffers 0 .. n_inv - 1 hold the invariants; the others are free.  A jet
 * writes f, f', ..., f^(order) of its argument buffer a into buffers dst, dst + 1, ...;
 * parameters stand in the program's par[par ...]. */
typedef struct {
    int32_t op; /* a jet of jets.h, by its number */
    int32_t dst, a, b;
    int32_t order;
    int32_t par;
} kd_instr;

/* After a run, buffers jet .. jet + order hold the derivatives of the kernel. */
typedef struct {
    int32_t n_inv, n_instr, n_buf, jet;
    const kd_invariant *inv;
    const kd_instr *instr;
    const double *par;
} kd_program;

/* What is to be written for each pair. */
enum { KD_VALUE, KD_GRADIENT, KD_HESSIAN_DIAG, KD_HESSIAN, KD_HESSIAN_PACKED, KD_N_TENSORS };

typedef struct {
    const kd_program *prog;
    ptrdiff_t n, m, d;
    const void *x, *y;   /* (n, d) and (m, d) */
    const void *panels;  /* y in panels: (ceil(m / panel), d, panel), padded with the last point */
    const void *y_last;  /* the last point of y, padded, so that vectors may be read past its end */
    const void *weights; /* (n_inv, d rounded up to the pad), zero-padded */
    void *out;
    int32_t tensor; /* what is written */
    int32_t mixed;  /* the derivative is of odd order in y: its sign for functions of x - y */
    int32_t stream; /* use stores that bypass the caches */
} kd_call;

/* tanh basis: x (n, d), w (d + 1, k) with the biases last. */
typedef struct {
    ptrdiff_t n, d, k;
    const void *x, *w;
    void *out;
    int32_t jacobian; /* 0: tanh itself, (n, k); 1: the compact Jacobian, (n, d + 1, k) */
    int32_t stream;
} kd_tanh_call;

typedef struct {
    const char *name;
    int32_t real_bytes;
    /* Bytes of workspace a thread needs. */
    size_t (*work_bytes)(const kd_program *prog, ptrdiff_t d);
    size_t (*tanh_work_bytes)(ptrdiff_t d, ptrdiff_t k);
    /* d weights as reals; ones for NULL. */
    void (*widen)(const double *weights, ptrdiff_t d, void *out);
    /* Packs panels [p0, p1) of y (m, d). */
    void (*pack)(const void *y, ptrdiff_t m, ptrdiff_t d, ptrdiff_t p0, ptrdiff_t p1, void *panels);
    /* Rows [i0, i1) against columns [j0, j1). */
    void (*tensor)(const kd_call *call, ptrdiff_t i0, ptrdiff_t i1, ptrdiff_t j0, ptrdiff_t j1,
                   void *work);
    void (*tanh)(const kd_tanh_call *call, ptrdiff_t i0, ptrdiff_t i1, void *work);
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
