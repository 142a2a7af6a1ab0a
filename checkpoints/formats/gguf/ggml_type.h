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

// "Q2_K" and the like, also of types that are not read; a number of no type as itself.
std::string ggml_type_name(uint32_t id);
std::string ggml_types_read();  // their names, for messages

}  // namespace longreach
