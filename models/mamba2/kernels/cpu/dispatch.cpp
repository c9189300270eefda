#include <stdexcept>

#include "stack.hpp"

#if defined(GRAPHTIDE_AMX_KERNELS)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace graphtide {

namespace {

struct Choice {
    const char* name;
    const Kernels* (*kernels)();
    bool usable;
    bool when_named = false;        // never chosen unasked
};

#if defined(GRAPHTIDE_AMX_KERNELS)
// Whether the processor has AMX with bf16 and Linux lets this process have the tiles, which it must ask for
// (Documentation/arch/x86/xstate.rst of the kernel).
bool has_amx() {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr unsigned bf16 = 1u << 22, tile = 1u << 24;
    if ((d & (bf16 | tile)) != (bf16 | tile)) return false;
    constexpr long ask_for_state = 0x1023, tile_data = 18;      // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, ask_for_state, tile_data) == 0;
}
#endif

// Best first, but for those that are used only when they are named.
std::vector<Choice> choices() {
    std::vector<Choice> all;
#if defined(GRAPHTIDE_X86_KERNELS)
    __builtin_cpu_init();
    // These ask the operating system too: registers that it does not save are of no use.
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
#if defined(GRAPHTIDE_AMX_KERNELS)
    // No processor that has it has run these yet: they hold under emulation of the tiles.
    const bool amx = vnni && __builtin_cpu_supports("avx512bf16") && has_amx();
    all.push_back({"avx512_amx", avx512_amx_kernels, amx, true});
#endif
#if defined(GRAPHTIDE_BF16_KERNELS)
    all.push_back({"avx512_bf16", avx512_bf16_kernels, vnni && __builtin_cpu_supports("avx512bf16")});
#endif
    all.push_back({"avx512_vnni", avx512_vnni_kernels, vnni});
    all.push_back({"avx512", avx512_kernels, avx512});
    all.push_back({"avx2", avx2_kernels, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")});
#endif
    all.push_back({"portable", portable_kernels, true});
    return all;
}

}  // namespace

std::vector<std::string> usable_kernels() {
    std::vector<std::string> names;
    for (const Choice& choice : choices()) {
        if (choice.usable) names.emplace_back(choice.name);
    }
    return names;
}

const Kernels& choose_kernels(const std::string& forced) {
    for (const Choice& choice : choices()) {
        if (forced.empty() ? choice.usable && !choice.when_named : forced == choice.name) {
            if (!choice.usable) throw std::invalid_argument("this processor cannot run the " + forced + " kernels");
            return *choice.kernels();
        }
    }
    throw std::invalid_argument("there are no " + forced + " kernels in this build");
}

}  // namespace graphtide
