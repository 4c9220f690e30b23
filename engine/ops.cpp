#include "engine/ops.h"

#include <chrono>
#include <cmath>

namespace nd {

namespace {

/// Times one backend call into the context's profile, if there is one.
class Timer {
 public:
  Timer(Context& context, std::string name, double flops)
      : context_(context), name_(std::move(name)), flops_(flops) {
    context_.checkAbort();
    if (context_.profile) start_ = std::chrono::steady_clock::now();
  }
  ~Timer() {
    if (!context_.profile) return;
    try {
      context_.backend.synchronize();
    } catch (...) {
      return;  // the operation failed: the next one that waits throws
    }
    Profile::Entry& e = context_.profile->entries[name_];
    e.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
    e.flops += flops_;
    e.calls++;
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

 private:
  Context& context_;
  std::string name_;
  double flops_;
  std::chrono::steady_clock::time_point start_;
};

/// The label is built only where somebody reads it.
template <class... Values>
std::string label(const Context& context, const char* pattern, Values... values) {
  return context.profile ? format(pattern, values...) : std::string();
}

using ll = long long;

Shape withLast(Shape shape, int64_t last) {
  shape.dim[shape.rank - 1] = last;
  return shape;
}

Tensor result(Context& context, const Tensor* into, const Shape& shape) {
  if (!into) return context.arena.tensor(shape);
  expect(into->shape.count() == shape.count() && into->shape.last() == shape.last() && into->contiguous(),
         "`into` has the result's shape");
  Tensor y = *into;
  y.shape = shape;
  return y;
}

void expectVector(const WeightPtr& weight, int64_t n, const char* what) {
  if (weight) expect(weight->kind == WeightKind::Vector && weight->n == n, what);
}

}  // namespace

Tensor linear(Context& context, const Tensor& x, const Linear& w, const LinearOptions& options) {
  const Weight& weight = *w.weight;
  expect(weight.kind == WeightKind::Linear || weight.kind == WeightKind::Geglu,
         "linear takes a Linear weight");
  expect(x.shape.last() == weight.k, "linear: x [..., K] meets W [N, K]");
  const bool geglu = weight.kind == WeightKind::Geglu;
  expectVector(w.bias, geglu ? 2 * weight.n : weight.n, "linear: bias [N]");
  const Tensor y = result(context, options.into, withLast(x.shape, weight.n));
  if (options.residual) expect(options.residual->shape.count() == y.shape.count(), "linear: residual like y");
  const int64_t m = x.shape.rows(), columns = geglu ? 2 * weight.n : weight.n;
  Timer timer(
      context,
      label(context, "%s %lldx%lldx%lld", geglu ? "geglu" : "linear", ll(m), ll(columns), ll(weight.k)),
      2.0 * double(m) * double(columns) * double(weight.k));
  context.backend.linear({&weight, w.bias.get(), x, y, options.activation, options.residual});
  return y;
}

Tensor conv2d(Context& context, const Tensor& x, const Conv2d& w, const ConvOptions& options) {
  const Weight& weight = *w.weight;
  expect(x.shape.rank == 4 && x.contiguous(), "conv2d: x [B, H, W, C]");
  const int64_t batch = x.shape[0], channels = x.shape[3] + (options.skip ? options.skip->shape[3] : 0);
  expect(weight.k == channels * w.kernel * w.kernel, "conv2d: W [N, C, k, k] meets x's channels");
  if (options.skip)
    expect(options.skip->shape.rows() == x.shape.rows() && options.skip->contiguous(),
           "conv2d: skip [B, H, W, C2]");
  const int64_t height = options.resizeH ? options.resizeH : x.shape[1];
  const int64_t width = options.resizeW ? options.resizeW : x.shape[2];
  const int padBefore = options.padBottomRightOnly ? 0 : w.padding;
  const int padBoth = options.padBottomRightOnly ? w.padding : 2 * w.padding;
  const int64_t outH = (height + padBoth - w.kernel) / w.stride + 1;
  const int64_t outW = (width + padBoth - w.kernel) / w.stride + 1;
  const Tensor y = result(context, options.into, {batch, outH, outW, weight.n});
  expectVector(w.bias, weight.n, "conv2d: bias [N]");
  if (options.residual) expect(options.residual->shape.count() == y.shape.count(), "conv2d: residual like y");
  Tensor channelAdd;
  if (options.channelAdd) {
    channelAdd = *options.channelAdd;
    expect(channelAdd.shape.last() == weight.n, "conv2d: channelAdd [B, N]");
    expect(channelAdd.shape.rows() == batch || channelAdd.shape.rows() == 1, "conv2d: channelAdd [B, N]");
    if (channelAdd.shape.rows() == 1) channelAdd.stride = 0;  // one row serves the whole batch
    channelAdd.shape = {batch, weight.n};
  }
  Timer timer(context,
              label(context, "conv2d %dx%d s%d %lld->%lld @ %lldx%lldx%lld%s", w.kernel, w.kernel, w.stride,
                    ll(channels), ll(weight.n), ll(batch), ll(outH), ll(outW), options.resizeH ? " up" : ""),
              2.0 * double(batch * outH * outW) * double(weight.n) * double(weight.k));
  // The VAE encoder pads before its convolution, with zeros also where the others go round.
  const bool round = !options.padBottomRightOnly;
  context.backend.conv2d({&weight, w.bias.get(), x, options.skip, w.kernel, w.kernel, w.stride, padBefore,
                          padBefore, height, width, options.channelAdd ? &channelAdd : nullptr,
                          options.activation, options.residual, y, round && context.tileX,
                          round && context.tileY});
  return y;
}

Tensor groupNorm(Context& context, const Tensor& x, const Norm& w, const NormOptions& options) {
  const Tensor* skip = options.skip;
  const int64_t channels = x.shape.last() + (skip ? skip->shape.last() : 0);
  expect(x.contiguous() && (!skip || (skip->contiguous() && skip->shape.rows() == x.shape.rows())),
         "groupNorm: x and skip over the same pixels");
  expect(w.gamma->n == channels && w.beta->n == channels, "groupNorm: one scale per channel");
  expect(channels % w.groups == 0, "groupNorm: groups divide the channels");
  const Tensor y = result(context, options.into, withLast(x.shape, channels));
  Timer timer(context, label(context, "groupNorm %lldx%lld", ll(x.shape.rows()), ll(channels)),
              8.0 * double(y.shape.count()));
  Tensor modulation;
  if (options.modulation) {
    modulation = *options.modulation;
    expect(modulation.shape.last() == 2 * channels, "groupNorm: modulation [B, 2C]");
    expect(modulation.shape.rows() == x.shape[0] || modulation.shape.rows() == 1,
           "groupNorm: modulation [B, 2C]");
    if (modulation.shape.rows() == 1) modulation.stride = 0;  // one row serves the whole batch
    modulation.shape = {x.shape[0], 2 * channels};
  }
  context.backend.groupNorm({x, skip, w.gamma.get(), w.beta.get(), w.groups, w.epsilon, options.activation, y,
                             options.modulation ? &modulation : nullptr});
  return y;
}

Tensor layerNorm(Context& context, const Tensor& x, const Norm& w) {
  expect(w.gamma->n == x.shape.last() && (!w.beta || w.beta->n == x.shape.last()),
         "layerNorm: one scale per channel");
  const Tensor y = context.arena.tensor(x.shape);
  Timer timer(context, label(context, "layerNorm %lldx%lld", ll(x.shape.rows()), ll(x.shape.last())),
              8.0 * double(y.shape.count()));
  context.backend.layerNorm({x, y, w.gamma.get(), w.beta.get(), w.epsilon, /*centred=*/w.beta != nullptr});
  return y;
}

namespace {

Tensor attend(Context& context, const Tensor& q, const Tensor& k, const Tensor& v, int heads, float scale,
              bool causal, const Tensor* bias) {
  expect(q.shape.rank == 3 && k.shape.rank == 3 && k.shape == v.shape, "attention: q, k, v [B, L, heads·d]");
  expect(q.shape[0] == k.shape[0] && q.shape[2] == k.shape[2] && q.shape[2] % heads == 0,
         "attention: heads·d");
  if (bias)
    expect(bias->shape.rank == 4 && (bias->shape[0] == 1 || bias->shape[0] == q.shape[0]) &&
               bias->shape[1] == heads && bias->shape[2] == q.shape[1] && bias->shape[3] == k.shape[1],
           "attention: bias [B or 1, heads, Lq, Lk]");
  const Tensor y = context.arena.tensor(q.shape);
  Timer timer(context,
              label(context, "attention h%d d%lld @ %lldx%lldx%lld", heads, ll(q.shape[2] / heads),
                    ll(q.shape[0]), ll(q.shape[1]), ll(k.shape[1])),
              4.0 * double(q.shape[0]) * double(q.shape[1]) * double(k.shape[1]) * double(q.shape[2]));
  context.backend.attention({q, k, v, y, heads, scale, causal, bias});
  return y;
}

}  // namespace

Tensor attention(Context& context, const Tensor& q, const Tensor& k, const Tensor& v, int heads,
                 bool causal) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(q.shape.last() / heads));
  return attend(context, q, k, v, heads, scale, causal, nullptr);
}

Tensor biasedAttention(Context& context, const Tensor& q, const Tensor& k, const Tensor& v, int heads,
                       const Tensor& bias) {
  return attend(context, q, k, v, heads, 1, /*causal=*/false, &bias);
}

Tensor uploadBias(Context& context, std::span<const float> host, const Shape& shape) {
  expect(static_cast<int64_t>(host.size()) == shape.count(), "uploadBias: as many values as the shape has");
  const Tensor bias{context.arena.allocate(host.size() * sizeof(float)), shape, shape.last()};
  context.backend.uploadPlan(host.data(), bias);
  return bias;
}

Tensor embed(Context& context, const WeightPtr& table, const WeightPtr& positions,
             std::span<const int32_t> ids, int64_t length) {
  expect(table->kind == WeightKind::Table, "embed takes a Table");
  expect(!positions || (positions->k == table->k && positions->n >= length), "embed: positions [L, C]");
  for (const int32_t id : ids)
    if (id < 0 || id >= table->n)
      throw Error(
          ErrorCode::InvalidArgument,
          format(
              "Expected token ids from 0 to %lld (the text encoder's vocabulary) but received %d; does the "
              "tokenizer belong to this model?",
              ll(table->n - 1), id));
  const Tensor y = context.arena.tensor({static_cast<int64_t>(ids.size()) / length, length, table->k});
  Timer timer(context, label(context, "embed %lldx%lld", ll(ids.size()), ll(table->k)),
              double(y.shape.count()));
  context.backend.embed({table.get(), positions.get(), ids.data(), length, y});
  return y;
}

Tensor activate(Context& context, const Tensor& x, Activation activation, const Tensor* into) {
  const Tensor y = result(context, into, x.shape);
  Timer timer(context, label(context, "activate %lld", ll(y.shape.count())), double(y.shape.count()));
  context.backend.activate(x, activation, y);
  return y;
}

namespace {

Tensor resample(Context& context, const Tensor& x, int64_t height, int64_t width) {
  expect(x.shape.rank == 4 && x.contiguous() && height > 0 && width > 0, "resample: x [B, H, W, C]");
  const Tensor y = context.arena.tensor({x.shape[0], height, width, x.shape[3]});
  Timer timer(context, label(context, "resample %lld", ll(y.shape.count())), double(y.shape.count()));
  context.backend.resample(x, y);
  return y;
}

}  // namespace

Tensor upsample(Context& context, const Tensor& x) {
  return resample(context, x, 2 * x.shape[1], 2 * x.shape[2]);
}

Tensor averagePool(Context& context, const Tensor& x) {
  return resample(context, x, x.shape[1] / 2, x.shape[2] / 2);
}

Tensor add(Context& context, const Tensor& a, const Tensor& b, float scale, const Tensor* into) {
  expect(a.shape.last() == b.shape.last() && a.shape.rows() == b.shape.rows(), "add: same shapes");
  const Tensor y = into ? *into : context.arena.tensor(a.shape);
  expect(y.shape.last() == a.shape.last() && y.shape.rows() == a.shape.rows(), "add: into of the same shape");
  Timer timer(context, label(context, "add %lld", ll(y.shape.count())), double(y.shape.count()));
  context.backend.add(a, b, scale, y);
  return y;
}

Tensor gatherRows(Context& context, const Tensor& x, std::span<const int32_t> rows) {
  for (const int32_t row : rows) expect(row >= 0 && row < x.shape.rows(), "gatherRows: rows of x");
  const Tensor y = context.arena.tensor({static_cast<int64_t>(rows.size()), x.shape.last()});
  Timer timer(context, label(context, "gatherRows %lldx%lld", ll(rows.size()), ll(x.shape.last())), 0);
  context.backend.gatherRows(x, rows.data(), y);
  return y;
}

void repeatFirst(Context& context, const Tensor& x, int64_t copies) {
  if (copies == 1) return;
  const int64_t few = x.shape[0] / copies;
  expect(few * copies == x.shape[0], "repeatFirst: equal parts");
  Timer timer(context, label(context, "repeat %lldx%lld", ll(x.shape.rows()), ll(x.shape.last())), 0);
  for (int64_t i = few; i < x.shape[0]; i += few)
    context.backend.copyColumns(slice(context, x, 0, few), slice(context, x, i, few), 0);
}

Tensor concatColumns(Context& context, std::span<const Tensor> parts) {
  int64_t width = 0;
  for (const Tensor& t : parts) {
    expect(t.shape.rows() == parts[0].shape.rows(), "concatColumns: same rows");
    width += t.shape.last();
  }
  const Tensor y = context.arena.tensor(withLast(parts[0].shape, width));
  Timer timer(context, label(context, "concat %lldx%lld", ll(y.shape.rows()), ll(width)), 0);
  int64_t column = 0;
  for (const Tensor& t : parts) {
    context.backend.copyColumns(t, y, column);
    column += t.shape.last();
  }
  return y;
}

Tensor upload(Context& context, std::span<const float> host, const Shape& shape) {
  expect(static_cast<int64_t>(host.size()) == shape.count(), "upload: as many values as the shape has");
  const Tensor y = context.arena.tensor(shape);
  context.backend.upload(host.data(), y);
  return y;
}

Tensor uploadImage(Context& context, const float* nchw, int64_t batch, int64_t channels, int64_t height,
                   int64_t width) {
  const Tensor y = context.arena.tensor({batch, height, width, channels});
  context.backend.uploadImage(nchw, y);
  return y;
}

Tensor columns(Context& context, const Tensor& x, int64_t start, int64_t width) {
  expect(start >= 0 && start + width <= x.shape.last(), "columns inside the row");
  const size_t offset = static_cast<size_t>(start) * context.backend.activationBytes();
  return {static_cast<char*>(x.data) + offset, withLast(x.shape, width), x.stride};
}

Tensor slice(Context& context, const Tensor& x, int64_t start, int64_t count) {
  expect(x.shape.rank >= 2 && start >= 0 && start + count <= x.shape[0], "slice inside the first dimension");
  Tensor y = x;
  y.shape.dim[0] = count;
  const int64_t step = x.shape.rows() / x.shape[0] * x.stride;
  y.data = static_cast<char*>(x.data) + static_cast<size_t>(start * step) * context.backend.activationBytes();
  return y;
}

Tensor reshape(const Tensor& x, const Shape& shape) {
  expect(x.contiguous() && x.shape.count() == shape.count(), "reshape keeps the count");
  return {x.data, shape, shape.last()};
}

}  // namespace nd
