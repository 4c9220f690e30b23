#include "engine/weight-loader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/shared-weights.h"

namespace nd {

namespace {

/// [C, C, 1, 1] and [C, C] hold the same weights; real files have both.
Shape withoutTrailingOnes(Shape shape) {
  while (shape.rank > 1 && shape.dim[shape.rank - 1] == 1) shape.rank--;
  return shape;
}

}  // namespace

void TensorMap::add(const std::string& name, std::shared_ptr<const SafetensorsFile> file,
                    const std::string& stored, const TensorView& view) {
  files_.insert(file);
  sources_[name] = {std::move(file), stored, view};
}

HostTensor TensorMap::viewed(HostTensor tensor, const TensorView& view, const std::string& name) const {
  const auto wrong = [&](const char* expected) {
    return Error(
        ErrorCode::ModelFormat,
        format("%s: expected %s for tensor %s but it is stored as %s of shape %s", component_.c_str(),
               expected, name.c_str(), tensor.name.c_str(), tensor.shape.text().c_str()));
  };
  if (view.end < 0 && !view.transpose) return tensor;
  const int bits = dtypeBits(tensor.dtype);
  if (bits % 8) throw wrong("elements of whole bytes");
  const size_t bytes = static_cast<size_t>(bits / 8);
  if (view.end >= 0) {
    if (tensor.shape.rank < 1 || view.begin < 0 || view.begin > view.end || view.end > tensor.shape[0])
      throw wrong("enough rows");
    const int64_t row = tensor.shape[0] ? tensor.shape.count() / tensor.shape[0] : 0;
    tensor.data = static_cast<const uint8_t*>(tensor.data) + static_cast<size_t>(view.begin * row) * bytes;
    tensor.shape.dim[0] = view.end - view.begin;
  }
  if (view.transpose) {
    if (tensor.shape.rank != 2) throw wrong("a matrix");
    const int64_t rows = tensor.shape[0], columns = tensor.shape[1];
    std::vector<uint64_t> copy((static_cast<size_t>(rows * columns) * bytes + 7) / 8);
    const auto* from = static_cast<const uint8_t*>(tensor.data);
    auto* to = reinterpret_cast<uint8_t*>(copy.data());
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < columns; c++)
        std::memcpy(to + static_cast<size_t>(c * rows + r) * bytes,
                    from + static_cast<size_t>(r * columns + c) * bytes, bytes);
    copies_.push_back(std::move(copy));
    tensor.data = copies_.back().data();
    tensor.shape = {columns, rows};
  }
  return tensor;
}

HostTensor TensorMap::get(const std::string& name, const Shape& shape) const {
  const auto found = sources_.find(name);
  if (found == sources_.end())
    throw Error(
        ErrorCode::ModelFormat,
        format("%s: expected a tensor %s of shape %s but the weights have none; is config.json the one that "
               "belongs to these weights?",
               component_.c_str(), name.c_str(), shape.text().c_str()));
  const Source& source = found->second;
  HostTensor tensor = viewed(source.file->tensor(source.stored), source.view, name);
  if (!(withoutTrailingOnes(tensor.shape) == withoutTrailingOnes(shape)))
    throw Error(
        ErrorCode::ModelFormat,
        format("%s: expected shape %s for tensor %s but received %s; is config.json the one that belongs to "
               "these weights?",
               component_.c_str(), shape.text().c_str(), name.c_str(), tensor.shape.text().c_str()));
  tensor.shape = shape;
  tensor.name = component_ + ": " + name;
  return tensor;
}

std::optional<Shape> TensorMap::shape(const std::string& name) const {
  const auto found = sources_.find(name);
  if (found == sources_.end()) return std::nullopt;
  const TensorView& view = found->second.view;
  Shape shape = found->second.file->tensor(found->second.stored).shape;
  if (view.end >= 0 && shape.rank > 0) shape.dim[0] = view.end - view.begin;
  if (view.transpose && shape.rank == 2) std::swap(shape.dim[0], shape.dim[1]);
  return shape;
}

std::string TensorMap::identity(const std::string& name) const {
  const auto found = sources_.find(name);
  if (found == sources_.end()) return {};
  const Source& s = found->second;
  return format("%s\n%lld %lld %d\n", s.file->identity().c_str(), static_cast<long long>(s.view.begin),
                static_cast<long long>(s.view.end), s.view.transpose) +
         s.stored;
}

void TensorMap::discard(const HostTensor& tensor) const {
  for (const auto& file : files_) file->discard(tensor);  // each looks whether it is its own
}

WeightPtr WeightCache::find(const std::string& key) {
  const auto found = known_.find(key);
  if (found == known_.end()) return nullptr;
  return used_[key] = found->second;
}

float* WeightCache::scratch(size_t number, size_t count) {
  if (scratch_.size() <= number) scratch_.resize(number + 1);
  Scratch& s = scratch_[number];
  if (s.count < count) {
    s.data.reset();
    s.data = std::make_unique_for_overwrite<float[]>(count);
    s.count = count;
  }
  return s.data.get();
}

void WeightCache::commit() {
  known_ = std::move(used_);
  rollback();
}

void WeightCache::rollback() {
  used_.clear();
  scratch_.clear();
}

/// What the laid-out weight depends on; empty where it cannot be another pipeline's.
std::string WeightLoader::sharedKey(WeightKind kind, const std::vector<TensorRef>& parts) const {
  const std::string layout = backend_.weightLayout();
  if (layout.empty()) return {};
  std::string key = layout + '\n' + std::to_string(static_cast<int>(kind));
  for (const TensorRef& part : parts) {
    const std::string identity = tensors_.identity(part.name);
    if (identity.empty()) return {};
    key += '\n' + identity + '\n' + part.shape.text() + (part.as ? part.as->text() : std::string());
  }
  return key;
}

WeightPtr WeightLoader::weight(WeightKind kind, const std::vector<TensorRef>& parts) const {
  std::string key = std::to_string(static_cast<int>(kind));
  std::vector<bool> edited;
  for (const TensorRef& part : parts) {
    const std::string edit = edits_ ? edits_->key(part.name) : std::string();
    edited.push_back(!edit.empty());
    key += '\n' + part.name + '\n' + edit;
  }
  if (cache_)
    if (WeightPtr known = cache_->find(key)) return known;

  const bool asStored = std::find(edited.begin(), edited.end(), true) == edited.end();
  const SharedWeight shared(asStored ? sharedKey(kind, parts) : std::string());
  if (WeightPtr known = shared.find()) {
    known = backend_.adopt(std::move(known));
    if (cache_) cache_->add(key, known);
    return known;
  }

  std::vector<HostTensor> stored, tensors;
  for (size_t i = 0; i < parts.size(); i++) {
    stored.push_back(tensors_.get(parts[i].name, parts[i].shape));
    tensors.push_back(stored.back());
    if (parts[i].as) {
      expect(parts[i].as->count() == parts[i].shape.count(), "as: a shape of as many values");
      tensors.back().shape = *parts[i].as;
    }
    if (!edited[i]) continue;
    float* changed = cache_->scratch(i, static_cast<size_t>(parts[i].shape.count()));
    edits_->apply(parts[i].name, stored.back(), changed);
    tensors.back().data = changed;
    tensors.back().dtype = DType::F32;
  }
  WeightPtr weight = backend_.makeWeight(kind, tensors);
  for (const HostTensor& tensor : stored) tensors_.discard(tensor);
  shared.put(weight);
  if (cache_) cache_->add(key, weight);
  return weight;
}

WeightPtr WeightLoader::vector(const std::string& name, int64_t n) const {
  return weight(WeightKind::Vector, {tensor(name, {n})});
}

WeightPtr WeightLoader::table(const std::string& name, int64_t rows, int64_t columns) const {
  return weight(WeightKind::Table, {tensor(name, {rows, columns})});
}

Linear WeightLoader::linear(const std::string& name, int64_t in, int64_t out, bool bias) const {
  return linears({name}, in, out, bias);
}

Linear WeightLoader::linears(const std::vector<std::string>& names, int64_t in, int64_t out,
                             bool bias) const {
  std::vector<TensorRef> weights, biases;
  for (const std::string& name : names) {
    weights.push_back(tensor(name + ".weight", {out, in}));
    if (bias) biases.push_back(tensor(name + ".bias", {out}));
  }
  return {weight(WeightKind::Linear, weights), bias ? weight(WeightKind::Vector, biases) : nullptr};
}

Linear WeightLoader::geglu(const std::string& name, int64_t in, int64_t out) const {
  return {weight(WeightKind::Geglu, {tensor(name + ".weight", {2 * out, in})}),
          vector(name + ".bias", 2 * out)};
}

Linear WeightLoader::gated(const std::string& value, const std::string& gate, int64_t in, int64_t out) const {
  return {
      weight(WeightKind::Geglu, {tensor(value + ".weight", {out, in}), tensor(gate + ".weight", {out, in})}),
      nullptr};
}

Norm WeightLoader::rmsNorm(const std::string& name, int64_t channels, float epsilon) const {
  return {vector(name + ".weight", channels), nullptr, epsilon, 1};
}

Conv2d WeightLoader::conv(const std::string& name, int64_t in, int64_t out, int kernel, int stride,
                          int padding) const {
  return {weight(WeightKind::Conv, {tensor(name + ".weight", {out, in, kernel, kernel})}),
          vector(name + ".bias", out), kernel, stride, padding};
}

Norm WeightLoader::norm(const std::string& name, int64_t channels, float epsilon, int groups) const {
  return {vector(name + ".weight", channels), vector(name + ".bias", channels), epsilon, groups};
}

}  // namespace nd
