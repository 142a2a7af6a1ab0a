// The element types of GGUF tensors: how blocks of values lie in the file, as ggml defines them.
#pragma once
#include <cstdint>
#include <string>

namespace longreach {

struct GgmlType {
  uint32_t id;
  const char* name;
  int64_t block;  // values of a block
  int64_t bytes;  // of a block
  // Writes blocks * block values, rounded as ggml rounds them.
  void (*dequantize)(const uint8_t* from, int64_t blocks, float* to);
};

// Null for a type that is not read.
const GgmlType* ggml_type(uint32_t id);
const GgmlType& ggml_f32();
const GgmlType& ggml_f16();
const GgmlType& ggml_q8_0();

// The bytes of n values, a multiple of the type's block, as F32, F16 or Q8_0 (finite ones), rounded as ggml
// rounds them.
std::string ggml_encode(const GgmlType& type, const float* values, int64_t n);

// "Q2_K" and the like, also of types that are not read; a number of no type as itself.
std::string ggml_type_name(uint32_t id);
std::string ggml_types_read();  // their names, for messages

}  // namespace longreach
