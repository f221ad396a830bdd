# The contract between C and Cython: what src/kd.h declares.
from libc.stdint cimport int8_t, int32_t, int64_t


cdef extern from "kd.h":
    enum:
        KD_PANEL_BYTES, KD_ROWS, KD_PAD_BYTES, KD_LAST
        KD_MAX_INV, KD_MAX_ORDER
        KD_SQDIST, KD_DOT, KD_BILINEAR
        KD_OP_SET, KD_OP_ADD, KD_OP_SCALE, KD_OP_SCALE_ADD, KD_OP_MUL, KD_OP_MUL_ADD
        KD_OP_RECIPROCAL
        KD_OP_CALLBACK
        KD_N_ISA

    ctypedef struct kd_invariant:
        int32_t kind, plain
        double left[4]
        double right[4]

    ctypedef struct kd_instr:
        int32_t op, dst, a, b, order, par

    ctypedef struct kd_callback:
        void (*jet)(const double *, Py_ssize_t, int, double *, void *) noexcept nogil
        void *data

    ctypedef struct kd_program:
        int32_t n_inv, n_instr, n_buf, order
        const kd_invariant *inv
        const kd_instr *instr
        const double *par
        const int32_t *jet
        const int32_t *radial
        const kd_callback *callbacks

    ctypedef struct kd_rough:
        int32_t inv, limit, already
        const int8_t *seen

    ctypedef struct kd_call:
        const kd_program *prog
        Py_ssize_t n, m, d
        const void *x
        const void *y
        const void *u
        const void *v
        const void *panels
        const void *v_panels
        const void *y_last
        const void *v_last
        const void *weights
        void *out
        int32_t tensor, which, first_y, other_y
        int32_t blocks, rows, cols, lower
        Py_ssize_t ld
        int32_t stream, n_rough
        const kd_rough *rough

    enum:
        KD_ALL, KD_SYMMETRIC, KD_ONCE

    ctypedef struct kd_side:
        Py_ssize_t n
        const void *points
        const void *directions
        int32_t parts, directional
        const void *in_ "in"
        void *out

    ctypedef struct kd_product:
        const kd_program *prog
        Py_ssize_t d, k
        kd_side side[2]
        const void *weights
        int32_t total, n_rough
        const kd_rough *rough

    ctypedef struct kd_head:
        const int32_t *jet
        const void *weights

    ctypedef struct kd_contraction:
        const kd_program *prog
        Py_ssize_t d, k
        kd_side side[2]
        const void *weights
        const void *w
        Py_ssize_t row_start, col_start
        const int64_t *row_at
        const int64_t *col_at
        Py_ssize_t row_step, col_step
        int32_t triangle, n_heads
        const kd_head *heads
        int32_t n_rough
        const kd_rough *rough

    enum:
        KD_TANH_ARGUMENT, KD_TANH_VALUE, KD_TANH_SLOPE, KD_TANH_JACOBIAN
        KD_TANH_INPUT_JACOBIAN, KD_TANH_INPUT_HESSIAN, KD_TANH_TANGENT, KD_TANH_CHAIN
        KD_TANH_BACK

    ctypedef struct kd_tanh_call:
        Py_ssize_t n, d, k
        const void *x
        const void *panels
        const void *dw_panels
        const void *dx
        const void *slopes
        const void *g
        Py_ssize_t group
        const void *back
        void *x_out
        void *out
        int32_t what, stream

    ctypedef struct kd_table:
        size_t (*work_bytes)(const kd_call *) noexcept nogil
        void (*widen)(const double *, Py_ssize_t, void *) noexcept nogil
        void (*pack)(const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                     void *) noexcept nogil
        void (*tensor)(const kd_call *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                       Py_ssize_t, Py_ssize_t, void *) noexcept nogil
        size_t (*product_work_bytes)(const kd_product *) noexcept nogil
        void (*product)(const kd_product *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, int,
                        void *, void *) noexcept nogil
        void (*product_finish)(const kd_product *, int, int, Py_ssize_t,
                               Py_ssize_t) noexcept nogil
        size_t (*contraction_work_bytes)(const kd_contraction *) noexcept nogil
        void (*contract)(const kd_contraction *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                         double *, void *) noexcept nogil
        void (*jets)(const kd_program *, const void *, Py_ssize_t, void *, void *) noexcept nogil
        void (*tanh_pack)(Py_ssize_t, Py_ssize_t, const void *, void *) noexcept nogil
        size_t (*tanh_work_bytes)(const kd_tanh_call *) noexcept nogil
        void (*tanh)(const kd_tanh_call *, Py_ssize_t, Py_ssize_t, void *) noexcept nogil
        void (*tanh_back)(const kd_tanh_call *, Py_ssize_t, Py_ssize_t, double *,
                          void *) noexcept nogil
        void (*tanh_finish)(const kd_tanh_call *, const double *, Py_ssize_t,
                            Py_ssize_t) noexcept nogil
        void (*vmath)(int32_t, const void *, double, void *, Py_ssize_t) noexcept nogil
        void (*fill)(void *, double, Py_ssize_t, int32_t) noexcept nogil

    const char *kd_isa_name(int) noexcept nogil
    int kd_isa_built(int) noexcept nogil
    int kd_isa_supported(int) noexcept nogil
    const kd_table *kd_get_table(int, int) noexcept nogil
    int kd_n_jets() noexcept nogil
    const char *kd_jet_name(int) noexcept nogil
    int kd_n_vmath() noexcept nogil
    const char *kd_vmath_name(int) noexcept nogil
