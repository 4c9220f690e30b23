#include "binding/convert.h"

#include <cmath>
#include <cstring>

namespace nd::binding {

namespace {

[[noreturn]] void wrong(const char* name, const char* expected) {
  throw Error(ErrorCode::InvalidArgument, format("Expected %s for %s", expected, name));
}

template <class Array, class T>
std::vector<T> typedArray(const Napi::Value& value, const char* name, napi_typedarray_type type,
                          const char* expected) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) wrong(name, expected);
  const auto a = value.As<Array>();
  return std::vector<T>(a.Data(), a.Data() + a.ElementLength());
}

double numberOf(const Napi::Value& value, const char* name) {
  if (!value.IsNumber()) wrong(name, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

std::pair<double, double> pair(const Napi::Object& o, const char* name) {
  const std::vector<double> values = numbers(o, name);
  if (values.size() != 2) wrong(name, "two numbers");
  return {values[0], values[1]};
}

constexpr const char* kBasisNames[kBasisCount] = {"x",  "m",  "h",  "n",  "nPrev", "n0", "orig", "r0",
                                                  "r1", "r2", "r3", "r4", "r5",    "r6", "r7"};

Basis basis(const std::string& name) {
  for (int i = 0; i < kBasisCount; i++)
    if (name == kBasisNames[i]) return static_cast<Basis>(i);
  throw Error(ErrorCode::InvalidArgument,
              "Expected x, m, h, n, nPrev, n0, orig or r0..r7 in a plan but received " + name);
}

PlanRow planRow(const Napi::Object& o) {
  PlanRow row;
  row.timestep = number(o, "timestep");
  row.inputScale = number(o, "inputScale");
  const Napi::Object c = object(o, "convert");
  row.a = number(c, "a"), row.b = number(c, "b"), row.c = number(c, "c"), row.d = number(c, "d");
  if (has(c, "clip")) row.clip = number(c, "clip");
  if (has(c, "threshold")) {
    const Napi::Object t = object(c, "threshold");
    row.threshold = PlanThreshold{number(t, "ratio"), number(t, "maxValue")};
  }
  const Napi::Array writes = array(o, "writes");
  for (uint32_t i = 0; i < writes.Length(); i++) {
    const auto w = writes.Get(i).As<Napi::Object>();
    PlanWrite write{basis(string(w, "to")), {}};
    if (write.to != Basis::x && write.to < Basis::r0) wrong("writes.to", "x or r0..r7");
    const Napi::Object terms = object(w, "terms");
    const Napi::Array names = terms.GetPropertyNames();
    for (uint32_t t = 0; t < names.Length(); t++) {
      const std::string name = names.Get(t).As<Napi::String>();
      const double coefficient = number(terms, name.c_str());
      if (coefficient != 0) write.terms.push_back({basis(name), coefficient});
    }
    row.writes.push_back(std::move(write));
  }
  row.draws = static_cast<int>(integer(o, "draws"));
  if (has(o, "learnedRange")) row.learnedRange = pair(o, "learnedRange");
  if (has(o, "blend")) row.blend = pair(o, "blend");
  if (has(o, "noise")) row.noise = pair(o, "noise");
  if (has(o, "guidance")) row.guidance = numbers(o, "guidance");
  if (has(o, "controlScales")) row.controlScales = numbers(o, "controlScales");
  row.step = boolean(o, "step");
  return row;
}

}  // namespace

std::vector<double> numbers(const Napi::Object& o, const char* name) {
  const Napi::Array a = array(o, name);
  std::vector<double> out;
  for (uint32_t i = 0; i < a.Length(); i++) out.push_back(numberOf(a.Get(i), name));
  return out;
}

bool has(const Napi::Object& o, const char* name) {
  const Napi::Value v = o.Get(name);
  return !v.IsUndefined() && !v.IsNull();
}
double number(const Napi::Object& o, const char* name) { return numberOf(o.Get(name), name); }
int64_t integer(const Napi::Object& o, const char* name) {
  const double v = number(o, name);
  if (!(std::fabs(v) < 9007199254740992.0) || v != std::floor(v)) wrong(name, "an integer");
  return static_cast<int64_t>(v);
}
bool boolean(const Napi::Object& o, const char* name) {
  const Napi::Value v = o.Get(name);
  if (!v.IsBoolean()) wrong(name, "a boolean");
  return v.As<Napi::Boolean>();
}
std::string string(const Napi::Object& o, const char* name) {
  const Napi::Value v = o.Get(name);
  if (!v.IsString()) wrong(name, "a string");
  return v.As<Napi::String>();
}
Napi::Object object(const Napi::Object& o, const char* name) {
  const Napi::Value v = o.Get(name);
  if (!v.IsObject()) wrong(name, "an object");
  return v.As<Napi::Object>();
}
Napi::Array array(const Napi::Object& o, const char* name) {
  const Napi::Value v = o.Get(name);
  if (!v.IsArray()) wrong(name, "an array");
  return v.As<Napi::Array>();
}
std::vector<float> floats(const Napi::Object& o, const char* name) {
  return typedArray<Napi::Float32Array, float>(o.Get(name), name, napi_float32_array, "a Float32Array");
}
std::vector<int32_t> ints(const Napi::Object& o, const char* name) {
  return typedArray<Napi::Int32Array, int32_t>(o.Get(name), name, napi_int32_array, "an Int32Array");
}
std::vector<uint8_t> bytes(const Napi::Object& o, const char* name) {
  return typedArray<Napi::Uint8Array, uint8_t>(o.Get(name), name, napi_uint8_array, "a Uint8Array");
}

JsTensor tensor(const Napi::Object& o, const char* name) {
  const Napi::Object t = object(o, name);
  JsTensor out{floats(t, "data"), {}};
  const std::vector<double> dims = numbers(t, "shape");
  if (dims.empty() || dims.size() > kMaxRank) wrong(name, "a shape of 1 to 6 dimensions");
  double count = 1;
  for (const double d : dims) {
    if (!(d >= 1 && d == std::floor(d))) wrong(name, "a shape of positive integers");
    out.shape.dim[out.shape.rank++] = static_cast<int64_t>(d);
    count *= d;
  }
  if (count != static_cast<double>(out.data.size()))
    throw Error(ErrorCode::InvalidArgument, format("Expected %.0f values for %s of shape %s but received %zu",
                                                   count, name, out.shape.text().c_str(), out.data.size()));
  return out;
}

std::vector<JsTensor> tensors(const Napi::Object& o, const char* name) {
  const Napi::Array all = array(o, name);
  std::vector<JsTensor> out;
  for (uint32_t i = 0; i < all.Length(); i++) {
    Napi::Object holder = Napi::Object::New(o.Env());
    holder.Set(name, all.Get(i));
    out.push_back(tensor(holder, name));
  }
  return out;
}

Napi::Value toJs(Napi::Env env, const std::vector<float>& data) {
  auto out = Napi::Float32Array::New(env, data.size());
  if (!data.empty()) std::memcpy(out.Data(), data.data(), data.size() * sizeof(float));
  return out;
}
Napi::Value toJs(Napi::Env env, const std::vector<uint8_t>& data) {
  auto out = Napi::Uint8Array::New(env, data.size());
  if (!data.empty()) std::memcpy(out.Data(), data.data(), data.size());
  return out;
}
Napi::Object toJs(Napi::Env env, const std::vector<float>& data, const Shape& shape) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("data", toJs(env, data));
  const auto dims = Napi::Array::New(env, static_cast<size_t>(shape.rank));
  for (int i = 0; i < shape.rank; i++)
    dims.Set(static_cast<uint32_t>(i), Napi::Number::New(env, static_cast<double>(shape[i])));
  out.Set("shape", dims);
  return out;
}

StepPlan plan(const Napi::Object& o) {
  StepPlan out;
  out.initNoiseSigma = number(o, "initNoiseSigma");
  const Napi::Array rows = array(o, "rows");
  for (uint32_t i = 0; i < rows.Length(); i++) out.rows.push_back(planRow(rows.Get(i).As<Napi::Object>()));
  return out;
}

static Activation activation(const Napi::Object& o, const char* name) {
  const std::string value = string(o, name);
  if (value == "none") return Activation::None;
  if (value == "silu") return Activation::Silu;
  if (value == "gelu") return Activation::Gelu;
  wrong(name, "'none', 'silu' or 'gelu'");
}

UNetConfig unetConfig(const Napi::Object& o) {
  UNetConfig c;
  c.inChannels = integer(o, "inChannels");
  c.outChannels = integer(o, "outChannels");
  const Napi::Array levels = array(o, "levels");
  if (levels.Length() == 0) wrong("levels", "at least one level");
  for (uint32_t i = 0; i < levels.Length(); i++) {
    const auto l = levels.Get(i).As<Napi::Object>();
    c.levels.push_back({
        .channels = integer(l, "channels"),
        .resnets = static_cast<int>(integer(l, "resnets")),
        .heads = static_cast<int>(integer(l, "heads")),
        .transformerLayers = static_cast<int>(integer(l, "transformerLayers")),
        .upHeads = static_cast<int>(integer(l, "upHeads")),
        .upTransformerLayers = static_cast<int>(integer(l, "upTransformerLayers")),
        .contextWidth = integer(l, "contextWidth"),
    });
  }
  c.midResnets = static_cast<int>(integer(o, "midResnets"));
  c.midAttention = boolean(o, "midAttention");
  c.midHeads = static_cast<int>(integer(o, "midHeads"));
  c.midTransformerLayers = static_cast<int>(integer(o, "midTransformerLayers"));
  c.normEps = static_cast<float>(number(o, "normEps"));
  c.normGroups = static_cast<int>(integer(o, "normGroups"));
  c.convInKernel = static_cast<int>(integer(o, "convInKernel"));
  c.convOutKernel = static_cast<int>(integer(o, "convOutKernel"));
  c.downsamplePadding = static_cast<int>(integer(o, "downsamplePadding"));
  c.flipSinToCos = boolean(o, "flipSinToCos");
  c.freqShift = number(o, "freqShift");
  c.timeCondWidth = integer(o, "timeCondWidth");
  c.addedTimeWidth = integer(o, "addedTimeWidth");
  c.addedInputWidth = integer(o, "addedInputWidth");
  if (has(o, "pixel")) {
    const Napi::Object p = object(o, "pixel");
    c.addedKv = boolean(p, "addedKv");
    c.activation = activation(p, "activation");
    c.timeWidth = integer(p, "timeWidth");
    c.timeActivation = activation(p, "timeActivation");
    c.skipTimeActivation = boolean(p, "skipTimeActivation");
    c.scaleShift = boolean(p, "scaleShift");
    c.outputScale = static_cast<float>(number(p, "outputScale"));
    c.midOutputScale = static_cast<float>(number(p, "midOutputScale"));
    c.classTimestep = boolean(p, "classTimestep");
    c.encoderWidth = integer(p, "encoderWidth");
    c.textPoolHeads = static_cast<int>(integer(p, "textPoolHeads"));
    c.normText = boolean(p, "normText");
    c.textOnly = boolean(p, "textOnly");
    c.midTextOnly = boolean(p, "midTextOnly");
  }
  return c;
}

VaeConfig vaeConfig(const Napi::Object& o) {
  VaeConfig c;
  c.inChannels = integer(o, "inChannels");
  c.outChannels = integer(o, "outChannels");
  c.latentChannels = integer(o, "latentChannels");
  for (const double n : numbers(o, "channels")) c.channels.push_back(static_cast<int64_t>(n));
  if (c.channels.empty()) wrong("channels", "at least one level");
  c.resnets = static_cast<int>(integer(o, "resnets"));
  c.normGroups = static_cast<int>(integer(o, "normGroups"));
  c.quantConv = boolean(o, "quantConv");
  c.postQuantConv = boolean(o, "postQuantConv");
  c.midAttention = boolean(o, "midAttention");
  return c;
}

GenerateJob generateJob(const Napi::Object& o) {
  GenerateJob job;
  const Napi::Object prompt = object(o, "prompt");
  job.prompt.rows = integer(prompt, "rows");
  job.prompt.chunks = integer(prompt, "chunks");
  job.prompt.length = integer(prompt, "length");
  job.prompt.skip = static_cast<int>(integer(prompt, "skip"));
  job.prompt.normSkipped = boolean(prompt, "normSkipped");
  job.prompt.negativeRows = integer(prompt, "negativeRows");
  job.prompt.negativeSkip = static_cast<int>(integer(prompt, "negativeSkip"));
  if (job.prompt.negativeRows < 0 || job.prompt.negativeRows > job.prompt.rows)
    wrong("negativeRows", "at most `rows`");
  const Napi::Array encoders = array(prompt, "encoders");
  for (uint32_t i = 0; i < encoders.Length(); i++) {
    job.prompt.encoders.push_back(encoderInput(encoders.Get(i).As<Napi::Object>()));
  }
  if (has(prompt, "zeroRows")) {
    const Napi::Array zero = array(prompt, "zeroRows");
    for (uint32_t i = 0; i < zero.Length(); i++)
      job.prompt.zeroRows.push_back(zero.Get(i).ToBoolean() ? 1 : 0);
    if (static_cast<int64_t>(job.prompt.zeroRows.size()) != job.prompt.rows)
      wrong("zeroRows", "one flag per row");
  }
  if (has(prompt, "embeds")) {
    JsTensor embeds = tensor(prompt, "embeds");
    if (embeds.shape.rank != 3 || embeds.shape[0] != job.prompt.rows)
      wrong("embeds", "a tensor [rows, tokens, width]");
    job.prompt.embedTokens = embeds.shape[1];
    job.prompt.embeds = std::move(embeds.data);
    if (has(prompt, "pooled")) job.prompt.pooled = tensor(prompt, "pooled").data;
  }
  job.branches = static_cast<int>(integer(o, "branches"));
  job.prompts = integer(o, "prompts");
  job.imagesPerPrompt = integer(o, "imagesPerPrompt");
  if (job.branches < 1 || job.prompts < 1 || job.imagesPerPrompt < 1 ||
      job.prompt.rows != job.branches * job.prompts)
    wrong("prompt.rows", "branches · prompts rows");
  if (has(o, "perturbed")) job.perturbed = ints(o, "perturbed");
  if (job.branches < job.prompted()) wrong("branches", "one for the prompt and one that is perturbed");
  job.latentHeight = integer(o, "latentHeight");
  job.latentWidth = integer(o, "latentWidth");
  if (has(o, "timeIds")) job.timeIds = floats(o, "timeIds");
  if (has(o, "timeCond")) job.timeCond = floats(o, "timeCond");
  if (has(o, "imagePrompts")) {
    const Napi::Array prompts = array(o, "imagePrompts");
    for (uint32_t i = 0; i < prompts.Length(); i++)
      job.imagePrompts.push_back(imagePrompt(prompts.Get(i).As<Napi::Object>()));
  }
  job.plan = plan(object(o, "plan"));
  for (const PlanRow& row : job.plan.rows)
    if (static_cast<int>(row.guidance.size()) + 1 < job.branches)
      wrong("plan.rows[].guidance", "a weight per extra branch");
  job.guidanceRescale = number(o, "guidanceRescale");
  job.seeds = seeds(o, "seeds");
  job.noise = noiseKind(o, "rng");
  if (has(o, "latents")) job.latents = floats(o, "latents");
  if (has(o, "picture")) job.picture = pictureInput(object(o, "picture"));
  if (has(o, "upscale")) {
    const Napi::Object u = object(o, "upscale");
    JsTensor low = tensor(u, "low");
    if (low.shape.rank != 4) wrong("low", "a tensor [n, C, height, width]");
    job.upscale =
        UpscaleInput{std::move(low.data), low.shape[2],       low.shape[3],
                     number(u, "alpha"),  number(u, "sigma"), static_cast<float>(number(u, "noiseLevel"))};
  }
  if (has(o, "controls")) job.controls = controlInputs(o, "controls");
  for (const PlanRow& row : job.plan.rows)
    if (row.controlScales.size() != job.controls.size())
      wrong("plan.rows[].controlScales", "a strength per control");
  job.guess = has(o, "guess") && boolean(o, "guess");
  if (has(o, "variation")) {
    const Napi::Object v = object(o, "variation");
    job.variation = {job.seeds,
                     seeds(v, "subseeds"),
                     number(v, "strength"),
                     integer(v, "fromHeight"),
                     integer(v, "fromWidth"),
                     job.noise};
  }
  if (has(o, "freeU")) {
    const Napi::Object f = object(o, "freeU");
    job.freeU = {number(f, "s1"), number(f, "s2"), number(f, "b1"), number(f, "b2")};
  }
  job.tileX = boolean(o, "tileX");
  job.tileY = boolean(o, "tileY");
  job.decode = boolean(o, "decode");
  job.stepLatents = boolean(o, "stepLatents");
  job.previewEvery = static_cast<int>(integer(o, "previewEvery"));
  job.fullPreview = has(o, "fullPreview") && boolean(o, "fullPreview");
  if (has(o, "vaeTiling")) job.tiling = vaeTiling(object(o, "vaeTiling"));
  job.attentionMaps = has(o, "attentionMaps") && boolean(o, "attentionMaps");
  return job;
}

LatentScaling latentScaling(const Napi::Object& o) {
  LatentScaling s{number(o, "scalingFactor"), has(o, "shiftFactor") ? number(o, "shiftFactor") : 0.0, {}, {}};
  if (has(o, "latentsMean") && has(o, "latentsStd")) {
    for (const double v : numbers(o, "latentsMean")) s.mean.push_back(static_cast<float>(v));
    for (const double v : numbers(o, "latentsStd")) s.deviation.push_back(static_cast<float>(v));
  }
  return s;
}

std::vector<uint64_t> seeds(const Napi::Object& o, const char* name) {
  const Napi::Array a = array(o, name);
  std::vector<uint64_t> out;
  for (uint32_t i = 0; i < a.Length(); i++) {
    bool lossless = false;
    if (!a.Get(i).IsBigInt()) wrong(name, "bigints");
    out.push_back(a.Get(i).As<Napi::BigInt>().Uint64Value(&lossless));
  }
  return out;
}

NoiseKind noiseKind(const Napi::Object& o, const char* name) {
  const std::string kind = string(o, name);
  if (kind != "cpu" && kind != "cuda") wrong(name, "'cpu' or 'cuda'");
  return kind == "cpu" ? NoiseKind::Cpu : NoiseKind::Cuda;
}

}  // namespace nd::binding
