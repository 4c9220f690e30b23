#include "engine/upscale-input.h"

namespace nd {

namespace {

/// One plane, as torch's interpolate(mode="bilinear", align_corners=True) in float32.
void enlarge(const float* from, int64_t height, int64_t width, float* to, int64_t outHeight,
             int64_t outWidth) {
  const auto step = [](int64_t in, int64_t out) {
    return out > 1 ? static_cast<float>(in - 1) / static_cast<float>(out - 1) : 0.0f;
  };
  const float down = step(height, outHeight), right = step(width, outWidth);
  for (int64_t y = 0; y < outHeight; y++) {
    const float atY = down * static_cast<float>(y);
    const auto y0 = static_cast<int64_t>(atY), y1 = y0 + (y0 + 1 < height ? 1 : 0);
    const float wy = atY - static_cast<float>(y0);
    for (int64_t x = 0; x < outWidth; x++) {
      const float atX = right * static_cast<float>(x);
      const auto x0 = static_cast<int64_t>(atX), x1 = x0 + (x0 + 1 < width ? 1 : 0);
      const float wx = atX - static_cast<float>(x0);
      to[y * outWidth + x] = (1 - wy) * ((1 - wx) * from[y0 * width + x0] + wx * from[y0 * width + x1]) +
                             wy * ((1 - wx) * from[y1 * width + x0] + wx * from[y1 * width + x1]);
    }
  }
}

}  // namespace

PreparedPicture prepareUpscale(const UpscaleInput& in, const PictureTarget& target, int64_t channels,
                               int64_t perPrompt, BatchNoise& noise) {
  const auto plane = static_cast<size_t>(target.height * target.width),
             each = plane * static_cast<size_t>(channels);
  const auto small = static_cast<size_t>(in.height * in.width),
             eachSmall = small * static_cast<size_t>(channels);
  const auto batch = static_cast<size_t>(target.batch);
  const size_t pictures = eachSmall ? in.low.size() / eachSmall : 0;
  if (pictures * eachSmall != in.low.size() ||
      (pictures != 1 && pictures * static_cast<size_t>(perPrompt) != batch))
    throw Error(ErrorCode::InvalidArgument,
                format("Expected one picture, or one per prompt (%lld), but received %zu",
                       static_cast<long long>(target.batch / perPrompt), pictures));
  PreparedPicture out;
  out.noise.assign(target.latents.begin(), target.latents.end());
  if (out.noise.empty()) {
    out.noise.resize(batch * each);
    noise.draw(out.noise.data(), target.batch, static_cast<int64_t>(each));
  }
  std::vector<float> added(batch * each);
  noise.draw(added.data(), target.batch, static_cast<int64_t>(each));
  for (size_t b = 0; b < batch; b++) {
    const float* low = in.low.data() + (pictures == 1 ? 0 : b / static_cast<size_t>(perPrompt)) * eachSmall;
    std::vector<float> large(each);
    for (size_t c = 0; c < static_cast<size_t>(channels); c++)
      enlarge(low + c * small, in.height, in.width, large.data() + c * plane, target.height, target.width);
    for (size_t i = 0; i < each; i++)
      out.extra.push_back(static_cast<float>(in.alpha * large[i] + in.sigma * added[b * each + i]));
  }
  const std::vector<float> once = out.extra;
  for (int k = 1; k < target.branches; k++) out.extra.insert(out.extra.end(), once.begin(), once.end());
  return out;
}

}  // namespace nd
