#include "binding/functions.h"

#include "binding/convert.h"
#include "binding/js-error.h"
#include "engine/host-floats.h"
#include "engine/safetensors.h"

namespace nd::binding {

Napi::Value readHeader(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    const auto file = SafetensorsFile::open(info[0].As<Napi::String>());
    const auto tensors = Napi::Array::New(env);
    for (const auto& entry : file->entries()) {
      Napi::Object t = Napi::Object::New(env);
      t.Set("name", entry.name);
      t.Set("dtype", entry.dtypeText);
      const auto shape = Napi::Array::New(env);
      for (const int64_t d : entry.shape) shape.Set(shape.Length(), static_cast<double>(d));
      t.Set("shape", shape);
      tensors.Set(tensors.Length(), t);
    }
    Napi::Object metadata = Napi::Object::New(env);
    for (const auto& [key, value] : file->metadata()) metadata.Set(key, value);
    Napi::Object out = Napi::Object::New(env);
    out.Set("tensors", tensors);
    out.Set("metadata", metadata);
    return out;
  });
}

Napi::Value readTensors(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto file = SafetensorsFile::open(info[0].As<Napi::String>());
    const auto names = info[1].As<Napi::Array>();
    Napi::Object out = Napi::Object::New(info.Env());
    for (uint32_t i = 0; i < names.Length(); i++) {
      const std::string name = names.Get(i).As<Napi::String>();
      const HostTensor tensor = file->tensor(name);
      out.Set(name, toJs(info.Env(), toFloats(tensor), tensor.shape));
    }
    return out;
  });
}

Napi::Value runPlan(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    const StepPlan compiled = plan(info[0].As<Napi::Object>());
    const auto o = info[1].As<Napi::Object>();
    const auto predict = info[2].As<Napi::Function>();
    const Napi::Array dims = array(o, "shape");
    const auto dim = [&](uint32_t i) { return dims.Get(i).As<Napi::Number>().Int64Value(); };
    if (dims.Length() != 4) throw Error(ErrorCode::InvalidArgument, "Expected shape [B, C, H, W]");

    std::vector<std::unique_ptr<NoiseSource>> sources;
    for (const uint64_t seed : seeds(o, "seeds"))
      sources.push_back(makeNoiseSource(seed, noiseKind(o, "rng")));
    BatchNoise noise(std::move(sources));
    const auto optional = [&](const char* name) {
      return has(o, name) ? floats(o, name) : std::vector<float>();
    };
    const std::vector<float> initial = optional("initial"), start = optional("start"),
                             original = optional("original"), mask = optional("mask");
    DenoiseOptions options;
    options.batch = dim(0), options.channels = dim(1), options.height = dim(2), options.width = dim(3);
    options.branches = static_cast<int>(integer(o, "branches"));
    options.guidanceRescale = number(o, "guidanceRescale");
    options.initial = initial, options.start = start, options.original = original, options.mask = mask;
    options.noise = &noise;

    const auto backend = makeReferenceBackend();
    Arena arena(*backend);
    Context context{*backend, arena};
    options.predict = [&](size_t row, const Tensor& x, double inputScale, const Tensor& out) {
      std::vector<float> input(static_cast<size_t>(x.shape.count()));
      backend->downloadPlan(x, input.data());
      for (float& v : input) v = static_cast<float>(v * inputScale);
      const Napi::Value y =
          predict.Call({toJs(env, input), Napi::Number::New(env, compiled.rows[row].timestep),
                        Napi::Number::New(env, static_cast<double>(row))});
      if (!y.IsTypedArray() ||
          y.As<Napi::TypedArray>().ElementLength() != static_cast<size_t>(out.shape.count()) ||
          y.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array)
        throw Error(ErrorCode::InvalidArgument, format("Expected a Float32Array of %lld values from predict",
                                                       static_cast<long long>(out.shape.count())));
      backend->uploadPlan(y.As<Napi::Float32Array>().Data(), out);
    };
    if (has(o, "outputChannels")) options.outputChannels = integer(o, "outputChannels");
    if (info.Length() > 3 && info[3].IsFunction()) {
      const auto onRow = info[3].As<Napi::Function>();
      options.onStep = [&, onRow](const StepState& s) {
        std::vector<float> x(static_cast<size_t>(s.x.shape.count())), p(x.size());
        backend->downloadPlan(s.x, x.data());
        backend->downloadPlan(s.p, p.data());
        onRow.Call({toJs(env, x), toJs(env, p)});
      };
    }
    return toJs(env, denoise(context, compiled, options));
  });
}

namespace {

class Noise : public Napi::ObjectWrap<Noise> {
 public:
  explicit Noise(const Napi::CallbackInfo& info) : Napi::ObjectWrap<Noise>(info) {
    guarded(info.Env(), [&] {
      bool lossless = false;
      const std::string kind = info[1].As<Napi::String>();
      source_ = makeNoiseSource(info[0].As<Napi::BigInt>().Uint64Value(&lossless),
                                kind == "cuda" ? NoiseKind::Cuda : NoiseKind::Cpu);
    });
  }
  Napi::Value randn(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      std::vector<float> out(info[0].As<Napi::Number>().Uint32Value());
      source_->randn(out.data(), static_cast<int64_t>(out.size()));
      return toJs(info.Env(), out);
    });
  }

 private:
  std::unique_ptr<NoiseSource> source_;
};

}  // namespace

Napi::Function defineNoise(Napi::Env env) {
  return Napi::ObjectWrap<Noise>::DefineClass(
      env, "Noise", {Napi::InstanceWrap<Noise>::InstanceMethod<&Noise::randn>("randn")});
}

Napi::Value inspect(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Napi::Env env = info.Env();
    const auto isas = Napi::Array::New(env);
    for (const IsaInfo& isa : cpuIsas()) {
      Napi::Object o = Napi::Object::New(env);
      o.Set("name", isa.name);
      o.Set("description", isa.description);
      o.Set("compiled", isa.compiled);
      o.Set("supported", isa.supported);
      o.Set("bfloat16", isa.bf16);
      isas.Set(isas.Length(), o);
    }
    Napi::Object out = Napi::Object::New(env);
    out.Set("isas", isas);
    out.Set("backend", makeCpuBackend()->description());
    out.Set("bfloat16Reason", whyNoBf16());
    const CudaInfo cuda = cudaInfo();
    const auto devices = Napi::Array::New(env);
    for (const CudaInfo::Device& device : cuda.devices) {
      Napi::Object o = Napi::Object::New(env);
      o.Set("index", device.index);
      o.Set("name", device.name);
      o.Set("computeCapability", format("%d.%d", device.capability / 10, device.capability % 10));
      o.Set("memory", static_cast<double>(device.memory));
      o.Set("reason", device.unusable);
      devices.Set(devices.Length(), o);
    }
    out.Set("cuda", cuda.reason.empty() ? Napi::Value(devices) : env.Null());
    out.Set("cudaReason", cuda.reason);
    return out;
  });
}

}  // namespace nd::binding
