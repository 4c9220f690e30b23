// What the step loop needs: latents (float32 NCHW) to the model's NHWC input and back, and the row of the
// plan.
#include "cpu/reference/plan-step.h"
#include "cpu/reference/reference.h"

namespace nd {

void ReferenceBackend::modelInput(Tensor x, double scale, int copies, Tensor y) {
  const int64_t batch = x.shape[0], channels = x.shape[1], pixels = x.shape[2] * x.shape[3];
  for (int64_t copy = 0; copy < copies; copy++)
    for (int64_t b = 0; b < batch; b++)
      for (int64_t p = 0; p < pixels; p++)
        for (int64_t c = 0; c < channels; c++)
          reference::row(y, (copy * batch + b) * pixels + p)[c] =
              static_cast<float>(scale * x.f32()[(b * channels + c) * pixels + p]);
}

void ReferenceBackend::modelOutput(Tensor x, Tensor nchw) { downloadImage(x, nchw.f32()); }

void ReferenceBackend::planStep(const PlanStepArgs& args) { planStepFloat(args); }

}  // namespace nd
