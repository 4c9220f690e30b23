#include "engine/weight-loader.h"

namespace nd {

namespace {

/// [C, C, 1, 1] and [C, C] hold the same weights; real files have both.
Shape withoutTrailingOnes(Shape shape) {
  while (shape.rank > 1 && shape.dim[shape.rank - 1] == 1) shape.rank--;
  return shape;
}

}  // namespace

void TensorMap::add(const std::string& name, std::shared_ptr<const SafetensorsFile> file,
                    const std::string& stored) {
  sources_[name] = {std::move(file), stored};
}

HostTensor TensorMap::get(const std::string& name, const Shape& shape) const {
  const auto found = sources_.find(name);
  if (found == sources_.end())
    throw Error(
        ErrorCode::ModelFormat,
        format("%s: expected a tensor %s of shape %s but the weights have none; is config.json the one that "
               "belongs to these weights?",
               component_.c_str(), name.c_str(), shape.text().c_str()));
  HostTensor tensor = found->second.file->tensor(found->second.stored);
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

WeightPtr WeightLoader::weight(WeightKind kind, const std::vector<HostTensor>& parts) const {
  return backend_.makeWeight(kind, parts);
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
  std::vector<HostTensor> weights, biases;
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

Conv2d WeightLoader::conv(const std::string& name, int64_t in, int64_t out, int kernel, int stride,
                          int padding) const {
  return {weight(WeightKind::Conv, {tensor(name + ".weight", {out, in, kernel, kernel})}),
          vector(name + ".bias", out), kernel, stride, padding};
}

Norm WeightLoader::norm(const std::string& name, int64_t channels, float epsilon, int groups) const {
  return {vector(name + ".weight", channels), vector(name + ".bias", channels), epsilon, groups};
}

}  // namespace nd
