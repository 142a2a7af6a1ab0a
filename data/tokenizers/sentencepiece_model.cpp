// The protobuf wire format, as far as a model file needs it.
#include "data/tokenizers/sentencepiece_model.h"

#include <bit>
#include <cmath>
#include <string_view>

#include "core/error.h"

namespace longreach::data {
namespace {

struct Field {
  uint32_t number = 0, wire = 0;
  uint64_t value = 0;      // varint and fixed wires
  std::string_view bytes;  // length-delimited
};

class ProtoReader {
 public:
  ProtoReader(std::string_view data, const char* message) : data_(data), message_(message) {}

  bool next(Field& field) {
    if (at_ == data_.size()) return false;
    const uint64_t tag = varint();
    field.number = static_cast<uint32_t>(tag >> 3);
    field.wire = tag & 7;
    need(field.number != 0 && tag >> 32 == 0, "a malformed field number");
    switch (field.wire) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.value = fixed(8);
        break;
      case 2: {
        const uint64_t length = varint();
        need(length <= data_.size() - at_, "a field longer than the file");
        field.bytes = data_.substr(at_, length);
        at_ += length;
        break;
      }
      case 5:
        field.value = fixed(4);
        break;
      default:
        need(false, "a field of an unknown wire type");
    }
    return true;
  }

  void need(bool condition, const char* what) const {
    check<DataError>(condition, "not a SentencePiece model: ", what, " in ", message_, " at byte ", at_);
  }
  std::string take_string(const Field& field) const {
    need(field.wire == 2, "a text of the wrong wire type");
    return std::string(field.bytes);
  }
  uint64_t take_integer(const Field& field) const {
    need(field.wire == 0, "a number of the wrong wire type");
    return field.value;
  }
  bool take_bool(const Field& field) const { return take_integer(field) != 0; }
  float take_float(const Field& field) const {
    need(field.wire == 5, "a score of the wrong wire type");
    return std::bit_cast<float>(static_cast<uint32_t>(field.value));
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      need(at_ < data_.size(), "a number that does not end");
      const auto byte = static_cast<unsigned char>(data_[at_++]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    need(false, "a number of more than ten bytes");
    return 0;
  }
  uint64_t fixed(size_t size) {
    need(size <= data_.size() - at_, "a number cut off");
    uint64_t value = 0;
    for (size_t i = size; i-- > 0;) value = value << 8 | static_cast<unsigned char>(data_[at_ + i]);
    at_ += size;
    return value;
  }

  std::string_view data_;
  const char* message_;
  size_t at_ = 0;
};

SentencePiece parse_piece(std::string_view data) {
  ProtoReader reader(data, "a piece");
  SentencePiece piece;
  for (Field field; reader.next(field);) {
    if (field.number == 1) piece.text = reader.take_string(field);
    if (field.number == 2) piece.score = reader.take_float(field);
    if (field.number == 3) {
      const uint64_t type = reader.take_integer(field);
      reader.need(type >= 1 && type <= 6, "an unknown type");
      piece.type = static_cast<SentencePiece::Type>(type);
    }
  }
  reader.need(!piece.text.empty(), "an empty text");
  reader.need(std::isfinite(piece.score), "a score that is no finite number");
  return piece;
}

void parse_trainer(std::string_view data, SentencePieceModel& model) {
  ProtoReader reader(data, "trainer_spec");
  for (Field field; reader.next(field);) {
    switch (field.number) {
      case 3: {
        const uint64_t kind = reader.take_integer(field);
        reader.need(kind >= 1 && kind <= 4, "an unknown model_type");
        model.kind = static_cast<SentencePieceModel::Kind>(kind);
        break;
      }
      case 24:
        model.treat_whitespace_as_suffix = reader.take_bool(field);
        break;
      case 35:
        model.byte_fallback = reader.take_bool(field);
        break;
      case 44:
        model.unknown_surface = reader.take_string(field);
        break;
      case 46:
        model.bos_piece = reader.take_string(field);
        break;
      case 47:
        model.eos_piece = reader.take_string(field);
        break;
      default:
        break;
    }
  }
}

void parse_normalizer(std::string_view data, SentencePieceModel& model) {
  ProtoReader reader(data, "normalizer_spec");
  for (Field field; reader.next(field);) {
    if (field.number == 2) model.charsmap = reader.take_string(field);
    if (field.number == 3) model.add_dummy_prefix = reader.take_bool(field);
    if (field.number == 4) model.remove_extra_whitespaces = reader.take_bool(field);
    if (field.number == 5) model.escape_whitespaces = reader.take_bool(field);
  }
}

class ProtoWriter {
 public:
  void add_integer(uint32_t field, uint64_t value) {
    varint(field << 3);
    varint(value);
  }
  void add_float(uint32_t field, float value) {
    varint(field << 3 | 5);
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) bytes_ += static_cast<char>(bits >> shift & 0xFF);
  }
  void add_text(uint32_t field, std::string_view value) {
    varint(field << 3 | 2);
    varint(value.size());
    bytes_ += value;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>((value & 0x7F) | 0x80);
    bytes_ += static_cast<char>(value);
  }

  std::string bytes_;
};

// -1, as protobuf writes it, where there is none.
uint64_t id_of(const SentencePieceModel& model, std::string_view text) {
  for (size_t id = 0; id < model.pieces.size(); ++id)
    if (model.pieces[id].text == text) return id;
  return ~uint64_t{0};
}

std::string trainer_bytes(const SentencePieceModel& model) {
  std::string unknown = "<unk>";
  for (const SentencePiece& piece : model.pieces)
    if (piece.type == SentencePiece::Type::unknown) unknown = piece.text;
  ProtoWriter out;
  out.add_integer(3, static_cast<uint64_t>(model.kind));
  out.add_integer(4, model.pieces.size());
  out.add_integer(24, model.treat_whitespace_as_suffix);
  out.add_integer(35, model.byte_fallback);
  out.add_integer(40, id_of(model, unknown));
  out.add_integer(41, id_of(model, model.bos_piece));
  out.add_integer(42, id_of(model, model.eos_piece));
  out.add_text(44, model.unknown_surface);
  out.add_text(45, unknown);
  out.add_text(46, model.bos_piece);
  out.add_text(47, model.eos_piece);
  return out.bytes();
}

std::string normalizer_bytes(const SentencePieceModel& model) {
  ProtoWriter out;
  out.add_text(1, model.charsmap.empty() ? "identity" : "user_defined");
  out.add_text(2, model.charsmap);
  out.add_integer(3, model.add_dummy_prefix);
  out.add_integer(4, model.remove_extra_whitespaces);
  out.add_integer(5, model.escape_whitespaces);
  return out.bytes();
}

}  // namespace

std::string write_sentencepiece_model(const SentencePieceModel& model) {
  ProtoWriter out;
  for (const SentencePiece& piece : model.pieces) {
    ProtoWriter one;
    one.add_text(1, piece.text);
    one.add_float(2, piece.score);
    one.add_integer(3, static_cast<uint64_t>(piece.type));
    out.add_text(1, one.bytes());
  }
  out.add_text(2, trainer_bytes(model));
  out.add_text(3, normalizer_bytes(model));
  if (!model.denormalizer_charsmap.empty()) {
    ProtoWriter denormalizer;
    denormalizer.add_text(2, model.denormalizer_charsmap);
    out.add_text(5, denormalizer.bytes());
  }
  return out.bytes();
}

SentencePieceModel parse_sentencepiece_model(const std::string& content) {
  ProtoReader reader(content, "the file");
  SentencePieceModel model;
  for (Field field; reader.next(field);) {
    if (field.number > 5) continue;  // extensions
    reader.need(field.number != 0 && field.wire == 2, "a part of the wrong wire type");
    if (field.number == 1) model.pieces.push_back(parse_piece(field.bytes));
    if (field.number == 2) parse_trainer(field.bytes, model);
    if (field.number == 3) parse_normalizer(field.bytes, model);
    if (field.number == 5) {
      SentencePieceModel denormalizer;
      parse_normalizer(field.bytes, denormalizer);
      model.denormalizer_charsmap = denormalizer.charsmap;
    }
  }
  reader.need(!model.pieces.empty(), "no piece");
  return model;
}

}  // namespace longreach::data
