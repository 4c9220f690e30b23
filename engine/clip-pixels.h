// From a picture to what CLIP's image tower sees (transformers CLIPImageProcessor).
#pragma once

#include <array>
#include <vector>

#include "engine/resize.h"

namespace nd {

/// The steps in their order; one that is not asked for is left out. Defaults: CLIP's own, 224 × 224.
struct ClipPreprocessing {
  bool resize = true;
  int64_t shortestEdge = 224;  // the longer one follows, rounded down; 0: exactly resizeHeight × resizeWidth
  int64_t resizeHeight = 0, resizeWidth = 0;
  bool lanczos = false;  // else bicubic
  bool centerCrop = true;
  int64_t cropHeight = 224, cropWidth = 224;  // black around pictures that are smaller
  bool rescale = true;
  double rescaleFactor = 1.0 / 255;
  bool normalize = true;
  std::array<float, 3> mean = {0.48145466f, 0.4578275f, 0.40821073f};
  std::array<float, 3> deviation = {0.26862954f, 0.26130258f, 0.27577711f};
};

struct ClipPixels {
  int64_t width = 0, height = 0;
  std::vector<float> values;  // [3, height, width]
};

ClipPixels clipPixels(const Picture&, const ClipPreprocessing&);

}  // namespace nd
