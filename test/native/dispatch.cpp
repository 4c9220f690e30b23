// Which kernels are chosen: argument, environment, the best.
#include "cpu/dispatch.h"

#include <cstdlib>

#include "engine/backend.h"
#include "test/native/check.h"

namespace nd {

namespace {
struct Environment {
  explicit Environment(const char* value) {
    const char* before = std::getenv("NODE_DIFFUSION_CPU");
    had_ = before != nullptr;
    if (had_) before_ = before;
    setenv("NODE_DIFFUSION_CPU", value, 1);
  }
  ~Environment() {
    if (had_)
      setenv("NODE_DIFFUSION_CPU", before_.c_str(), 1);
    else
      unsetenv("NODE_DIFFUSION_CPU");
  }
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

}  // namespace nd
