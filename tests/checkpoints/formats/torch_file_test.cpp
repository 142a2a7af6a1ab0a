// What PyTorch wrote (vectors/make_torch_files.py, with PyTorch 2.11), what we write, and each way to break
// either.
#include "checkpoints/formats/torch_file.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "checkpoints/safetensors.h"
#include "core/error.h"
#include "tests/support/files.h"
#include "tests/support/random_tensors.h"

namespace longreach::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using std::string_literals::operator""s;

std::string vector_path(const std::string& name) {
  return text(LONGREACH_SOURCE_DIR, "/tests/checkpoints/formats/vectors/", name);
}

at::Tensor base() { return at::arange(24, at::kFloat).view({4, 6}); }

// The message of the error that reading everything throws; empty where there is none.
std::string refusal_of(const std::string& path) {
  try {
    const TorchFile file(path);
    for (const std::string& name : file.names()) file.tensor(name);
    return {};
  } catch (const CheckpointError& error) {
    EXPECT_THAT(error.what(), HasSubstr(path.substr(path.rfind('/') + 1)));
    EXPECT_EQ(one_line(error.what()), error.what()) << "an error is one clean line";
    return error.what();
  }
}

std::string refusal(const std::string& contents) {
  const TemporaryFolder folder;
  write_file(folder.path("hostile.pth"), contents);
  return refusal_of(folder.path("hostile.pth"));
}

TEST(TorchFile, ReadsAStateDictWithTiedTensors) {
  const TorchFile file(vector_path("state_dict.pth"));
  EXPECT_THAT(file.names(), ElementsAre("weight", "tied"));
  EXPECT_EQ(file.shape("tied"), (std::vector<int64_t>{4, 6}));
  EXPECT_TRUE(file.tensor("weight").equal(base()));
  EXPECT_TRUE(file.tensor("tied").equal(base()));
  EXPECT_FALSE(file.contains("other"));
  EXPECT_THROW(file.tensor("other"), CheckpointError);
}

TEST(TorchFile, HonoursStridesAndOffsets) {
  const TorchFile file(vector_path("views.pth"));
  const std::map<std::string, at::Tensor> expected = {{"transposed", base().t()},
                                                      {"slice", base().slice(0, 1, 3).slice(1, 2, 5)},
                                                      {"column", base().select(1, 1)},
                                                      {"one", base()[2][3]}};
  EXPECT_EQ(file.names().size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    EXPECT_TRUE(file.tensor(name).equal(tensor)) << name;
    EXPECT_TRUE(file.tensor(name).is_contiguous()) << name;
    const int64_t from = tensor.numel() / 3, count = tensor.numel() - from;
    EXPECT_TRUE(file.run(name, from, count).equal(tensor.reshape({-1}).narrow(0, from, count))) << name;
    EXPECT_THROW(file.run(name, from, count + 1), CheckpointError) << name;
    EXPECT_THROW(file.run(name, -1, 1), CheckpointError) << name;
  }
}

TEST(TorchFile, ReadsEveryDtype) {
  const TorchFile file(vector_path("dtypes.pth"));
  const std::map<std::string, at::ScalarType> dtypes = {
      {"float64", at::kDouble}, {"float32", at::kFloat}, {"float16", at::kHalf}, {"bfloat16", at::kBFloat16},
      {"int64", at::kLong},     {"int32", at::kInt},     {"int16", at::kShort},  {"int8", at::kChar},
      {"uint8", at::kByte},     {"bool", at::kBool}};
  EXPECT_EQ(file.names().size(), dtypes.size());
  for (const auto& [name, dtype] : dtypes)
    EXPECT_TRUE(file.tensor(name).equal(at::tensor({0, 1, 0, 1, 1}).to(dtype))) << name;
}

TEST(TorchFile, ReadsParametersAndProtocolFour) {
  const TorchFile file(vector_path("parameters.pth"));
  EXPECT_TRUE(file.tensor("a").equal(base()));
  EXPECT_EQ(file.tensor("empty").sizes(), (std::vector<int64_t>{0, 3}));
}

TEST(TorchFile, RefusesOtherFilesOfTorchByName) {
  EXPECT_THAT(refusal_of(vector_path("before_1_6.pth")), HasSubstr("write it anew with torch.save"));
  EXPECT_THAT(refusal_of(vector_path("expanded.pth")), HasSubstr("`a`: has 1000 elements, its storage 1;"));
  EXPECT_THAT(refusal_of(vector_path("optimizer.pth")), HasSubstr("`model`: is a dict"));
  EXPECT_THAT(refusal_of(vector_path("whole_module.pth")), HasSubstr("`torch.nn.modules.linear.Linear`"));
  EXPECT_THAT(refusal_of(vector_path("script.pth")), HasSubstr("is a TorchScript program"));
}

std::vector<std::pair<std::string, at::Tensor>> some_tensors() {
  return {{"a", base()},
          {"transposed", normal({4, 6}, 2).t()},
          {"empty", at::empty({0, 2})},
          {"one", at::tensor(2.5)},
          {"half", normal({5}, 3).to(at::kBFloat16)},
          {"truth", at::tensor({1, 0, 1}).to(at::kBool)}};
}

TEST(TorchFile, ReadsWhatItWrites) {
  const TemporaryFolder folder;
  write_torch_file(folder.path("a.pth"), some_tensors());
  const std::unique_ptr<TensorSource> file = open_tensor_file(folder.path("a.pth"));
  EXPECT_THAT(file->names(), ElementsAre("a", "transposed", "empty", "one", "half", "truth"));
  for (const auto& [name, tensor] : some_tensors()) {
    EXPECT_TRUE(file->tensor(name).equal(tensor)) << name;
    EXPECT_EQ(file->tensor(name).scalar_type(), tensor.scalar_type()) << name;
  }
  write_torch_file(folder.path("b.pth"), some_tensors());
  EXPECT_EQ(read_text(folder.path("a.pth")), read_text(folder.path("b.pth"))) << "no date, no address";
  EXPECT_THROW(write_torch_file(folder.path("c.pth"), {{"a", base()}, {"a", base()}}), CheckpointError);
  EXPECT_FALSE(std::filesystem::exists(folder.path("c.pth"))) << "nothing is left of it";
}

TEST(TorchFile, TellsTheTwoKindsOfFilesApart) {
  const TemporaryFolder folder;
  write_safetensors(folder.path("gates.pth"), {{"a", base()}});
  EXPECT_TRUE(open_tensor_file(folder.path("gates.pth"))->tensor("a").equal(base()));
  EXPECT_TRUE(open_tensor_file(vector_path("parameters.pth"))->tensor("a").equal(base()));
}

// Every byte of the pickle, of the tensors and of the directory counts: no flipped bit and no cut gives other
// tensors, or worse than an error.
TEST(TorchFile, NoDamageGoesUnseen) {
  const std::string whole = read_text(vector_path("state_dict.pth"));
  const size_t data = whole.find("/data/0"), end = whole.find("PK", data);
  ASSERT_NE(end, std::string::npos);
  const TemporaryFolder folder;
  const std::string path = folder.path("damaged.pth");
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    write_file(path, damaged);
    try {
      const TorchFile file(path);
      for (const std::string& name : file.names()) EXPECT_TRUE(file.tensor(name).equal(base())) << at;
    } catch (const CheckpointError&) {
    }
  }
  for (size_t bytes = 0; bytes < whole.size(); bytes += 7)
    EXPECT_NE(refusal(whole.substr(0, bytes)), "") << bytes << " bytes";
}

// What PyTorch writes for {"w": tensor of `shape` and `strides` from `offset` on}, with `storage` as its id.
std::string tensor_pickle(const std::string& offset, const std::string& shape, const std::string& strides,
                          const std::string& elements = "K\x06") {
  return "\x80\x02}X\x01" + std::string(3, '\0') + "wctorch._utils\n_rebuild_tensor_v2\n((X\x07" +
         std::string(3, '\0') + "storagectorch\nFloatStorage\nX\x01" + std::string(3, '\0') + "0X\x03" +
         std::string(3, '\0') + "cpu" + elements + "tQ" + offset + shape + strides + "\x89NtRs.";
}

std::string little(uint64_t number, size_t bytes) {
  std::string out(bytes, '\0');
  std::memcpy(out.data(), &number, std::min(bytes, sizeof number));
  return out;
}

uint32_t crc_of(const std::string& bytes) {
  uint32_t crc = ~0U;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320U : 0);
  }
  return ~crc;
}

// An archive of these entries, as Python's zipfile would write it.
std::string archive(const std::vector<std::pair<std::string, std::string>>& entries, uint16_t method = 0) {
  std::string file, directory;
  for (const auto& [name, bytes] : entries) {
    const std::string fields = little(0, 4) + little(method, 2) + little(0, 4) + little(crc_of(bytes), 4) +
                               little(bytes.size(), 4) + little(bytes.size(), 4) + little(name.size(), 2) +
                               little(0, 2);
    directory += "PK\x01\x02" + little(0, 2) + fields + little(0, 10) + little(file.size(), 4) + name;
    file += "PK\x03\x04" + fields + name + bytes;
  }
  return file + directory + "PK\x05\x06" + little(0, 4) + little(entries.size(), 2) +
         little(entries.size(), 2) + little(directory.size(), 4) + little(file.size(), 4) + little(0, 2);
}

std::string torch_archive(const std::string& pickle, const std::string& bytes = std::string(24, '\0')) {
  return archive({{"a/data.pkl", pickle}, {"a/data/0", bytes}});
}

const std::string kSix = "K\x06\x85", kOne = "K\x01\x85", kNone = std::string("K\0", 2);

TEST(TorchFile, ReadsTheSmallestArchive) {
  EXPECT_EQ(refusal(torch_archive(tensor_pickle(kNone, kSix, kOne))), "");
  EXPECT_EQ(refusal(archive({{"a/data.pkl", "\x80\x02}."}})), "") << "no tensor at all";
}

TEST(TorchFile, RefusesArchivesThatAreNone) {
  const std::string pickle = tensor_pickle(kNone, kSix, kOne);
  EXPECT_THAT(refusal(""), HasSubstr("is no zip archive"));
  EXPECT_THAT(refusal("PK\x03\x04"), HasSubstr("no directory at its end"));
  EXPECT_THAT(refusal(archive({{"a/data", ""}})), HasSubstr("without NAME/data.pkl"));
  EXPECT_THAT(refusal(archive({{"a/data.pkl", pickle}, {"b/data.pkl", pickle}})), HasSubstr("more than one"));
  EXPECT_THAT(refusal(archive({{"a/data.pkl", pickle}, {"a/data.pkl", pickle}})),
              HasSubstr("is there twice"));
  EXPECT_THAT(refusal(archive({{"a/data.pkl", pickle}}, 8)), HasSubstr("`a/data.pkl`: is packed"));
  EXPECT_THAT(refusal(archive({{"a/data.pkl", pickle}})),
              HasSubstr("entry data/0 of the archive, are missing"));
  EXPECT_THAT(refusal(archive({{"a/data.pkl", pickle}, {"a/byteorder", "big"}})), HasSubstr("`byteorder`"));
  EXPECT_THAT(refusal(torch_archive(pickle, std::string(20, '\0'))), HasSubstr("6 elements of 4 bytes"));
  std::string huge = torch_archive(pickle);
  huge.replace(huge.size() - 14, 4, "\xff\xff\xff\xff");
  EXPECT_THAT(refusal(huge), HasSubstr("65535 entries reaches beyond"));
}

TEST(TorchFile, RefusesTensorsBeyondTheirStorages) {
  const std::string huge = "\x8a\x08" + little(int64_t{1} << 62, 8), minus = "J" + little(~0U, 4);
  const auto refused = [](const std::string& offset, const std::string& shape, const std::string& strides) {
    return refusal(torch_archive(tensor_pickle(offset, shape, strides)));
  };
  EXPECT_THAT(refused("K\x01", kSix, kOne),
              HasSubstr("`w`: its shape and strides reach beyond its storage of 6"));
  EXPECT_THAT(refused(minus, kSix, kOne), HasSubstr("reach beyond"));
  EXPECT_THAT(refused(kNone, kSix, "K\x02\x85"), HasSubstr("reach beyond"));
  EXPECT_THAT(refused(kNone, huge + "\x85", huge + "\x85"), HasSubstr("reach beyond"));
  EXPECT_THAT(refused(kNone, huge + huge + kNone + "\x87", kNone + kNone + kNone + "\x87"),
              HasSubstr("reach beyond"));
  EXPECT_THAT(refused(kNone, huge + "\x85", kNone + "\x85"), HasSubstr("reach beyond"));
  EXPECT_THAT(refused(kNone, "K\xff\x85", kNone + "\x85"), HasSubstr("has 255 elements, its storage 6"));
  EXPECT_THAT(refused(kNone, minus + "\x85", kOne), HasSubstr("numbers from 0 on"));
  EXPECT_THAT(refused(kNone, kSix, "K\x01K\x01\x86"), HasSubstr("1 sizes and 2 strides"));
  EXPECT_THAT(refusal(torch_archive(tensor_pickle(kNone, kSix, kOne, huge))),
              HasSubstr("storage is said to have"));
  EXPECT_EQ(refused("K\x05", "K\x00K\x09\x86"s, "K\x09K\x01\x86"), "") << "an empty tensor reaches nowhere";
}

TEST(TorchFile, RefusesEverythingElseThatAPickleCanDo) {
  const auto refused = [](const std::string& program) { return refusal(archive({{"a/data.pkl", program}})); };
  EXPECT_THAT(refused("cos\nsystem\n"),
              HasSubstr("names `os.system`, which is no part of a dict of tensors"));
  EXPECT_THAT(refused("\x8c\x02os\x8c\x06system\x93"), HasSubstr("names `os.system`"));
  EXPECT_THAT(refused("ctorch.storage\n_load_from_bytes\n"), HasSubstr("`torch.storage._load_from_bytes`"));
  EXPECT_THAT(refused("cbuiltins\ngetattr\n"), HasSubstr("`builtins.getattr`"));
  EXPECT_THAT(refused("(S'id'\nios\nsystem\n."), HasSubstr("opcode 83 (`S`)"));
  EXPECT_THAT(refused("\x81"), HasSubstr("opcode 129 at byte 0"));
  EXPECT_THAT(refused("ctorch\nFloatStorage\n)R."), HasSubstr("calls `FloatStorage`, which is no function"));
  EXPECT_THAT(refused(""), HasSubstr("cut short at byte 0"));
  EXPECT_THAT(refused("}}."), HasSubstr("ends with 2 values"));
  EXPECT_THAT(refused("K\x01."), HasSubstr("is an integer; a dict of tensors is read"));
  EXPECT_THAT(refused("}K\x01K\x01s."), HasSubstr("a key of the dict is an integer"));
  EXPECT_THAT(refused("t."), HasSubstr("a mark that is not there"));
  EXPECT_THAT(refused("(s."), HasSubstr("a value that is not there"));
  EXPECT_THAT(refused("N)\x81"), HasSubstr("opcode 129"));
  EXPECT_THAT(refused("h\x05."), HasSubstr("recalls value 5"));
  EXPECT_THAT(refused("}q\x01}b."), HasSubstr("sets attributes of a dict"));
  EXPECT_THAT(refused("X\xff\xff\xff\xff"), HasSubstr("cut short"));
  EXPECT_THAT(refused("\x8a\x09"
                      "123456789."),
              HasSubstr("more than 64 bits"));
  EXPECT_THAT(refused("X\x01" + std::string(3, '\0') + "\xff."), HasSubstr("not UTF-8"));
  EXPECT_THAT(refused("\x80\x01."), HasSubstr("protocol 1"));
  EXPECT_THAT(refused(std::string(2000, '(')), HasSubstr("nested deeper than 1000"));
  EXPECT_THAT(refused(std::string(5'000'000, 'N')), HasSubstr("more than 4000000 values"));
  EXPECT_THAT(refused(std::string(2'000'000, '}')), HasSubstr("more than 1000000 dicts"));
  // A dict inside itself ends nowhere, and is seen to be no tensor.
  EXPECT_THAT(refused("}q" + std::string(1, '\0') + "X\x01" + std::string(3, '\0') + "ah" +
                      std::string(1, '\0') + "s."),
              HasSubstr("`a`: is a dict"));
}

}  // namespace
}  // namespace longreach::test
