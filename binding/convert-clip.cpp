#include "binding/convert.h"

namespace nd::binding {

namespace {

std::array<float, 3> three(const Napi::Object& o, const char* name) {
  const std::vector<float> values = floats(o, name);
  if (values.size() != 3)
    throw Error(ErrorCode::InvalidArgument, format("Expected three numbers for %s", name));
  return {values[0], values[1], values[2]};
}

}  // namespace

Activation clipActivation(const Napi::Object& o) {
  const std::string name = string(o, "activation");
  if (name == "gelu") return Activation::Gelu;
  if (name == "quick_gelu") return Activation::QuickGelu;
  throw Error(ErrorCode::InvalidArgument, "Expected 'quick_gelu' or 'gelu' for activation");
}

ClipVisionConfig clipVisionConfig(const Napi::Object& o) {
  return {
      .hiddenSize = integer(o, "hiddenSize"),
      .intermediateSize = integer(o, "intermediateSize"),
      .channels = integer(o, "channels"),
      .imageSize = integer(o, "imageSize"),
      .patchSize = integer(o, "patchSize"),
      .layers = static_cast<int>(integer(o, "layers")),
      .heads = static_cast<int>(integer(o, "heads")),
      .activation = clipActivation(o),
      .layerNormEps = static_cast<float>(number(o, "layerNormEps")),
      .projectionDim = integer(o, "projectionDim"),
  };
}

IpAdapterConfig ipAdapterConfig(const Napi::Object& o) {
  const std::string kind = string(o, "projection");
  if (kind != "tokens" && kind != "states" && kind != "resampler")
    throw Error(ErrorCode::InvalidArgument, "Expected 'tokens', 'states' or 'resampler' for projection");
  IpAdapterConfig c{
      .projection = kind == "tokens"   ? ImageProjectionKind::Tokens
                    : kind == "states" ? ImageProjectionKind::States
                                       : ImageProjectionKind::Resampler,
      .embedWidth = integer(o, "embedWidth"),
      .contextWidth = integer(o, "contextWidth"),
      .tokens = integer(o, "tokens"),
      .width = integer(o, "width"),
      .feedForwardWidth = integer(o, "feedForwardWidth"),
      .heads = static_cast<int>(integer(o, "heads")),
      .layers = static_cast<int>(integer(o, "layers")),
      .headWidth = integer(o, "headWidth"),
      .attentions = {},
  };
  const Napi::Array attentions = array(o, "attentions");
  for (uint32_t i = 0; i < attentions.Length(); i++)
    c.attentions.push_back(attentions.Get(i).ToNumber().Int64Value());
  return c;
}

ImagePrompt imagePrompt(const Napi::Object& o) {
  return {.rows = integer(o, "rows"),
          .images = integer(o, "images"),
          .states = integer(o, "states"),
          .embeds = floats(o, "embeds"),
          .scales = floats(o, "scales")};
}

ClipPreprocessing clipPreprocessing(const Napi::Object& o) {
  return {
      .resize = boolean(o, "resize"),
      .shortestEdge = integer(o, "shortestEdge"),
      .resizeHeight = integer(o, "resizeHeight"),
      .resizeWidth = integer(o, "resizeWidth"),
      .lanczos = boolean(o, "lanczos"),
      .centerCrop = boolean(o, "centerCrop"),
      .cropHeight = integer(o, "cropHeight"),
      .cropWidth = integer(o, "cropWidth"),
      .rescale = boolean(o, "rescale"),
      .rescaleFactor = number(o, "rescaleFactor"),
      .normalize = boolean(o, "normalize"),
      .mean = three(o, "mean"),
      .deviation = three(o, "deviation"),
  };
}

}  // namespace nd::binding
