// Configurations and jobs of what is around the UNet: small autoencoders, tiles, diffusion without a
// condition.
#include "binding/convert.h"

namespace nd::binding {

namespace {

std::vector<int> counts(const Napi::Object& o, const char* name) {
  std::vector<int> out;
  for (const double n : numbers(o, name)) out.push_back(static_cast<int>(n));
  return out;
}

[[noreturn]] void wrong(const char* name, const char* expected) {
  throw Error(ErrorCode::InvalidArgument, format("Expected %s for %s", expected, name));
}

}  // namespace

TinyVaeConfig tinyVaeConfig(const Napi::Object& o) {
  TinyVaeConfig c;
  c.inChannels = integer(o, "inChannels");
  c.outChannels = integer(o, "outChannels");
  c.latentChannels = integer(o, "latentChannels");
  c.encoderChannels = integer(o, "encoderChannels");
  c.decoderChannels = integer(o, "decoderChannels");
  c.encoderBlocks = counts(o, "encoderBlocks");
  c.decoderBlocks = counts(o, "decoderBlocks");
  if (c.encoderBlocks.empty() && c.decoderBlocks.empty()) wrong("decoderBlocks", "at least one level");
  const std::string activation = string(o, "activation");
  if (activation == "silu")
    c.activation = Activation::Silu;
  else if (activation == "gelu")
    c.activation = Activation::Gelu;
  else if (activation != "relu")
    wrong("activation", "'relu', 'silu' or 'gelu'");
  return c;
}

UNet2dConfig unet2dConfig(const Napi::Object& o) {
  UNet2dConfig c;
  c.inChannels = integer(o, "inChannels");
  c.outChannels = integer(o, "outChannels");
  const Napi::Array levels = array(o, "levels");
  if (levels.Length() == 0) wrong("levels", "at least one level");
  for (uint32_t i = 0; i < levels.Length(); i++) {
    const auto l = levels.Get(i).As<Napi::Object>();
    c.levels.push_back({integer(l, "channels"), static_cast<int>(integer(l, "heads")),
                        static_cast<int>(integer(l, "upHeads"))});
  }
  c.resnets = static_cast<int>(integer(o, "resnets"));
  c.middle = boolean(o, "middle");
  c.midHeads = static_cast<int>(integer(o, "midHeads"));
  c.midGroups = static_cast<int>(integer(o, "midGroups"));
  c.normEps = static_cast<float>(number(o, "normEps"));
  c.normGroups = static_cast<int>(integer(o, "normGroups"));
  c.downsamplePadding = static_cast<int>(integer(o, "downsamplePadding"));
  c.timeWidth = integer(o, "timeWidth");
  c.flipSinToCos = boolean(o, "flipSinToCos");
  c.freqShift = number(o, "freqShift");
  return c;
}

VaeTiling vaeTiling(const Napi::Object& o) { return {integer(o, "tileSize"), number(o, "overlap")}; }

UnconditionalJob unconditionalJob(const Napi::Object& o) {
  UnconditionalJob job;
  job.batch = integer(o, "batch");
  job.height = integer(o, "height");
  job.width = integer(o, "width");
  job.plan = plan(object(o, "plan"));
  job.seeds = seeds(o, "seeds");
  job.noise = noiseKind(o, "rng");
  if (has(o, "latents")) job.latents = floats(o, "latents");
  job.pictures = boolean(o, "decode");
  job.stepLatents = boolean(o, "stepLatents");
  job.previewEvery = static_cast<int>(integer(o, "previewEvery"));
  return job;
}

Napi::Object toJs(Napi::Env env, const GenerateResult& r) {
  Napi::Object o = Napi::Object::New(env);
  o.Set("latents", toJs(env, r.latents, r.latentShape));
  o.Set("pixels", toJs(env, r.pixels));
  o.Set("height", static_cast<double>(r.height));
  o.Set("width", static_cast<double>(r.width));
  o.Set("decodedInTiles", r.decodedInTiles);
  if (!r.attention.empty()) o.Set("attention", toJs(env, r.attention, r.attentionShape));
  Napi::Object t = Napi::Object::New(env);
  t.Set("text", r.timings.text);
  t.Set("encode", r.timings.encode);
  t.Set("denoise", r.timings.denoise);
  t.Set("decode", r.timings.decode);
  o.Set("timings", t);
  return o;
}

}  // namespace nd::binding
