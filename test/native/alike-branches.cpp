// What guidance's branches share before the text, computed once: bit for bit what computing it for each of
// them gives.
#include "bench/gpu/random-models.h"
#include "engine/models/controlnet.h"
#include "test/native/backends.h"
#include "test/native/check.h"

namespace nd::test {
namespace {

using bench::RandomModel;
using Values = std::vector<float>;

/// The tiny model's latents for one image, and the same again for the other branch.
Values twice(int64_t side) {
  Values x = bench::randomValues(4 * side * side, 5);
  const Values once = x;
  x.insert(x.end(), once.begin(), once.end());
  return x;
}

Values downloaded(Context& context, const Tensor& image) {
  Values out(static_cast<size_t>(image.shape.count()));
  context.backend.downloadImage(image, out.data());
  return out;
}

/// One evaluation; `operations` gets the labels of what ran.
Values evaluated(RandomModel& model, const UNet::Text& text, int64_t alike, Profile& operations) {
  Arena::Scope scope(model.context().arena);
  Context context = model.context();
  context.profile = &operations;
  UNet::Joined joined;
  joined.alike = alike;
  const int64_t side = model.side();
  const Tensor x = uploadImage(context, twice(side).data(), 2, 4, side, side);
  return downloaded(context, model.unet().forward(context, x, model.time(), 3, text, nullptr, joined));
}

int64_t calls(const Profile& profile, const std::string& operation) {
  const auto found = profile.entries.find(operation);
  return found == profile.entries.end() ? 0 : found->second.calls;
}

}  // namespace

ND_TEST("alike branches: a UNet's first stage runs once") {
  const auto cpu = makeCpuBackend(2);
  RandomModel model(*cpu, bench::modelShape("tiny"));
  Profile apart, together;
  const Values expected = evaluated(model, model.text(), 1, apart);
  if (evaluated(model, model.text(), 2, together) != expected) fail("the branches' common part changes them");
  const std::string conv = "conv2d 3x3 s1 4->32 @ ", attention = "attention h2 d16 @ ";
  if (calls(apart, conv + "2x7x7") != 1 || calls(together, conv + "1x7x7") != 1 ||
      calls(together, conv + "2x7x7") != 0)
    fail("conv_in has not run once");
  if (calls(together, attention + "1x49x49") != 1 ||
      calls(together, attention + "2x49x49") != calls(apart, attention + "2x49x49") - 1)
    fail("the first self-attention has not run once");
}

ND_TEST("alike branches: a first block of perturbed attention keeps them apart") {
  const auto cpu = makeCpuBackend(2);
  RandomModel model(*cpu, bench::modelShape("tiny"));
  UNet::Text text = model.text();
  const std::vector<int32_t> first = {0};
  UNet::perturb(text, first, {1, 1});
  Profile apart, together;
  const Values expected = evaluated(model, text, 1, apart);
  if (evaluated(model, text, 2, together) != expected) fail("a perturbed block has seen the other branch");
  Profile plain;
  if (evaluated(model, model.text(), 2, plain) == expected) fail("the block has not been perturbed");
}

ND_TEST("alike branches: a ControlNet's first stage runs once") {
  const auto cpu = makeCpuBackend(2);
  Arena arena(*cpu);
  Context context{*cpu, arena};
  const bench::ModelShape shape = bench::modelShape("tiny");
  ControlNetConfig config;
  config.unet = shape.unet;
  config.pictureWidths = {8, 12};
  const ControlNet net(config, WeightLoader(*cpu, bench::RandomTensors("control")));
  const int64_t side = 6;
  const UNet::Text text = net.prepareText(
      context, upload(context, bench::randomValues(2 * 77 * 24, 1), {2, 77, net.textWidth()}));
  const std::vector<float> timestep = {500};
  const UNet::Time time = net.prepareTime(context, timestep, 1);
  const Values picture = bench::randomValues(3 * 4 * side * side, 2);
  const Tensor one = net.hint(context, uploadImage(context, picture.data(), 1, 3, 2 * side, 2 * side));
  const Tensor hint = context.arena.tensor({2, side, side, one.shape.last()});
  for (int64_t b = 0; b < 2; b++) cpu->copyColumns(one, slice(context, hint, b, 1), 0);
  const Tensor x = uploadImage(context, twice(side).data(), 2, 4, side, side);

  const auto residuals = [&](int64_t alike, Profile& operations) {
    Context watched = context;
    watched.profile = &operations;
    std::vector<Values> out;
    net.forward(
        watched, x, hint, time, 0, text,
        [&](size_t, const Tensor& residual) { out.push_back(downloaded(context, residual)); }, alike);
    return out;
  };
  Profile apart, together;
  if (residuals(2, together) != residuals(1, apart)) fail("the branches' common part changes them");
  if (calls(together, "conv2d 3x3 s1 4->32 @ 1x6x6") != 1) fail("conv_in has not run once");
}

}  // namespace nd::test
