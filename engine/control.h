// What steers the UNet from outside in one job, besides text: ControlNets, which see the latents of every
// step, and T2I-Adapters, which run once.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "engine/models/controlnet.h"
#include "engine/models/t2i-adapter.h"
#include "engine/models/unet.h"
#include "engine/repaint.h"
#include "engine/resize.h"

namespace nd {

/// The loaded ones, by the numbers that the caller gave them.
struct ControlModels {
  std::map<int64_t, std::unique_ptr<ControlNet>> nets;
  std::map<int64_t, std::unique_ptr<T2iAdapter>> adapters;
};

struct ControlInput {
  int64_t id = 0;
  bool adapter = false;            // a T2I-Adapter; else a ControlNet
  std::vector<Picture> pictures;   // of any size: resized as diffusers does (PIL's Lanczos)
  std::vector<int32_t> pictureOf;  // [batch]: which picture each image takes
  std::vector<Picture> masks;  // ControlNets for inpainting: one per picture, or none; see controlPicture()
};

/// What every evaluation gets, as the UNet does.
struct ControlTarget {
  int64_t batch, branches, prompted;  // the last `prompted` branches have the prompt
  int64_t height, width;              // of the pictures
  std::optional<Rectangle> region;    // of the pictures, to be painted alone: RepaintOptions::region
  bool guess;                         // guess_mode: ControlNets see the branches with the prompt alone
  std::span<const float> timesteps;
  int64_t perRow;  // timesteps and added conditions per evaluation: 1 or branches · batch
  const AddedConditions& added;
  const Tensor& text;  // [branches · batch, L, C]
};

/// A picture as a ControlNet sees it: [3, height, width] in 0..1, but −1 where the mask is bright.
std::vector<float> controlPicture(const Picture&, int64_t height, int64_t width, bool bgr,
                                  const Picture* mask = nullptr);
/// A picture as a T2I-Adapter sees it: [channels · factor², height / factor, width / factor] in 0..1; with
/// one channel PIL's grey.
std::vector<float> adapterTiles(const Picture&, int64_t height, int64_t width, int64_t channels,
                                int64_t factor);

/// y += scale · residual, where a residual of one pixel is for the whole map.
void addResidual(Context&, const Tensor& y, const Tensor& residual, float scale);

/// Prepared in the arena; lives as long as the step loop.
class Controls {
 public:
  Controls(Context&, const ControlModels&, std::span<const ControlInput>, const ControlTarget&);
  /// Before evaluation `row`: copies what differs between rows to where the evaluation finds it.
  void select(Context&, int64_t row) const;
  /// What joins the UNet. `latents` [branches · batch, h, w, C]: its input without further channels.
  /// `scales`: one per input, 0 where it rests. Refers to all of them.
  UNet::Joined joined(Context&, const Tensor& latents, std::span<const double> scales);

 private:
  struct Net {
    const ControlNet* net;
    size_t input;  // its number among the inputs
    Tensor hint;
    UNet::Text text;
    UNet::Time time, current;
  };
  struct Adapter {
    size_t input;
    std::vector<Tensor> maps;
  };
  void addNets(Context&, const Tensor& latents, std::span<const double> scales, std::span<const Tensor> skips,
               const Tensor& mid) const;

  std::vector<Net> nets_;
  std::vector<Adapter> adapters_;
  std::vector<AdapterMaps> scaled_;
  int64_t batch_, branches_, prompted_;
  bool guess_;
};

}  // namespace nd
