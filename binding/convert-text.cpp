// Configs and inputs of text encoders.
#include "binding/convert.h"

namespace nd::binding {

namespace {

[[noreturn]] void wrong(const char* name, const char* expected) {
  throw Error(ErrorCode::InvalidArgument, format("Expected %s for %s", expected, name));
}

ClipTextConfig clipTextConfig(const Napi::Object& o) {
  return {
      .vocabSize = integer(o, "vocabSize"),
      .hiddenSize = integer(o, "hiddenSize"),
      .intermediateSize = integer(o, "intermediateSize"),
      .maxPositions = integer(o, "maxPositions"),
      .layers = static_cast<int>(integer(o, "layers")),
      .heads = static_cast<int>(integer(o, "heads")),
      .activation = clipActivation(o),
      .layerNormEps = static_cast<float>(number(o, "layerNormEps")),
      .eosTokenId = static_cast<int>(integer(o, "eosTokenId")),
      .projectionDim = integer(o, "projectionDim"),
  };
}

LdmBertConfig ldmBertConfig(const Napi::Object& o) {
  if (string(o, "activation") != "gelu") wrong("activation", "'gelu'");
  return {
      .vocabSize = integer(o, "vocabSize"),
      .hiddenSize = integer(o, "hiddenSize"),
      .intermediateSize = integer(o, "intermediateSize"),
      .maxPositions = integer(o, "maxPositions"),
      .layers = static_cast<int>(integer(o, "layers")),
      .heads = static_cast<int>(integer(o, "heads")),
      .headDim = integer(o, "headDim"),
      .activation = Activation::Gelu,
  };
}

T5Config t5Config(const Napi::Object& o) {
  T5Config c;
  c.vocabSize = integer(o, "vocabSize");
  c.hiddenSize = integer(o, "hiddenSize");
  c.intermediateSize = integer(o, "intermediateSize");
  c.headDim = integer(o, "headDim");
  c.layers = static_cast<int>(integer(o, "layers"));
  c.heads = static_cast<int>(integer(o, "heads"));
  c.gated = boolean(o, "gated");
  c.activation = c.gated ? Activation::GeluTanh : Activation::Relu;
  c.layerNormEps = static_cast<float>(number(o, "layerNormEps"));
  c.buckets = static_cast<int>(integer(o, "buckets"));
  c.maxDistance = static_cast<int>(integer(o, "maxDistance"));
  c.maxPositions = integer(o, "maxPositions");
  return c;
}

}  // namespace

TextConfig textConfig(const Napi::Object& o) {
  const std::string kind = string(o, "kind");
  if (kind == "clip-text") return clipTextConfig(o);
  if (kind == "ldm-bert") return ldmBertConfig(o);
  if (kind == "t5") return t5Config(o);
  wrong("kind", "'clip-text', 'ldm-bert' or 't5'");
}

EncoderInput encoderInput(const Napi::Object& o) {
  EncoderInput input{ints(o, "ids"), {}, {}};
  if (has(o, "weights")) {
    input.weights = floats(o, "weights");
    if (input.weights.size() != input.ids.size()) wrong("weights", "one weight per token");
  }
  if (has(o, "mask")) {
    input.mask = bytes(o, "mask");
    if (input.mask.size() != input.ids.size()) wrong("mask", "one flag per token");
  }
  return input;
}

}  // namespace nd::binding
