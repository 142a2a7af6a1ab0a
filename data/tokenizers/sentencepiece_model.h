// What a SentencePiece .model file holds, read and written by a little protobuf of our own (the library would
// bring a second one beside LibTorch's). Field numbers: sentencepiece_model.proto of SentencePiece
// 0.2.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace longreach::data {

struct SentencePiece {
  enum class Type { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  std::string text;
  float score = 0;
  Type type = Type::normal;
};

struct SentencePieceModel {
  enum class Kind { unigram = 1, bpe = 2, word = 3, character = 4 };
  std::vector<SentencePiece> pieces;  // by id
  Kind kind = Kind::unigram;
  bool byte_fallback = false;
  std::string bos_piece = "<s>", eos_piece = "</s>";
  std::string unknown_surface = " \xE2\x81\x87 ";  // what an unknown piece decodes to

  std::string charsmap;  // normalization rules: a double-array trie and the texts it leads to
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;

  bool treat_whitespace_as_suffix = false;
  std::string denormalizer_charsmap;
};

// Throws DataError (without a file's name) for what is no such file. Memory: a constant times the size of
// `content`.
SentencePieceModel parse_sentencepiece_model(const std::string& content);

// The bytes of such a file; what the struct does not hold has the library's defaults.
std::string write_sentencepiece_model(const SentencePieceModel& model);

}  // namespace longreach::data
