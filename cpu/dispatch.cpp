#include "cpu/dispatch.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include "cpu/cpu-backend.h"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#if defined(__x86_64__) || defined(_M_X64)
#define ND_X86 1
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace nd {

namespace {

#if defined(ND_X86)
struct Cpuid {
  uint32_t a = 0, b = 0, c = 0, d = 0;
};

Cpuid cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  Cpuid r;
#if defined(_MSC_VER)
  int v[4];
  __cpuid(v, 0);
  if (static_cast<uint32_t>(v[0]) < leaf) return r;
  __cpuidex(v, static_cast<int>(leaf), static_cast<int>(subleaf));
  r = {static_cast<uint32_t>(v[0]), static_cast<uint32_t>(v[1]), static_cast<uint32_t>(v[2]),
       static_cast<uint32_t>(v[3])};
#else
  __get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d);  // zeros where the leaf does not exist
#endif
  return r;
}

bool bit(uint32_t word, int i) { return word >> i & 1; }

/// The register files that the operating system saves on a context switch (XCR0); 0 without OSXSAVE.
uint64_t savedState() {
  if (!bit(cpuid(1).c, 27)) return 0;
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
#endif
}

bool hasAvx2() {
  const uint32_t features = cpuid(1).c;
  return bit(features, 12) && bit(features, 28) && bit(features, 29)  // FMA, AVX, F16C
         && bit(cpuid(7).b, 5) && (savedState() & 0x06) == 0x06;      // AVX2; SSE and AVX registers saved
}

bool hasAvx512() {
  const uint32_t features = cpuid(7).b;
  return hasAvx2() && bit(features, 16) && bit(features, 17) && bit(features, 30) &&
         bit(features, 31)                  // F DQ BW VL
         && (savedState() & 0xe6) == 0xe6;  // mask and upper registers saved as well
}

bool hasAvx512Bf16() { return hasAvx512() && cpuid(7).a >= 1 && bit(cpuid(7, 1).a, 5); }

/// The tiles' registers are 8 KB for the system to save: Linux gives them to processes that ask.
bool hasAmxBf16() {
#if defined(__linux__)
  const uint32_t features = cpuid(7).d;
  return hasAvx512Bf16() && bit(features, 22) && bit(features, 24)  // AMX-BF16, AMX-TILE
         && (savedState() & 0x60000) == 0x60000;
#else
  return false;
#endif
}

/// Asks for them, for the whole process and for good. Refused where a thread's signal stack is too small.
bool mayUseAmx() {
#if defined(__linux__)
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, which older headers lack
  static const bool may = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return may;
#else
  return false;
#endif
}
#endif

#if defined(__aarch64__)
bool hasNeonBf16() {
#if defined(__linux__)
  constexpr unsigned long kBf16 = 1ul << 14;  // HWCAP2_BF16, which older headers lack
  return (getauxval(AT_HWCAP2) & kBf16) != 0;
#elif defined(__APPLE__)
  int has = 0;
  size_t size = sizeof has;
  return sysctlbyname("hw.optional.arm.FEAT_BF16", &has, &size, nullptr, 0) == 0 && has != 0;
#else
  return false;
#endif
}
#endif

bool always() { return true; }

struct Bf16Isa {
  const Bf16Kernels* (*kernels)() = nullptr;
  bool (*supported)() = [] { return false; };
  bool (*permitted)() = always;  // asked when it is to be used
};

struct Isa {
  const char *name, *description;
  const KernelTable* (*table)();  // null: not compiled for this architecture
  bool (*supported)();
  Bf16Isa bf16[2] = {};  // its products of bfloat16, in order of preference
};

// In order of preference: the one list of instruction sets.
constexpr Isa kIsas[] = {
#if defined(ND_X86)
    {"avx512",
     "AVX-512 (F, BW, DQ, VL)",
     avx512Table,
     hasAvx512,
     {{amxBf16Kernels, hasAmxBf16, mayUseAmx}, {avx512Bf16Kernels, hasAvx512Bf16}}},
    {"avx2", "AVX2+FMA", avx2Table, hasAvx2},
#else
    {"avx512", "AVX-512 (F, BW, DQ, VL)", nullptr, nullptr},
    {"avx2", "AVX2+FMA", nullptr, nullptr},
#endif
#if defined(__aarch64__)
    {"neon", "NEON", neonTable, always, {{neonBf16Kernels, hasNeonBf16}}},  // part of every AArch64
#else
    {"neon", "NEON", nullptr, nullptr},
#endif
    {"scalar", "portable vectors", scalarTable, always, {{scalarBf16Kernels, always}}},
};

bool usable(const Isa& isa) { return isa.table && isa.supported(); }
bool hasBf16(const Isa& isa) {
  return usable(isa) && std::any_of(std::begin(isa.bf16), std::end(isa.bf16),
                                    [](const Bf16Isa& b) { return b.supported(); });
}

/// Of the list, or null.
const Isa* isaNamed(const char* name) {
  const Isa* const isa = std::find_if(std::begin(kIsas), std::end(kIsas),
                                      [&](const Isa& i) { return std::string(name) == i.name; });
  return isa == std::end(kIsas) ? nullptr : isa;
}

std::string lacksBf16(const KernelTable& kernels) {
  return format(
      "Expected a CPU with dot products of bfloat16 (AMX, AVX512_BF16, or FEAT_BF16 on AArch64) for dtype "
      "'bfloat16' but this one runs %s without them; use dtype 'auto', which computes in float32",
      isaDescription(kernels.name).c_str());
}

}  // namespace

const KernelTable& chooseKernels(const std::string& requested) {
  std::string name = requested, from = "isa";
  if (name.empty()) {
    if (const char* value = std::getenv("NODE_DIFFUSION_CPU"); value && *value) {
      name = value;
      from = "NODE_DIFFUSION_CPU";
    }
  }
  std::string here;
  for (const Isa& isa : kIsas) {
    if (!usable(isa)) continue;
    if (name.empty() || name == isa.name) return *isa.table();
    if (!here.empty()) here += ", ";
    here += isa.name;
  }
  throw Error(
      ErrorCode::InvalidArgument,
      format("Expected %s for %s but received '%s', which %s", here.c_str(), from.c_str(), name.c_str(),
             isaNamed(name.c_str()) ? "this machine does not have" : "is no instruction set known here"));
}

std::vector<IsaInfo> cpuIsas() {
  std::vector<IsaInfo> list;
  for (const Isa& isa : kIsas)
    list.push_back({isa.name, isa.description, isa.table != nullptr, usable(isa), hasBf16(isa)});
  return list;
}

std::vector<const Bf16Kernels*> bf16KernelsOf(const KernelTable& kernels, const std::string& name) {
  std::vector<const Bf16Kernels*> list;
  const Isa* const isa = isaNamed(kernels.name);
  if (!isa || !usable(*isa)) return list;
  for (const Bf16Isa& b : isa->bf16)
    if (b.supported() && (name.empty() || name == b.kernels()->name) && b.permitted())
      list.push_back(b.kernels());
  return list;
}

const Bf16Kernels& chooseBf16Kernels(const KernelTable& kernels) {
  const char* const value = std::getenv("NODE_DIFFUSION_BF16");
  const std::string wanted = value ? value : "";
  if (const auto list = bf16KernelsOf(kernels, wanted); !list.empty()) return *list[0];
  std::string here;
  for (const Bf16Kernels* b : bf16KernelsOf(kernels))
    here += (here.empty() ? "" : ", ") + std::string(b->name);
  if (here.empty()) throw Error(ErrorCode::Unsupported, lacksBf16(kernels));
  throw Error(ErrorCode::InvalidArgument,
              format("Expected %s for NODE_DIFFUSION_BF16 but received '%s'", here.c_str(), wanted.c_str()));
}

std::string whyNoBf16() {
  const KernelTable& kernels = chooseKernels("");
  return hasBf16(*isaNamed(kernels.name)) ? std::string() : lacksBf16(kernels);
}

std::unique_ptr<Backend> makeCpuBackend(int threads, const std::string& isa, DType dtype) {
  if (threads < 0 || threads > 1024)
    throw Error(ErrorCode::InvalidArgument,
                format("Expected 0 (the physical cores) to 1024 for threads but received %d", threads));
  expect(dtype == DType::F32 || dtype == DType::BF16, "makeCpuBackend: dtype F32 or BF16");
  const KernelTable& kernels = chooseKernels(isa);
  return std::make_unique<CpuBackend>(kernels, threads,
                                      dtype == DType::BF16 ? &chooseBf16Kernels(kernels) : nullptr);
}

std::string isaDescription(const char* name) {
  const Isa* const isa = isaNamed(name);
  return isa ? isa->description : name;
}

}  // namespace nd
