// JavaScript values <-> plain structs. Only convert*.cpp read fields of JavaScript objects.
#pragma once

#include <napi.h>

#include <string>
#include <vector>

#include <variant>

#include "engine/clip-pixels.h"
#include "engine/generate.h"
#include "engine/models/clip.h"
#include "engine/models/ldm-bert.h"
#include "engine/models/t5.h"
#include "engine/models/taesd.h"
#include "engine/models/vae.h"
#include "engine/unconditional.h"

namespace nd::binding {

// Fields of an object; a missing one or one of another type throws Error(InvalidArgument) with its name.
double number(const Napi::Object&, const char* name);
int64_t integer(const Napi::Object&, const char* name);
bool boolean(const Napi::Object&, const char* name);
std::string string(const Napi::Object&, const char* name);
Napi::Object object(const Napi::Object&, const char* name);
Napi::Array array(const Napi::Object&, const char* name);
std::vector<double> numbers(const Napi::Object&, const char* name);
std::vector<float> floats(const Napi::Object&, const char* name);   // Float32Array
std::vector<int32_t> ints(const Napi::Object&, const char* name);   // Int32Array
std::vector<uint8_t> bytes(const Napi::Object&, const char* name);  // Uint8Array
bool has(const Napi::Object&, const char* name);                    // neither undefined nor null

/// { data: Float32Array, shape: number[] } with as many values as the shape says.
struct JsTensor {
  std::vector<float> data;
  Shape shape;
};
JsTensor tensor(const Napi::Object&, const char* name);
std::vector<JsTensor> tensors(const Napi::Object&, const char* name);  // an array of them
Napi::Object toJs(Napi::Env, const std::vector<float>& data, const Shape& shape);
Napi::Value toJs(Napi::Env, const std::vector<float>& data);    // Float32Array
Napi::Value toJs(Napi::Env, const std::vector<uint8_t>& data);  // Uint8Array

/// The config of whichever text encoder it is.
using TextConfig = std::variant<ClipTextConfig, LdmBertConfig, T5Config>;

StepPlan plan(const Napi::Object&);
TextConfig textConfig(const Napi::Object&);  // convert-text.cpp: { kind, … }
EncoderInput encoderInput(const Napi::Object&);
ClipVisionConfig clipVisionConfig(const Napi::Object&);    // convert-clip.cpp
IpAdapterConfig ipAdapterConfig(const Napi::Object&);      // convert-clip.cpp
ImagePrompt imagePrompt(const Napi::Object&);              // convert-clip.cpp
ClipPreprocessing clipPreprocessing(const Napi::Object&);  // convert-clip.cpp
Activation clipActivation(const Napi::Object&);            // convert-clip.cpp
UNetConfig unetConfig(const Napi::Object&);
ControlNetConfig controlNetConfig(const Napi::Object&);  // convert-control.cpp
T2iAdapterConfig t2iAdapterConfig(const Napi::Object&);
std::vector<ControlInput> controlInputs(const Napi::Object&, const char* name);
VaeConfig vaeConfig(const Napi::Object&);
LatentScaling latentScaling(const Napi::Object&);
GenerateJob generateJob(const Napi::Object&);
TinyVaeConfig tinyVaeConfig(const Napi::Object&);        // convert-around.cpp
UNet2dConfig unet2dConfig(const Napi::Object&);          // convert-around.cpp
VaeTiling vaeTiling(const Napi::Object&);                // convert-around.cpp
UnconditionalJob unconditionalJob(const Napi::Object&);  // convert-around.cpp
Napi::Object toJs(Napi::Env, const GenerateResult&);     // convert-around.cpp
PictureInput pictureInput(const Napi::Object&);          // convert-picture.cpp
/// { data: Uint8Array of RGB, width, height }[]
std::vector<Picture> pictures(const Napi::Array&, const char* name);
std::vector<uint64_t> seeds(const Napi::Object&, const char* name);  // bigint[]
NoiseKind noiseKind(const Napi::Object&, const char* name);          // 'cpu' | 'cuda'

}  // namespace nd::binding
