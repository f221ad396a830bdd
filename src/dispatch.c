/* Which of the compiled tables can run here.  Compiled once, for the plainest machine. */
#include "jets.h"
#include "kd.h"
#include "vmath.h"

/* THE list of instruction sets: name, number, test.  What is tested here is all that the flags in
 * src/meson.build turn on, and no less. */
#if defined(_MSC_VER) && defined(_M_X64)
/* clang-cl, to which the builtin would be a symbol of a library that nobody links.  Bits as in
 * Intel's manual, volume 1, 14.3 and 15.2: OSXSAVE, AVX, FMA; AVX2, AVX512F, DQ, BW, VL; and that
 * the system saves the registers. */
#include <cpuid.h>
__attribute__((target("xsave"))) static int cpu_has(unsigned ebx7, unsigned saved) {
    const unsigned ecx1 = 1u << 27 | 1u << 28 | 1u << 12;
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & ecx1) == ecx1 &&
           (__builtin_ia32_xgetbv(0) & saved) == saved && __get_cpuid_count(7, 0, &a, &b, &c, &d) &&
           (b & ebx7) == ebx7;
}
#define KD_CPU_AVX2 cpu_has(1u << 5, 0x6)
#define KD_CPU_AVX512 cpu_has(1u << 5 | 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, 0xe6)
#elif defined(__x86_64__) || defined(__i386__)
#define KD_CPU_AVX2 (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#define KD_CPU_AVX512                                                                          \
    (KD_CPU_AVX2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && \
     __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
#else
#define KD_CPU_AVX2 0
#define KD_CPU_AVX512 0
#endif

extern const kd_table kd_table_baseline_f64, kd_table_baseline_f32;
#ifdef KD_BUILT_AVX2
extern const kd_table kd_table_avx2_f64, kd_table_avx2_f32;
#endif
#ifdef KD_BUILT_AVX512
extern const kd_table kd_table_avx512_f64, kd_table_avx512_f32;
#endif

static const struct {
    const char *name;
    const kd_table *f64, *f32;
} isas[KD_N_ISA] = {
    [KD_BASELINE] = {"baseline", &kd_table_baseline_f64, &kd_table_baseline_f32},
    [KD_AVX2] = {"avx2",
#ifdef KD_BUILT_AVX2
                 &kd_table_avx2_f64, &kd_table_avx2_f32
#endif
    },
    [KD_AVX512] = {"avx512",
#ifdef KD_BUILT_AVX512
                   &kd_table_avx512_f64, &kd_table_avx512_f32
#endif
    },
};

const char *kd_isa_name(int isa) { return isas[isa].name; }

int kd_isa_built(int isa) { return isas[isa].f64 != NULL; }

int kd_isa_supported(int isa) {
    if (!kd_isa_built(isa)) return 0;
    switch (isa) {
    case KD_BASELINE:
        return 1;
    case KD_AVX2:
        return KD_CPU_AVX2;
    case KD_AVX512:
        return KD_CPU_AVX512;
    default:
        return 0;
    }
}

const kd_table *kd_get_table(int isa, int real_bytes) {
    return real_bytes == 4 ? isas[isa].f32 : isas[isa].f64;
}

#define KD_NAME(name) #name,
static const char *const jet_names[] = {KD_JETS(KD_NAME)};
static const char *const vmath_names[] = {KD_VMATH1(KD_NAME) KD_VMATH2(KD_NAME)};

int kd_n_jets(void) { return KD_N_JETS; }

const char *kd_jet_name(int number) { return jet_names[number]; }

int kd_n_vmath(void) { return sizeof vmath_names / sizeof *vmath_names; }

const char *kd_vmath_name(int number) { return vmath_names[number]; }
