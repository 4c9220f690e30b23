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

}  // namespace

TextConfig textConfig(const Napi::Object& o) {
  const std::string kind = string(o, "kind");
  if (kind == "clip-text") return clipTextConfig(o);
  if (kind == "ldm-bert") return ldmBertConfig(o);
  wrong("kind", "'clip-text' or 'ldm-bert'");
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
