#include "binding/weight-files.h"

namespace nd::binding {

namespace {

/// undefined, or { rows?: [begin, end], transpose?: boolean }.
TensorView tensorView(const Napi::Value& value) {
  TensorView view;
  if (value.IsUndefined()) return view;
  const auto o = value.As<Napi::Object>();
  if (const Napi::Value rows = o.Get("rows"); !rows.IsUndefined()) {
    const auto range = rows.As<Napi::Array>();
    view.begin = range.Get(0u).As<Napi::Number>().Int64Value();
    view.end = range.Get(1u).As<Napi::Number>().Int64Value();
  }
  view.transpose = o.Get("transpose").ToBoolean();
  return view;
}

}  // namespace

void readWeightFiles(const Napi::Value& files, const Napi::Value& tensors, ModelPart& part) {
  const auto paths = files.As<Napi::Array>();
  for (uint32_t i = 0; i < paths.Length(); i++) part.files.push_back(paths.Get(i).As<Napi::String>());
  const auto list = tensors.As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); i++) {
    const auto t = list.Get(i).As<Napi::Array>();
    part.sources.push_back({t.Get(0u).As<Napi::String>(), t.Get(1u).As<Napi::Number>().Uint32Value(),
                            t.Get(2u).As<Napi::String>(), tensorView(t.Get(3u))});
    if (part.sources.back().file >= part.files.size())
      throw Error(ErrorCode::InvalidArgument, "Expected a file's index in tensors");
  }
}

}  // namespace nd::binding
