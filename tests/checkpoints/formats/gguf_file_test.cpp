// The container: every type and key as the package gguf writes them, and every way to break a file. The
// vectors come from tests/checkpoints/formats/vectors/gguf/make_vectors.py.
#include "checkpoints/formats/gguf/gguf_file.h"

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "core/error.h"
#include "tests/support/files.h"
#include "tests/support/vectors.h"

namespace longreach::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string types_file() { return vector_folder("gguf") + "/types.gguf"; }

// The message of the error that opening these bytes and reading all of them throws; empty when they are
// accepted.
std::string refusal(const std::string& contents) {
  const TemporaryFolder folder;
  write_file(folder.path("hostile.gguf"), contents);
  try {
    const GgufFile file(folder.path("hostile.gguf"));
    for (const std::string& name : file.names()) file.tensor(name);
    return {};
  } catch (const CheckpointError& error) {
    EXPECT_THAT(error.what(), HasSubstr("hostile.gguf"));
    EXPECT_EQ(one_line(error.what()), error.what()) << "an error is one clean line";
    return error.what();
  }
}

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string str(const std::string& value) { return raw<uint64_t>(value.size()) + value; }
std::string header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
  return "GGUF" + raw(version) + raw(tensors) + raw(keys);
}
std::string tensor(const std::string& name, const std::vector<uint64_t>& dimensions, uint32_t type = 0,
                   uint64_t offset = 0) {
  std::string out = str(name) + raw(static_cast<uint32_t>(dimensions.size()));
  for (const uint64_t size : dimensions) out += raw(size);
  return out + raw(type) + raw(offset);
}
std::string padded(std::string bytes, size_t alignment = 32) {
  bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
  return bytes;
}
std::string key(const std::string& name, uint32_t type, const std::string& value) {
  return str(name) + raw(type) + value;
}
// A file of one key.
std::string with_key(const std::string& name, uint32_t type, const std::string& value) {
  return header(0, 1) + key(name, type, value);
}
// A file of these tensors and this data.
std::string with_tensors(uint64_t count, const std::string& tensors, const std::string& data) {
  return padded(header(count, 0) + tensors) + data;
}

// The same for a header in memory, which is quicker; the bytes lie in a block of their own size.
bool parses(const std::string& contents) {
  const std::vector<char> exact(contents.begin(), contents.end());
  try {
    const GgufHeader header = parse_gguf_header({exact.data(), exact.size()}, "hostile.gguf");
    for (const GgufTensor& tensor : header.tensors) {
      std::vector<float> values(static_cast<size_t>(tensor.elements()));
      tensor.type->dequantize(reinterpret_cast<const uint8_t*>(tensor.bytes.data()),
                              tensor.elements() / tensor.type->block, values.data());
    }
    return true;
  } catch (const CheckpointError& error) {
    EXPECT_THAT(error.what(), HasSubstr("hostile.gguf"));
    return false;
  }
}

TEST(GgufFile, EveryTypeHasTheBitsOfTheReference) {
  const GgufFile file(types_file());
  int compared = 0;
  for (const std::string& name : file.names()) {
    if (!file.contains(name + ".f32") || name == "to_q8_0") continue;
    const at::Tensor ours = file.tensor(name), expected = file.tensor(name + ".f32");
    ASSERT_EQ(ours.sizes(), expected.sizes()) << name;
    EXPECT_EQ(std::memcmp(ours.const_data_ptr(), expected.const_data_ptr(), ours.nbytes()), 0) << name;
    ++compared;
  }
  EXPECT_EQ(compared, 10);
}

TEST(GgufFile, RunsAreThoseOfTheWhole) {
  const GgufFile file(types_file());
  for (const char* name : {"Q4_K", "Q8_0", "BF16"}) {
    const at::Tensor flat = file.tensor(name).flatten();
    for (const auto& [begin, n] :
         std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {31, 2}, {100, 77}, {5, 0}})
      EXPECT_TRUE(at::equal(file.run(name, begin, n), flat.narrow(0, begin, n))) << name;
    EXPECT_TRUE(at::equal(file.run(name, 7, flat.numel() - 7), flat.narrow(0, 7, flat.numel() - 7)));
    EXPECT_THROW(file.run(name, 1, flat.numel()), CheckpointError);
    EXPECT_THROW(file.run(name, -1, 1), CheckpointError);
  }
  EXPECT_EQ(file.shape("Q4_K"), (std::vector<int64_t>{3, 512}));
  EXPECT_THROW(file.tensor("absent"), CheckpointError);
}

TEST(GgufFile, KeysOfEveryType) {
  const GgufFile file(types_file());
  const GgufKeys& keys = file.keys();
  const auto integer = [&](const char* name) { return keys.integer(name, INT64_MIN, INT64_MAX); };
  EXPECT_EQ(integer("key.UINT8"), 200);
  EXPECT_EQ(integer("key.INT8"), -100);
  EXPECT_EQ(integer("key.UINT16"), 60000);
  EXPECT_EQ(integer("key.INT16"), -30000);
  EXPECT_EQ(integer("key.UINT32"), 4000000000);
  EXPECT_EQ(integer("key.INT32"), -2000000000);
  EXPECT_EQ(integer("key.UINT64"), int64_t{1} << 62);
  EXPECT_EQ(integer("key.INT64"), -(int64_t{1} << 62));
  EXPECT_EQ(keys.real("key.FLOAT32"), 0.5);
  EXPECT_EQ(keys.real("key.FLOAT64"), 0.1);
  EXPECT_TRUE(keys.boolean("key.BOOL"));
  EXPECT_EQ(keys.text("key.STRING"), "gr\xC3\xBC\xC3\x9F");
  EXPECT_THAT(keys.texts("key.strings"), ElementsAre("a", "", "\xE4\xB8\x96"));
  EXPECT_THAT(keys.integers("key.integers"), ElementsAre(1, -2, 3));
  EXPECT_THAT(keys.reals("key.reals"), ElementsAre(0.5F, -1.5F));
  EXPECT_THROW(keys.integer("key.UINT8", 0, 100), CheckpointError);
  EXPECT_THROW(keys.integer("key.STRING", 0, 100), CheckpointError);
  EXPECT_THROW(keys.integer("key.integers", 0, 100), CheckpointError);
  EXPECT_THROW(keys.text("key.absent"), CheckpointError);
  EXPECT_THROW(keys.texts("key.integers"), CheckpointError);
  EXPECT_THROW(keys.integers("key.strings"), CheckpointError);
  EXPECT_THROW(keys.reals("key.integers"), CheckpointError);
  EXPECT_THROW(keys.boolean("key.UINT8"), CheckpointError);
}

TEST(GgufFile, BothVersionsAndNothingElse) {
  EXPECT_EQ(refusal(header(0, 0)), "");
  EXPECT_EQ(refusal(header(0, 0, 2)), "");
  EXPECT_THAT(refusal(header(0, 0, 1)), HasSubstr("version 1"));
  EXPECT_THAT(refusal(header(0, 0, 4)), HasSubstr("version 4"));
  EXPECT_THAT(refusal(header(0, 0, 0x03000000)), HasSubstr("big-endian"));
  EXPECT_THAT(refusal(""), HasSubstr("does not begin with `GGUF`"));
  EXPECT_THAT(refusal("ggml" + header(0, 0).substr(4)), HasSubstr("does not begin with `GGUF`"));
  EXPECT_THAT(refusal(header(200'001, 0)), HasSubstr("claims 200001 tensors"));
  EXPECT_THAT(refusal(header(0, 65'537)), HasSubstr("and 65537 keys"));
}

TEST(GgufFile, RefusesBrokenKeys) {
  EXPECT_EQ(refusal(with_key("a", 4, raw<uint32_t>(1))), "");
  EXPECT_THAT(refusal(with_key("", 4, raw<uint32_t>(1))), HasSubstr("a name of 0 bytes"));
  EXPECT_THAT(refusal(with_key("a\xFF", 4, raw<uint32_t>(1))), HasSubstr("not UTF-8"));
  EXPECT_THAT(refusal(with_key("a", 13, raw<uint32_t>(1))), HasSubstr("`a`: value type 13"));
  EXPECT_THAT(refusal(with_key("a", 8, str("\xC0"))), HasSubstr("`a`: holds a string that is not UTF-8"));
  EXPECT_THAT(refusal(with_key("a", 8, raw<uint64_t>(~uint64_t{0}) + "x")), HasSubstr("`a`: needs"));
  EXPECT_THAT(refusal(with_key("a", 7, "\x02")), HasSubstr("neither 0 nor 1"));
  const auto array = [](uint32_t type, uint64_t count, const std::string& values) {
    return with_key("a", 9, raw(type) + raw(count) + values);
  };
  EXPECT_EQ(refusal(array(4, 1, raw<uint32_t>(1))), "");
  EXPECT_EQ(refusal(array(4, 0, "")), "");
  EXPECT_THAT(refusal(array(9, 1, raw<uint32_t>(4) + raw<uint64_t>(0))), HasSubstr("an array of arrays"));
  EXPECT_THAT(refusal(array(4, uint64_t{1} << 62, "")), HasSubstr("`a`: is an array of"));
  EXPECT_THAT(refusal(array(8, uint64_t{1} << 62, str("x"))), HasSubstr("`a`: needs"));
  EXPECT_THAT(refusal(array(4, 2, raw<uint32_t>(1))), HasSubstr("`a`: needs 8 bytes"));
  const std::string one = key("a", 4, raw<uint32_t>(1));
  EXPECT_THAT(refusal(header(0, 2) + one + one), HasSubstr("`a`: key twice"));
  for (const uint32_t alignment : {0u, 3u, 48u})
    EXPECT_THAT(refusal(with_key("general.alignment", 4, raw(alignment))), HasSubstr("general.alignment"));
  EXPECT_THAT(refusal(with_key("general.alignment", 8, str("32"))), HasSubstr("general.alignment"));
}

TEST(GgufFile, RefusesBrokenTensors) {
  const std::string data(32, '\0');
  EXPECT_EQ(refusal(with_tensors(1, tensor("t", {8}), data)), "");
  EXPECT_EQ(refusal(with_tensors(1, tensor("t", {2}), data)), "") << "padding after the last tensor";
  EXPECT_EQ(refusal(with_tensors(1, tensor("t", {2}), data.substr(0, 8))), "") << "and none";
  EXPECT_THAT(refusal(with_tensors(1, tensor("", {8}), data)), HasSubstr("a name of 0 bytes"));
  EXPECT_THAT(refusal(with_tensors(1, tensor(std::string(65, 'x'), {8}), data)), HasSubstr("65 bytes"));
  EXPECT_THAT(refusal(with_tensors(1, tensor("t", {8, 1, 1, 1, 1}), data)), HasSubstr("`t`: has 5 dim"));
  EXPECT_THAT(refusal(with_tensors(1, tensor("t", {8, 0}), data)), HasSubstr("`t`: has a dimension of 0"));
  EXPECT_THAT(refusal(with_tensors(1, tensor("t", {9}), data)), HasSubstr("`t`: needs the bytes 0 to 36"));
  EXPECT_THAT(refusal(with_tensors(1, tensor("t", {8}), data.substr(1))), HasSubstr("`t`: needs"));
  EXPECT_THAT(refusal(with_tensors(1, tensor("t", {8}), data + "x")), HasSubstr("belong to none"));
  EXPECT_THAT(refusal(with_tensors(1, tensor("t", {uint64_t{1} << 63, 2}), data)),
              HasSubstr("more elements"));
  EXPECT_THAT(refusal(with_tensors(1, tensor("t", {uint64_t{1} << 40}), data)), HasSubstr("more elements"));
  EXPECT_THAT(refusal(with_tensors(1, tensor("t", {8}, 8), data)), HasSubstr("`t`: has rows of 8"));
  EXPECT_THAT(refusal(with_tensors(1, tensor("t", {256}, 10), data)), HasSubstr("`t`: is of type Q2_K"));
  EXPECT_THAT(refusal(with_tensors(1, tensor("t", {8}, 4), data)), HasSubstr("`t`: is of type 4,"));
  EXPECT_THAT(refusal(with_tensors(1, tensor("t", {8}, 0, 32), data + data)), HasSubstr("leaving a hole"));
  const std::string first = tensor("t", {8}), second = tensor("u", {8}, 0, 32);
  EXPECT_EQ(refusal(with_tensors(2, first + second, data + data)), "");
  EXPECT_EQ(refusal(with_tensors(2, second + first, data + data)), "") << "in any order";
  EXPECT_THAT(refusal(with_tensors(2, first + tensor("t", {8}, 0, 32), data + data)),
              HasSubstr("name twice"));
  EXPECT_THAT(refusal(with_tensors(2, first + tensor("u", {8}, 0, 0), data + data)),
              HasSubstr("inside another"));
  EXPECT_THAT(refusal(with_tensors(2, first + tensor("u", {8}, 0, 16), data + data)), HasSubstr("inside"));
}

// Every bit of the header's first part, and every length.
TEST(GgufFile, DamageIsAnErrorOrAnotherFileAndNeverACrash) {
  const std::string whole =
      padded(header(2, 3) + key("general.alignment", 4, raw<uint32_t>(32)) +
             key("tokens", 9, raw<uint32_t>(8) + raw<uint64_t>(2) + str("a") + str("bc")) +
             key("eps", 6, raw(1e-5F)) + tensor("t", {32, 2}, 8) + tensor("u", {4}, 0, 96)) +
      padded(std::string(68, '\x11')) + std::string(16, '\x22');
  ASSERT_TRUE(parses(whole));
  for (size_t length = 0; length < whole.size(); ++length) EXPECT_FALSE(parses(whole.substr(0, length)));
  int refused = 0;
  for (size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    refused += parses(damaged) ? 0 : 1;
  }
  EXPECT_GT(refused, 1000) << "of " << 8 * whole.size();
  for (size_t byte = 0; byte + 8 <= whole.size(); ++byte) {
    std::string damaged = whole;
    for (size_t i = 0; i < 8; ++i) damaged[byte + i] = '\xFF';
    parses(damaged);
  }
}

}  // namespace
}  // namespace longreach::test
