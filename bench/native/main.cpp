// nd_bench: GFLOP/s and share of the measured peak for the matrix products of SD1.5.
//   nd_bench [--json] [--isa avx2] [--threads 2] [--seconds 0.5 per problem] [--peers] [--processor-time]
//            [part of a name ...]
// A convolution counts the operations of its definition, so that Winograd's exceed the peak. Each problem
// alternates with the peak measurement and the best of each counts: the machine may be busy elsewhere.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "bench/native/attention-bench.h"
#include "bench/native/peak.h"
#include "bench/native/peers.h"
#include "bench/native/prepared.h"
#include "cpu/cpu-backend.h"
#include "cpu/dispatch.h"

namespace nd::bench {
namespace {

struct Options {
  bool json = false, peers = false, processorTime = false;
  std::string isa;
  int threads = 0;
  double seconds = 0.5;
  std::vector<std::string> names;
};

struct Times {
  double own = 1e30, plain = 1e30, openblas = 1e30, onednn = 1e30;  // plain: as one sum of products
};

template <class Body>
void keepBest(double& best, Body&& body) {
  if constexpr (std::is_constructible_v<bool, Body>)
    if (!body) return;
  const double start = seconds();
  body();
  best = std::min(best, seconds() - start);
}

void report(const Options& o, const Problem& p, const char* isa, int threads, const Times& times,
            double peak) {
  const double speed = p.flops() / times.own * 1e-9;
  const double openblas = p.flops() / times.openblas * 1e-9, onednn = p.flops() / times.onednn * 1e-9,
               plain = p.flops() / times.plain * 1e-9;
  if (o.json)
    std::printf(
        "{\"name\":\"%s\",\"isa\":\"%s\",\"threads\":%d,\"ms\":%.4f,\"gflops\":%.2f,\"peak\":%.2f,"
        "\"share\":%.4f,\"plain\":%.2f,\"openblas\":%.2f,\"onednn\":%.2f}\n",
        p.name, isa, threads, times.own * 1e3, speed, peak, speed / peak, plain, openblas, onednn);
  else
    std::printf("%-28s %10.3f %10.1f %7.1f%% %10.1f %10.1f %10.1f\n", p.name, times.own * 1e3, speed,
                100 * speed / peak, plain, openblas, onednn);
  std::fflush(stdout);
}

/// GFLOP/s of `peak` GFLOP/s, or GB/s of `peak` GB/s.
void reportOperation(const Options& o, const Operation& operation, const char* isa, int threads, double best,
                     double peak) {
  const bool arithmetic = operation.flops > 0;
  const double speed = (arithmetic ? operation.flops : operation.bytes) / best * 1e-9;
  const char* unit = arithmetic ? "gflops" : "gbytes";
  if (o.json)
    std::printf(
        "{\"name\":\"%s\",\"isa\":\"%s\",\"threads\":%d,\"ms\":%.4f,\"%s\":%.2f,\"peak\":%.2f,\"share\":%.4f}"
        "\n",
        operation.name.c_str(), isa, threads, best * 1e3, unit, speed, peak, speed / peak);
  else
    std::printf("%-28s %10.3f %10.1f %7.1f%%%s\n", operation.name.c_str(), best * 1e3, speed,
                100 * speed / peak, arithmetic ? "" : "  GB/s, of the bandwidth");
  std::fflush(stdout);
}

bool wanted(const Options& o, const char* name) {
  for (const std::string& part : o.names)
    if (std::strstr(name, part.c_str())) return true;
  return o.names.empty();
}

void runAll(const Options& o) {
  if (o.processorTime && o.threads != 1)
    throw Error(ErrorCode::InvalidArgument,
                "Expected --threads 1 beside --processor-time: waiting threads would count");
  if (o.processorTime) useProcessorTime();
  const KernelTable& kernels = chooseKernels(o.isa);
  CpuBackend backend(kernels, o.threads);
  ThreadPool& pool = backend.pool();
  ThreadPool single(1);
  const double bandwidth = readBandwidth(pool, 0.5), onePeak = fmaPeak(kernels.name, single, 0.3);
  const double allPeak = fmaPeak(kernels.name, pool, 0.3);
  if (o.json)
    std::printf("{\"isa\":\"%s\",\"threads\":%d,\"peak1\":%.2f,\"peak\":%.2f,\"bandwidth\":%.2f}\n",
                kernels.name, pool.threads(), onePeak, allPeak, bandwidth);
  else
    std::printf(
        "%s: fp32 peak %.1f GFLOP/s on one thread, %.1f on %d; %.1f GB/s\n%-28s %10s %10s %8s %10s %10s "
        "%10s\n",
        kernels.name, onePeak, allPeak, pool.threads(), bandwidth, "", "ms", "GFLOP/s", "of peak", "plain",
        "OpenBLAS", "oneDNN");
  for (const Problem& problem : sd15Problems()) {
    if (!wanted(o, problem.name)) continue;
    Prepared prepared(backend, problem);
    const auto openblas = o.peers ? openblasRunner(problem, pool.threads()) : nullptr;
    const auto onednn = o.peers ? onednnRunner(problem, pool.threads()) : nullptr;
    Times times;
    double peak = 0;
    const double end = seconds() + o.seconds;
    for (int round = 0; round < 3 || seconds() < end; round++) {
      peak = std::max(peak, fmaPeak(kernels.name, pool, 0.003));
      keepBest(times.own, [&] { prepared.run(); });
      backend.winogradOptions.use = backend.strassenUse = FewerProducts::Never;
      keepBest(times.plain, [&] { prepared.run(); });
      backend.winogradOptions.use = backend.strassenUse = FewerProducts::WhereFaster;
      keepBest(times.openblas, openblas);
      keepBest(times.onednn, onednn);
    }
    report(o, problem, kernels.name, pool.threads(), times, peak);
  }
  for (const Operation& operation :
       sd15Operations(backend, [&](const char* name) { return wanted(o, name); })) {
    double best = 1e30, peak = 0;
    const double end = seconds() + o.seconds;
    for (int round = 0; round < 3 || seconds() < end; round++) {
      peak = std::max(peak, operation.flops > 0 ? fmaPeak(kernels.name, pool, 0.003) : bandwidth);
      keepBest(best, operation.run);
    }
    reportOperation(o, operation, kernels.name, pool.threads(), best, peak);
  }
}

Options parse(int count, char** arguments) {
  Options o;
  for (int i = 1; i < count; i++) {
    const std::string a = arguments[i];
    const bool more = i + 1 < count;
    if (a == "--json") {
      o.json = true;
    } else if (a == "--peers") {
      o.peers = true;
    } else if (a == "--processor-time") {
      o.processorTime = true;
    } else if (a == "--isa" && more) {
      o.isa = arguments[++i];
    } else if (a == "--threads" && more) {
      o.threads = std::atoi(arguments[++i]);
    } else if (a == "--seconds" && more) {
      o.seconds = std::atof(arguments[++i]);
    } else if (a.rfind("--", 0) == 0) {
      throw Error(
          ErrorCode::InvalidArgument,
          "Expected --json, --peers, --processor-time, --isa NAME, --threads N or --seconds S but received " +
              a);
    } else {
      o.names.push_back(a);
    }
  }
  return o;
}

}  // namespace
}  // namespace nd::bench

int main(int count, char** arguments) {
  try {
    nd::bench::runAll(nd::bench::parse(count, arguments));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "nd_bench: %s\n", error.what());
    return 1;
  }
}
