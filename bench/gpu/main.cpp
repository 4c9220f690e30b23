// nd_gpu_bench: the CUDA backend on its own, without Node.js. Prints JSON, one object a line.
//   nd_gpu_bench device                    what is computed on
//   nd_gpu_bench operations MODEL…         time of every operation at the model's shapes
//   nd_gpu_bench model MODEL [STEPS]       the step loop with guidance, and the decoder; random weights
//   nd_gpu_bench files MODEL FOLDER        as model, with the weights and inputs of unet, vae and
//                                          inputs.safetensors in FOLDER; writes what one evaluation and the
//                                          decoder make of them to unet.f32 and picture.f32 (diffusers.py)
//   nd_gpu_bench parity MODEL [SIDE]       one UNet evaluation and every operation against the CPU backend
//   (float32)
// MODEL: sd15, sd21, sdxl, tiny. `--bf16` before the command: bfloat16.
// Work is recorded as a CUDA graph and replayed, so that what is timed is the GPU and not the queueing; the
// same memory every time, so what fits in the L2 cache (60 MB on an H200) is read from there.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>

#include "bench/gpu/prepared-operation.h"
#include "engine/denoise.h"
#include "engine/repeated.h"

namespace nd::bench {
namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Seconds of one `run`: the median of several replays of as many runs as take a few milliseconds.
double timed(Backend& backend, const std::function<void()>& run) {
  run();
  run();
  backend.synchronize();
  Clock::time_point start = Clock::now();
  run();
  backend.synchronize();
  const int runs = static_cast<int>(std::clamp(2e-3 / since(start), 1.0, 64.0));
  std::shared_ptr<Recording> recording;
  if (backend.beginRecording()) {
    for (int i = 0; i < runs; i++) run();
    recording = backend.endRecording();
  }
  const auto all = [&] {
    if (recording) return backend.replay(*recording);
    for (int i = 0; i < runs; i++) run();
  };
  all();
  backend.synchronize();
  std::vector<double> times;
  const Clock::time_point begin = Clock::now();
  while (times.size() < 5 || (since(begin) < 0.2 && times.size() < 100)) {
    start = Clock::now();
    all();
    backend.synchronize();
    times.push_back(since(start) / runs);
  }
  return median(times);
}

void operations(Backend& backend, const std::string& model) {
  for (const GpuOperation& o : gpuOperations(model)) {
    PreparedOperation prepared(backend, o);
    const double seconds = timed(backend, [&] { prepared.run(); });
    std::printf(
        "{\"model\":\"%s\",\"kind\":\"%s\",\"name\":\"%s\",\"b\":%lld,\"m\":%lld,\"n\":%lld,\"k\":%lld,\"h\":"
        "%lld,\"w\":"
        "%lld,\"skip\":%lld,\"l\":%lld,\"heads\":%lld,\"d\":%lld,\"kernel\":%d,\"stride\":%d,\"up\":%s,"
        "\"us\":%.3f,"
        "\"flops\":%.0f,\"bytes\":%.0f}\n",
        o.model.c_str(), o.kind.c_str(), o.name().c_str(), static_cast<long long>(o.b),
        static_cast<long long>(o.m), static_cast<long long>(o.n), static_cast<long long>(o.k),
        static_cast<long long>(o.h), static_cast<long long>(o.w), static_cast<long long>(o.skip),
        static_cast<long long>(o.l), static_cast<long long>(o.heads), static_cast<long long>(o.d), o.kernel,
        o.stride, o.up ? "true" : "false", seconds * 1e6, o.flops(), o.bytes());
    std::fflush(stdout);
  }
}

/// As generate() runs it: guidance halves as one batch, one recorded evaluation replayed per row.
double denoiseSeconds(RandomModel& model, int steps) {
  Context& context = model.context();
  const Clock::time_point start = Clock::now();
  StepPlan plan;
  for (int i = 0; i < steps; i++) {
    PlanRow row;
    row.guidance = {7.5};
    row.a = 1, row.b = -0.5;
    row.writes = {{Basis::x, {{Basis::x, 1}, {Basis::m, -0.01}}}};
    plan.rows.push_back(row);
  }
  const std::vector<float> initial = randomValues(4 * model.side() * model.side(), 9);
  DenoiseOptions o;
  o.height = o.width = model.side();
  o.branches = 2;
  o.initial = initial;
  Repeated evaluation;
  o.predict = [&](size_t row, const Tensor& x, double inputScale, const Tensor& out) {
    Arena::Scope step(context.arena);
    const Tensor latents = context.arena.tensor({2, model.side(), model.side(), 4});
    context.backend.modelInput(x, inputScale, 2, latents);
    model.unet().selectTime(context, model.time(), static_cast<int64_t>(row) % kRows, model.current());
    evaluation(context, [&] { model.predict(latents, out, 2); });
  };
  denoise(context, plan, o);
  return since(start);
}

/// All tensors of a file under their own names.
TensorMap fileTensors(const std::string& path) {
  const auto file = SafetensorsFile::open(path);
  TensorMap tensors(path);
  for (const auto& entry : file->entries()) tensors.add(entry.name, file, entry.name);
  return tensors;
}
std::vector<float> fileFloats(const SafetensorsFile& file, const std::string& name) {
  if (!file.has(name)) return {};
  const HostTensor tensor = file.tensor(name);
  expect(tensor.dtype == DType::F32, "inputs are float32");
  const auto* values = static_cast<const float*>(tensor.data);
  return {values, values + tensor.shape.count()};
}
void writeFloats(const std::string& path, const std::vector<float>& values) {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(float)));
  if (!out.flush()) throw Error(ErrorCode::Internal, "cannot write " + path);
}

/// `folder` empty: random weights and inputs.
void model(Backend& backend, const std::string& name, int steps, const std::string& folder = {}) {
  const ModelShape shape = modelShape(name);
  const auto tensors = [&](const std::string& component) -> std::unique_ptr<TensorMap> {
    if (folder.empty()) return std::make_unique<RandomTensors>(component);
    return std::make_unique<TensorMap>(fileTensors(folder + "/" + component + ".safetensors"));
  };
  ModelInputs inputs = randomInputs(shape, shape.latent);
  std::vector<float> z = randomValues(4 * shape.latent * shape.latent, 5);
  if (!folder.empty()) {
    const auto file = SafetensorsFile::open(folder + "/inputs.safetensors");
    inputs.sample = fileFloats(*file, "sample"), inputs.text = fileFloats(*file, "context");
    inputs.textEmbeds = fileFloats(*file, "pooled"), inputs.timeIds = fileFloats(*file, "time_ids");
    inputs.timesteps[0] = fileFloats(*file, "timestep").at(0);
    z = fileFloats(*file, "z");
  }
  Clock::time_point start = Clock::now();
  RandomModel unet(backend, shape, shape.latent, *tensors("unet"), std::move(inputs));
  backend.synchronize();
  const double load = since(start);
  std::vector<double> loops;
  const double first = denoiseSeconds(unet, steps);
  for (int i = 0; i == 0 || (i < 5 && first < 2); i++) loops.push_back(denoiseSeconds(unet, steps));
  const size_t unetPeak = unet.context().arena.peakBytes(), unetWeights = backend.memory().weights;

  if (!folder.empty()) writeFloats(folder + "/unet.f32", unet.evaluate(0));

  const WideRange range(backend, name == "sdxl");  // as the pipeline has it
  const Vae vae(shape.vae, WeightLoader(backend, *tensors("vae")));
  Arena arena(backend);
  Context context{backend, arena};
  const int64_t f = vae.factor();
  std::vector<uint8_t> pixels(static_cast<size_t>(unet.side() * f * unet.side() * f * 3));
  const auto decode = [&] {
    Arena::Scope scope(arena);
    backend.downloadPixels(
        vae.decode(context, uploadImage(context, z.data(), 1, 4, unet.side(), unet.side())), pixels.data());
  };
  if (!folder.empty()) {
    Arena::Scope scope(arena);
    std::vector<float> picture(pixels.size());
    backend.downloadImage(vae.decode(context, uploadImage(context, z.data(), 1, 4, unet.side(), unet.side())),
                          picture.data());
    writeFloats(folder + "/picture.f32", picture);
  }
  decode();
  std::vector<double> decodes;
  for (int i = 0; i == 0 || (i < 5 && decodes[0] < 2); i++) {
    start = Clock::now();
    decode();
    decodes.push_back(since(start));
  }
  std::printf(
      "{\"model\":\"%s\",\"steps\":%d,\"side\":%lld,\"first_loop_s\":%.5f,\"loop_s\":%.5f,\"step_ms\":%.4f,"
      "\"decode_s\":"
      "%.5f,\"load_s\":%.3f,\"unet_weight_bytes\":%zu,\"unet_activation_bytes\":%zu,\"vae_activation_bytes\":"
      "%zu}\n",
      name.c_str(), steps, static_cast<long long>(unet.side() * f), first, median(loops),
      median(loops) / steps * 1e3, median(decodes), load, unetWeights, unetPeak, arena.peakBytes());
}

bool parity(Backend& backend, const std::string& name, int64_t side) {
  const auto cpu = makeCpuBackend();
  const ModelShape shape = modelShape(name);
  bool good = true;
  const auto report = [&](const std::string& what, double error, double allowed) {
    good = good && error <= allowed;
    std::printf("{\"model\":\"%s\",\"what\":\"%s\",\"relative_error\":%.3g,\"allowed\":%.3g,\"ok\":%s}\n",
                name.c_str(), what.c_str(), error, allowed, error <= allowed ? "true" : "false");
    std::fflush(stdout);
  };
  {
    const std::vector<float> expected = RandomModel(*cpu, shape, side).evaluate(1);
    report("unet", relativeError(RandomModel(backend, shape, side).evaluate(1), expected), 1e-2);
  }
  // Results of one operation are rounded once from float32 sums of 16-bit inputs that the CPU does not round.
  for (const GpuOperation& o : gpuOperations(name)) {
    if (o.flops() > 4e10) continue;  // the CPU would take too long
    const std::vector<float> expected = PreparedOperation(*cpu, o).result();
    report(o.name(), relativeError(PreparedOperation(backend, o).result(), expected), 2e-3);
  }
  return good;
}

int run(int count, char** arguments) {
  std::vector<std::string> words(arguments + 1, arguments + count);
  DType type = DType::F16;
  if (!words.empty() && words[0] == "--bf16") type = DType::BF16, words.erase(words.begin());
  if (words.empty() || (words[0] != "device" && words.size() < 2))
    throw Error(ErrorCode::InvalidArgument,
                "Expected device, operations MODEL…, model MODEL [STEPS] or parity MODEL [SIDE]");
  const auto backend = makeCudaBackend(0, type);
  const auto number = [&](size_t i, int otherwise) {
    return words.size() > i ? std::atoi(words[i].c_str()) : otherwise;
  };
  if (words[0] == "device") {
    std::printf("{\"backend\":\"%s\",\"description\":\"%s\"}\n", backend->name().c_str(),
                backend->description().c_str());
  } else if (words[0] == "operations") {
    for (size_t i = 1; i < words.size(); i++) operations(*backend, words[i]);
  } else if (words[0] == "model") {
    model(*backend, words[1], number(2, 50));
  } else if (words[0] == "files" && words.size() > 2) {
    model(*backend, words[1], number(3, 50), words[2]);
  } else if (words[0] == "parity") {
    return parity(*backend, words[1], number(2, 0)) ? 0 : 1;
  } else {
    throw Error(ErrorCode::InvalidArgument,
                "Expected device, operations, model, files or parity but received " + words[0]);
  }
  return 0;
}

}  // namespace
}  // namespace nd::bench

int main(int count, char** arguments) {
  try {
    return nd::bench::run(count, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "nd_gpu_bench: %s\n", error.what());
    return 1;
  }
}
