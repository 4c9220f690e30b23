// Backend tensors as host arrays, for jobs that hand them to JavaScript.
#pragma once

#include <vector>

#include "engine/ops.h"

namespace nd::binding {

inline std::vector<float> downloaded(Context& context, const Tensor& t) {
  std::vector<float> host(static_cast<size_t>(t.shape.count()));
  context.backend.download(t, host.data());
  return host;
}

/// An NHWC tensor as NCHW on the host.
struct HostImage {
  std::vector<float> data;
  Shape shape;
};
inline HostImage downloadedImage(Context& context, const Tensor& t) {
  HostImage out{std::vector<float>(static_cast<size_t>(t.shape.count())),
                {t.shape[0], t.shape[3], t.shape[1], t.shape[2]}};
  context.backend.downloadImage(t, out.data.data());
  return out;
}

inline void expectChannels(const Shape& shape, const char* name, int64_t channels) {
  if (shape.rank != 4 || shape[1] != channels)
    throw Error(ErrorCode::InvalidArgument,
                format("Expected shape [batch, %lld, height, width] for %s but received %s",
                       static_cast<long long>(channels), name, shape.text().c_str()));
}

}  // namespace nd::binding
