#include "engine/adapter.h"

#include <cmath>
#include <span>

#include "engine/host-floats.h"

namespace nd {

namespace {

/// A weight as the matrix [rows, columns · taps] that it is: convolutions have kh · kw taps per column.
struct Extent {
  int64_t rows, columns, taps;
};

Extent extentOf(const Shape& shape) {
  Extent e{shape.rank > 0 ? shape[0] : 1, shape.rank > 1 ? shape[1] : 1, 1};
  for (int i = 2; i < shape.rank; i++) e.taps *= shape[i];
  return e;
}

/// b [k, n] as the right factor of a product with it.
Linear rightFactor(Context& context, const std::vector<float>& b, int64_t k, int64_t n) {
  std::vector<float> transposed(b.size());
  for (int64_t i = 0; i < k; i++)
    for (int64_t j = 0; j < n; j++)
      transposed[static_cast<size_t>(j * k + i)] = b[static_cast<size_t>(i * n + j)];
  const HostTensor part{transposed.data(), DType::F32, {n, k}, "a factor of an adapter"};
  return {context.backend.makeWeight(WeightKind::Linear, std::span(&part, 1)), nullptr};
}

/// a [m, k] · b [k, n] → [m, n], on the backend.
std::vector<float> product(Context& context, const std::vector<float>& a, const std::vector<float>& b,
                           int64_t m, int64_t k, int64_t n) {
  Arena::Scope scope(context.arena);
  const Tensor y = linear(context, upload(context, a, {m, k}), rightFactor(context, b, k, n));
  std::vector<float> out(static_cast<size_t>(m * n));
  context.backend.download(y, out.data());
  return out;
}

/// sum [m, n] += a [m, k] · b [k, n], on the backend.
void addProduct(Context& context, const std::vector<float>& a, const std::vector<float>& b, int64_t m,
                int64_t k, int64_t n, float* sum) {
  Arena::Scope scope(context.arena);
  const Tensor y = upload(context, std::span(sum, static_cast<size_t>(m * n)), {m, n});
  linear(context, upload(context, a, {m, k}), rightFactor(context, b, k, n), {.residual = &y, .into = &y});
  context.backend.download(y, sum);
}

/// [rows, columns, taps] ↔ [rows, taps, columns].
std::vector<float> swapLast(const std::vector<float>& x, int64_t rows, int64_t columns, int64_t taps) {
  std::vector<float> out(x.size());
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++)
      for (int64_t t = 0; t < taps; t++)
        out[static_cast<size_t>((r * taps + t) * columns + c)] =
            x[static_cast<size_t>((r * columns + c) * taps + t)];
  return out;
}

/// Σ left[p, a] core[a, b, tap] right[b, q] → [p, q, tap].
std::vector<float> rebuild(Context& context, const std::vector<float>& left, const std::vector<float>& core,
                           const std::vector<float>& right, int64_t p, int64_t a, int64_t b, int64_t q,
                           int64_t taps) {
  const std::vector<float> inner = product(context, swapLast(core, a, b, taps), right, a * taps, b, q);
  return swapLast(product(context, left, inner, p, a, taps * q), p, taps, q);
}

std::string shapeText(int64_t rows, int64_t columns) {
  return format("[%lld, %lld]", static_cast<long long>(rows), static_cast<long long>(columns));
}

/// Whether a magnitude vector has an entry for every row of the weight, else for every column: [N, 1…] or
/// [1, K…]. PEFT's always has, be it [N] or [1, N, 1, 1].
bool magnitudePerRow(const WeightChange& change, const Shape& shape, const Extent& e) {
  return shape.count() == e.rows && (change.magnitude == Magnitude::Scaled || shape[0] == e.rows);
}

[[noreturn]] void misfit(const SafetensorsFile& file, const std::string& stored, const WeightChange& change,
                         const Shape& weight, const std::string& expected, const Shape& received) {
  throw Error(ErrorCode::ModelFormat,
              format("%s: expected %s for tensor %s, as %s of the %s has shape %s, but received %s",
                     file.path().c_str(), expected.c_str(), stored.c_str(), change.tensor.c_str(),
                     change.component == "unet" ? "UNet" : "text encoder", weight.text().c_str(),
                     received.text().c_str()));
}

}  // namespace

Adapter::Adapter(const std::string& path, std::vector<WeightChange> changes)
    : file_(SafetensorsFile::open(path)), changes_(std::move(changes)) {
  for (WeightChange& change : changes_) {
    const auto alpha = change.parts.find("alpha");
    if (alpha == change.parts.end()) continue;
    const std::vector<float> value = toFloats(file_->tensor(alpha->second));
    if (value.size() != 1 || !std::isfinite(value[0]))
      throw Error(ErrorCode::ModelFormat, format("%s: expected one finite number for tensor %s", path.c_str(),
                                                 alpha->second.c_str()));
    change.scale = value[0] / change.rank;
  }
}

HostTensor Adapter::part(const WeightChange& change, const char* role) const {
  return file_->tensor(change.parts.at(role));
}

std::vector<float> Adapter::values(const WeightChange& change, const char* role) const {
  return toFloats(part(change, role));
}

void Adapter::check(const WeightChange& change, const Shape& weight) const {
  const Extent e = extentOf(weight);
  const auto has = [&](const std::string& role) { return change.parts.count(role) > 0; };
  const auto shapeOf = [&](const std::string& role) { return part(change, role.c_str()).shape; };
  const auto wrong = [&](const std::string& role, const std::string& expected) {
    misfit(*file_, change.parts.at(role), change, weight, expected, shapeOf(role));
  };
  const auto expectShape = [&](const std::string& role, int64_t rows, int64_t rest) {
    const Extent s = extentOf(shapeOf(role));
    if (s.rows != rows || s.columns * s.taps != rest) wrong(role, "shape " + shapeText(rows, rest));
  };
  /// left · right or, with a core [a, b, kh, kw], Σ left core right: [rows, columns, taps].
  const auto expectFactors = [&](const std::string& left, const std::string& core, const std::string& right,
                                 bool leftTransposed, int64_t rows, int64_t columns) {
    const Extent r = extentOf(shapeOf(right));
    if (!has(core)) {
      expectShape(right, r.rows, columns * e.taps);
      expectShape(left, rows, r.rows);
      return;
    }
    const Extent c = extentOf(shapeOf(core));
    if (c.taps != e.taps || c.columns != r.rows) wrong(core, "a core of the weight's kernel and rank");
    expectShape(right, r.rows, columns);
    leftTransposed ? expectShape(left, c.rows, rows) : expectShape(left, rows, c.rows);
  };

  switch (change.kind) {
    case ChangeKind::LowRank:
      expectFactors("up", "mid", "down", false, e.rows, e.columns);
      break;
    case ChangeKind::Hadamard:
      expectFactors("w1a", "t1", "w1b", true, e.rows, e.columns);
      expectFactors("w2a", "t2", "w2b", true, e.rows, e.columns);
      break;
    case ChangeKind::Kronecker: {
      const auto rowsOf = [&](const std::string& name) {
        if (has(name)) return shapeOf(name)[0];
        const Shape a = shapeOf(name + "a");
        return has("t" + name.substr(1)) ? a[1] : a[0];
      };
      const int64_t rows1 = rowsOf("w1");
      const int64_t columns1 = extentOf(shapeOf(has("w1") ? "w1" : "w1b")).columns;
      if (rows1 < 1 || columns1 < 1 || e.rows % rows1 || e.columns % columns1)
        wrong(has("w1") ? "w1" : "w1a", format("divisors of %lld and %lld", static_cast<long long>(e.rows),
                                               static_cast<long long>(e.columns)));
      if (has("w1"))
        expectShape("w1", rows1, columns1);
      else {
        expectShape("w1b", extentOf(shapeOf("w1b")).rows, columns1);
        expectShape("w1a", rows1, extentOf(shapeOf("w1b")).rows);
      }
      if (has("w2"))
        expectShape("w2", e.rows / rows1, e.columns / columns1 * e.taps);
      else
        expectFactors("w2a", "t2", "w2b", true, e.rows / rows1, e.columns / columns1);
      break;
    }
    case ChangeKind::Difference:
      expectShape("diff", e.rows, e.columns * e.taps);
      break;
  }
  if (has("magnitude")) {
    const Shape shape = shapeOf("magnitude");
    if (!magnitudePerRow(change, shape, e) && !(shape[0] == 1 && shape.count() == e.columns))
      wrong("magnitude", "shape " + shapeText(e.rows, 1) + " or " + shapeText(1, e.columns));
  }
}

/// One factor, "w1" or "w2" of LoHa and LoKr: whole, or rebuilt.
std::vector<float> Adapter::factor(Context& context, const WeightChange& change, const std::string& name,
                                   int64_t rows, int64_t columns, int64_t taps) const {
  if (change.parts.count(name)) return values(change, name.c_str());
  const std::string a = name + "a", b = name + "b", t = "t" + name.substr(1);
  const std::vector<float> left = values(change, a.c_str()), right = values(change, b.c_str());
  const int64_t rank = extentOf(part(change, b.c_str()).shape).rows;
  if (!change.parts.count(t)) return product(context, left, right, rows, rank, columns * taps);
  const int64_t leftRank = part(change, t.c_str()).shape[0];
  return rebuild(context, swapLast(left, 1, leftRank, rows), values(change, t.c_str()), right, rows, leftRank,
                 rank, columns, taps);
}

std::vector<float> Adapter::delta(Context& context, const WeightChange& change, const Shape& shape) const {
  const Extent e = extentOf(shape);
  switch (change.kind) {
    case ChangeKind::LowRank: {
      const std::vector<float> up = values(change, "up"), down = values(change, "down");
      const int64_t rank = extentOf(part(change, "down").shape).rows;
      if (!change.parts.count("mid")) return product(context, up, down, e.rows, rank, e.columns * e.taps);
      const int64_t upRank = part(change, "mid").shape[0];
      return rebuild(context, up, values(change, "mid"), down, e.rows, upRank, rank, e.columns, e.taps);
    }
    case ChangeKind::Hadamard: {
      std::vector<float> d = factor(context, change, "w1", e.rows, e.columns, e.taps);
      const std::vector<float> other = factor(context, change, "w2", e.rows, e.columns, e.taps);
      for (size_t i = 0; i < d.size(); i++) d[i] *= other[i];
      return d;
    }
    case ChangeKind::Kronecker: {
      const Shape first = part(change, change.parts.count("w1") ? "w1" : "w1a").shape;
      const int64_t rows1 = first[0],
                    columns1 = extentOf(change.parts.count("w1") ? first : part(change, "w1b").shape).columns;
      const int64_t rows2 = e.rows / rows1, columns2 = e.columns / columns1;
      const std::vector<float> w1 = factor(context, change, "w1", rows1, columns1, 1);
      const std::vector<float> w2 = factor(context, change, "w2", rows2, columns2, e.taps);
      std::vector<float> d(static_cast<size_t>(e.rows * e.columns * e.taps));
      const int64_t run = columns2 * e.taps;
      for (int64_t r = 0; r < e.rows; r++)
        for (int64_t c1 = 0; c1 < columns1; c1++) {
          const float factor = w1[static_cast<size_t>(r / rows2 * columns1 + c1)];
          const float* from = w2.data() + r % rows2 * run;
          float* to = d.data() + (r * columns1 + c1) * run;
          for (int64_t i = 0; i < run; i++) to[i] = factor * from[i];
        }
      return d;
    }
    case ChangeKind::Difference:
      return values(change, "diff");
  }
  throw Error(ErrorCode::Internal, "unknown kind of adapter");
}

namespace {

/// m / ‖v‖ for every row of v, or for every column over rows and taps.
std::vector<double> magnitudeFactors(const std::vector<float>& v, const std::vector<float>& m,
                                     const Extent& e, bool perRow) {
  std::vector<double> norms(m.size(), 0.0);
  for (int64_t r = 0, i = 0; r < e.rows; r++)
    for (int64_t c = 0; c < e.columns; c++)
      for (int64_t t = 0; t < e.taps; t++, i++)
        norms[static_cast<size_t>(perRow ? r : c)] +=
            static_cast<double>(v[static_cast<size_t>(i)]) * v[static_cast<size_t>(i)];
  for (size_t i = 0; i < norms.size(); i++) norms[i] = norms[i] > 0 ? m[i] / std::sqrt(norms[i]) : 0;
  return norms;
}

}  // namespace

void Adapter::apply(Context& context, const WeightChange& change, double strength, const Shape& shape,
                    float* weight) const {
  const bool magnitude = change.parts.count("magnitude") > 0;
  if (change.kind == ChangeKind::LowRank && !change.parts.count("mid") && !magnitude) {  // the usual one
    std::vector<float> up = values(change, "up");
    for (float& v : up) v = static_cast<float>(v * strength * change.scale);
    const Extent e = extentOf(shape);
    addProduct(context, up, values(change, "down"), e.rows, extentOf(part(change, "down").shape).rows,
               e.columns * e.taps, weight);
    return;
  }
  std::vector<float> d = delta(context, change, shape);
  if (!magnitude) {
    const auto factor = static_cast<float>(strength * change.scale);
    for (size_t i = 0; i < d.size(); i++) weight[i] += factor * d[i];
    return;
  }
  const Extent e = extentOf(shape);
  const bool scaled = change.magnitude == Magnitude::Scaled;
  const auto inner = static_cast<float>(scaled ? strength * change.scale : change.scale);
  for (size_t i = 0; i < d.size(); i++) d[i] = weight[i] + inner * d[i];
  const bool perRow = magnitudePerRow(change, part(change, "magnitude").shape, e);
  const std::vector<double> factors = magnitudeFactors(d, values(change, "magnitude"), e, perRow);
  for (int64_t r = 0, i = 0; r < e.rows; r++)
    for (int64_t c = 0; c < e.columns; c++)
      for (int64_t t = 0; t < e.taps; t++, i++) {
        const double merged = d[static_cast<size_t>(i)] * factors[static_cast<size_t>(perRow ? r : c)];
        weight[i] = static_cast<float>(scaled ? merged : weight[i] + strength * (merged - weight[i]));
      }
}

void AdapterEdits::add(uint32_t id, const std::shared_ptr<const Adapter>& adapter,
                       const std::string& component, size_t index, double strength) {
  if (strength == 0) return;
  const std::string key = format("%u*%.17g;", id, strength);
  bool any = false;
  for (const WeightChange& change : adapter->changes()) {
    if (change.component != component || change.index != index) continue;
    edits_[change.tensor].push_back({adapter, &change, strength, key});
    any = true;
  }
  if (any) description_ += key;
}

std::string AdapterEdits::key(const std::string& tensor) const {
  const auto found = edits_.find(tensor);
  std::string key;
  if (found != edits_.end())
    for (const Edit& edit : found->second) key += edit.key;
  return key;
}

void AdapterEdits::apply(const std::string& tensor, const HostTensor& stored, float* changed) const {
  toFloats(stored, changed);
  for (const Edit& edit : edits_.at(tensor))
    edit.adapter->apply(context_, *edit.change, edit.strength, stored.shape, changed);
}

}  // namespace nd
