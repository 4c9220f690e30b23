// Pictures from latents: tile by tile where memory is short, and in an autoencoder's own range.
#include <cmath>

#include "bench/gpu/random-models.h"
#include "engine/generate.h"
#include "test/native/backends.h"
#include "test/native/check.h"

namespace nd::test {
namespace {

/// Every pixel is its latent's first channel; more than `most` latents do not fit in memory.
class Limited final : public Autoencoder {
 public:
  explicit Limited(int64_t most) : most_(most) {}
  int64_t factor() const override { return 8; }
  int64_t latentChannels() const override { return 4; }
  int64_t inChannels() const override { return 3; }
  int64_t outChannels() const override { return 3; }
  bool posterior() const override { return true; }
  Tensor encode(Context&, const Tensor& x) const override { return x; }
  Tensor decode(Context& context, const Tensor& z) const override {
    const int64_t h = z.shape[1], w = z.shape[2];
    decodes++;
    if (h * w > most_) throw Error(ErrorCode::OutOfMemory, "too large");
    std::vector<float> latents(static_cast<size_t>(4 * h * w)), picture(static_cast<size_t>(3 * 64 * h * w));
    context.backend.downloadImage(z, latents.data());
    for (size_t i = 0; i < picture.size(); i++) {
      const auto pixel = static_cast<int64_t>(i) % (64 * h * w), y = pixel / (8 * w) / 8,
                 x = pixel % (8 * w) / 8;
      picture[i] = latents[static_cast<size_t>(y * w + x)];
    }
    return uploadImage(context, picture.data(), 1, 3, 8 * h, 8 * w);
  }
  mutable int decodes = 0;

 private:
  int64_t most_;
};

std::vector<float> ramp(int64_t h, int64_t w) {
  std::vector<float> latents(static_cast<size_t>(4 * h * w));
  for (size_t i = 0; i < latents.size(); i++)
    latents[i] = static_cast<float>(static_cast<int64_t>(i) % (h * w)) / static_cast<float>(h * w) - 0.5f;
  return latents;
}

constexpr LatentScaling kPlain{1, 0, {}, {}};

}  // namespace

ND_TEST("decodePixels: tile by tile where memory is short") {
  const auto backend = makeCpuBackend(1);
  Arena arena(*backend);
  Context context{*backend, arena};
  const int64_t h = 70, w = 90;
  const auto decoded = [&](const Autoencoder& vae, bool* inTiles) {
    return decodePixels(context, &vae, kPlain, ramp(2 * h, w), {2, 4, h, w}, inTiles);
  };
  bool inTiles = true;
  const Limited roomy(h * w), narrow(64 * 64), none(1);
  const std::vector<uint8_t> whole = decoded(roomy, &inTiles);
  CHECK(!inTiles && roomy.decodes == 2);
  // What overlaps is the same in every tile, so that blending changes nothing but the last bit.
  const std::vector<uint8_t> tiles = decoded(narrow, &inTiles);
  CHECK(inTiles && narrow.decodes == 1 + 2 * 4 && tiles.size() == whole.size());
  for (size_t i = 0; i < whole.size(); i++) CHECK(std::abs(int(tiles[i]) - int(whole[i])) <= 1);
  CHECK_ERROR(decoded(none, &inTiles), ErrorCode::OutOfMemory, "too large");
  CHECK_ERROR(decodePixels(context, &none, kPlain, ramp(64, 64), {1, 4, 64, 64}), ErrorCode::OutOfMemory,
              "too large");
  const TiledAutoencoder asked(narrow, {1024, 0.25});
  CHECK_ERROR(decoded(asked, &inTiles), ErrorCode::OutOfMemory, "too large");
}

ND_TEST("cuda decodePixels: an autoencoder in its own range") {
  if (const CudaInfo info = cudaInfo(); !info.reason.empty()) throw ndtest::Skip(info.reason);
  const auto gpu = makeCudaBackend(), cpu = makeCpuBackend(1);
  const std::vector<float> latents = bench::randomValues(4 * 3 * 3, 4);
  const auto decoded = [&](Backend& backend) {
    std::unique_ptr<Vae> vae;
    {
      const WideRange range(backend, true);
      vae = std::make_unique<Vae>(bench::modelShape("tiny").vae,
                                  WeightLoader(backend, bench::RandomTensors("vae")));
    }
    vae->wideRange = true;
    Arena arena(backend);
    Context context{backend, arena};
    return decodePixels(context, vae.get(), kPlain, latents, {1, 4, 3, 3});
  };
  const std::vector<uint8_t> expected = decoded(*cpu), actual = decoded(*gpu);
  double sum = 0;
  for (size_t i = 0; i < expected.size(); i++) sum += std::abs(int(actual[i]) - int(expected[i]));
  const double mean = sum / static_cast<double>(expected.size());
  ndtest::note(format("%.2f levels on average", mean));
  CHECK(mean < 3);
}

ND_TEST("cuda backend: what float16 cannot hold fits in the wide range") {
  if (const CudaInfo info = cudaInfo(); !info.reason.empty()) throw ndtest::Skip(info.reason);
  const auto gpu = makeCudaBackend();
  const auto run = [&](bool wide) {
    const WideRange range(*gpu, wide);
    const WeightPtr weight =
        makeWeight(*gpu, WeightKind::Linear, HostWeight({8, 8}, std::vector<float>(64, 320), DType::F16));
    const OnBackend x(*gpu, {2, 8}, std::vector<float>(16, 256)), y(*gpu, {2, 8});
    gpu->linear({weight.get(), nullptr, x, y});
    return y.download()[3];
  };
  CHECK(std::isinf(run(false)));
  CHECK(run(true) == 655360);
  CHECK(std::isinf(run(false)));
  const WeightPtr narrow =
      makeWeight(*gpu, WeightKind::Linear, HostWeight({8, 8}, std::vector<float>(64, 1), DType::F16));
  const WideRange range(*gpu, true);
  const OnBackend x(*gpu, {2, 8}), y(*gpu, {2, 8});
  CHECK_ERROR((gpu->linear({narrow.get(), nullptr, x, y}), 0), ErrorCode::Internal, "one range");
}

}  // namespace nd::test
