// Which kernels are chosen: argument, environment, the best.
#include "cpu/dispatch.h"

#include <cstdlib>

#include "engine/backend.h"
#include "test/native/check.h"

namespace nd {

namespace {
struct Environment {
  explicit Environment(const char* value, const char* name = "NODE_DIFFUSION_CPU") : name_(name) {
    const char* before = std::getenv(name);
    had_ = before != nullptr;
    if (had_) before_ = before;
    setenv(name, value, 1);
  }
  ~Environment() {
    if (had_)
      setenv(name_, before_.c_str(), 1);
    else
      unsetenv(name_);
  }
  const char* name_;
  bool had_;
  std::string before_;
};

std::string firstSupported() {
  for (const IsaInfo& isa : cpuIsas())
    if (isa.supported) return isa.name;
  return {};
}
}  // namespace

ND_TEST("dispatch: the list is ordered and ends with what every machine has") {
  const std::vector<IsaInfo> isas = cpuIsas();
  CHECK(isas.size() == 4);
  CHECK(isas[0].name == "avx512" && isas[1].name == "avx2" && isas[2].name == "neon" &&
        isas[3].name == "scalar");
  CHECK(isas[3].compiled && isas[3].supported);
  for (const IsaInfo& isa : isas) CHECK(isa.compiled || !isa.supported);
}

ND_TEST("dispatch: argument before environment before the best") {
  const Environment unset("");
  CHECK(chooseKernels("").name == firstSupported());
  {
    const Environment scalar("scalar");
    CHECK(chooseKernels("").name == std::string("scalar"));
    CHECK(chooseKernels(firstSupported()).name == firstSupported());
    CHECK(makeCpuBackend(1)->description() == "portable vectors, 1 thread");
  }
  CHECK(makeCpuBackend(3, "scalar")->description() == "portable vectors, 3 threads");
}

ND_TEST("dispatch: unknown and missing names are refused with the choice") {
  CHECK_ERROR(chooseKernels("sse9"), ErrorCode::InvalidArgument, "'sse9'");
  CHECK_ERROR(makeCpuBackend(1, "sse9"), ErrorCode::InvalidArgument, "scalar");
  CHECK_ERROR(makeCpuBackend(-1), ErrorCode::InvalidArgument, "-1");
  const Environment wrong("sse9");
  CHECK_ERROR(makeCpuBackend(1), ErrorCode::InvalidArgument, "NODE_DIFFUSION_CPU");
  for (const IsaInfo& isa : cpuIsas())
    if (!isa.supported) CHECK_ERROR(chooseKernels(isa.name), ErrorCode::InvalidArgument, "this machine");
}

ND_TEST("dispatch: products of bfloat16 by name, else the best") {
  for (const IsaInfo& isa : cpuIsas()) {
    if (!isa.bf16) continue;
    const KernelTable& table = chooseKernels(isa.name);
    const std::vector<const Bf16Kernels*> list = bf16KernelsOf(table);
    CHECK(!list.empty());
    {
      const Environment unset("", "NODE_DIFFUSION_BF16");
      CHECK(&chooseBf16Kernels(table) == list.front());
    }
    for (const Bf16Kernels* kernels : list) {
      const Environment named(kernels->name, "NODE_DIFFUSION_BF16");
      CHECK(&chooseBf16Kernels(table) == kernels);
    }
    const Environment wrong("FP4", "NODE_DIFFUSION_BF16");
    CHECK_ERROR(chooseBf16Kernels(table), ErrorCode::InvalidArgument, "FP4");
    CHECK_ERROR(chooseBf16Kernels(table), ErrorCode::InvalidArgument, list.front()->name);
  }
}

}  // namespace nd
