#include <stdexcept>

#include "stack.hpp"

namespace graphtide {

namespace {

struct Choice {
    const char* name;
    const Kernels* (*kernels)();
    bool usable;
};

// Best first.
std::vector<Choice> choices() {
    std::vector<Choice> all;
#if defined(GRAPHTIDE_X86_KERNELS)
    __builtin_cpu_init();
    // These ask the operating system too: registers that it does not save are of no use.
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
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
        if (forced.empty() ? choice.usable : forced == choice.name) {
            if (!choice.usable) throw std::invalid_argument("this processor cannot run the " + forced + " kernels");
            return *choice.kernels();
        }
    }
    throw std::invalid_argument("there are no " + forced + " kernels in this build");
}

}  // namespace graphtide
