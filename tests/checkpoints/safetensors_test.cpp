// Round trips of every dtype, and one test for each way to break the format.
#include "checkpoints/safetensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <limits>

#include "core/error.h"
#include "tests/support/files.h"
#include "tests/support/random_tensors.h"

namespace longreach {
namespace {

using ::testing::HasSubstr;

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         (a.nbytes() == 0 ||
          std::memcmp(a.contiguous().const_data_ptr(), b.contiguous().const_data_ptr(), a.nbytes()) == 0);
}

std::string with_header(const std::string& json, const std::string& data = "") {
  const uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + json + data;
}

// The message of the error that opening these bytes throws; empty when they are accepted.
std::string refusal(const std::string& contents) {
  TemporaryFolder folder;
  const std::string path = folder.path("hostile.safetensors");
  test::write_file(path, contents);
  try {
    SafetensorsFile file(path);
    for (const auto& [name, entry] : file.entries()) file.tensor(name);
    return {};
  } catch (const CheckpointError& error) {
    EXPECT_THAT(error.what(), HasSubstr("hostile.safetensors"));
    EXPECT_EQ(one_line(error.what()), error.what()) << "an error is one clean line";
    return error.what();
  }
}

TEST(Safetensors, RoundTripsEveryDtypeBitForBit) {
  TemporaryFolder folder;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt,
                                     at::kShort, at::kChar, at::kByte, at::kBool})
    tensors.emplace_back(text("z.", c10::toString(dtype)), test::normal({3, 5}, 1).mul(50).to(dtype));
  tensors.emplace_back("odd length", at::arange(3, at::kByte));
  tensors.emplace_back("scalar", at::tensor(2.5));
  tensors.emplace_back("empty", at::empty({4, 0, 2}));
  tensors.emplace_back("transposed", test::normal({4, 6}, 2).t());
  tensors.emplace_back("special", at::tensor({std::numeric_limits<double>::quiet_NaN(), -0.0,
                                              -std::numeric_limits<double>::infinity(), 5e-324}));
  const std::string path = folder.path("all.safetensors");
  write_safetensors(path, tensors, {{"format", "pt"}, {"note", "\"quoted\"\n\xC3\xA9"}});
  const SafetensorsFile file(path);
  EXPECT_EQ(file.entries().size(), tensors.size());
  EXPECT_EQ(file.metadata().at("note"), "\"quoted\"\n\xC3\xA9");
  for (const auto& [name, tensor] : tensors) EXPECT_TRUE(same_bytes(file.tensor(name), tensor)) << name;
  EXPECT_EQ(file.names_in_file_order().front(), tensors.front().first);
  EXPECT_EQ(file.names_in_file_order().back(), "special");
  EXPECT_THROW(file.tensor("absent"), CheckpointError);
}

TEST(Safetensors, AcceptsTheEmptyFileAndTrailingSpaces) {
  EXPECT_EQ(refusal(with_header("{}")), "");
  EXPECT_EQ(refusal(with_header("{}      ")), "");
  EXPECT_EQ(refusal(with_header(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "xy")), "");
  EXPECT_EQ(refusal(with_header(R"({"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})", "abcd")), "");
}

TEST(Safetensors, RefusesBrokenFrames) {
  EXPECT_THAT(refusal(""), HasSubstr("at least 8"));
  EXPECT_THAT(refusal("1234567"), HasSubstr("at least 8"));
  EXPECT_THAT(refusal(std::string("\x03\0\0\0\0\0\0\0{}", 10)), HasSubstr("header of 3 bytes"));
  EXPECT_THAT(refusal(std::string("\0\0\0\0\0\0\0\x80{}", 10)),
              HasSubstr("header of 9223372036854775808 bytes"));
  EXPECT_THAT(refusal(std::string(8, '\xFF') + "{}"), HasSubstr("allowed: at most 2"));
  EXPECT_THROW(SafetensorsFile("/nowhere/at/all"), CheckpointError);
  EXPECT_THROW(SafetensorsFile("/"), CheckpointError);
  EXPECT_THROW(SafetensorsFile("/dev/zero"), CheckpointError);
}

TEST(Safetensors, RefusesBrokenJson) {
  for (const char* json :
       {"", " {}", "[]", "1", "{", "{\"a\":}", "{}x", "{\"a\":{\"dtype\":\"F32\"", "\xEF\xBB\xBF{}",
        "{\"a\xFF\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}"})
    EXPECT_NE(refusal(with_header(json)), "") << json;
  EXPECT_NE(refusal(with_header(std::string(1'000'000, '['))), "");
  EXPECT_NE(refusal(with_header("{\"a\":" + std::string(1'000'000, '['))), "");
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_NE(refusal(with_header(objects)), "");
}

TEST(Safetensors, RefusesBrokenEntries) {
  const auto entry = [](const std::string& body) {
    return refusal(with_header("{\"a\":{" + body + "}}", "12345678"));
  };
  const std::string shape = R"("shape":[8])", offsets = R"("data_offsets":[0,8])", dtype = R"("dtype":"U8")";
  ASSERT_EQ(entry(dtype + "," + shape + "," + offsets), "");
  EXPECT_THAT(entry(shape + "," + offsets), HasSubstr("needs dtype"));
  EXPECT_THAT(entry(dtype + "," + offsets), HasSubstr("needs dtype"));
  EXPECT_THAT(entry(dtype + "," + shape), HasSubstr("needs dtype"));
  EXPECT_THAT(entry(dtype + "," + dtype + "," + shape + "," + offsets), HasSubstr("twice"));
  EXPECT_THAT(entry(dtype + "," + shape + "," + offsets + R"(,"x":1)"), HasSubstr("unknown key `x`"));
  EXPECT_THAT(entry(R"("dtype":"F8_E4M3",)" + shape + "," + offsets), HasSubstr("allowed: F64, F32"));
  EXPECT_THAT(entry(R"("dtype":"u8",)" + shape + "," + offsets), HasSubstr("dtype `u8`"));
  EXPECT_THAT(entry(R"("dtype":7,)" + shape + "," + offsets), HasSubstr("number"));
  for (const char* bad :
       {"[-8]", "[8.0]", "[1e1]", "8", "\"8\"", "[[8]]", "[null]", "[true]", "[9]", "[]", "[8,0]",
        "[18446744073709551615]", "[99999999999999999999]", "[4611686018427387904,4,2]",
        "[0,9223372036854775807,9223372036854775807]", "[4294967296,4294967296]"})
    EXPECT_NE(entry(dtype + R"(,"shape":)" + bad + "," + offsets), "") << bad;
  for (const char* bad : {"[0,7]", "[1,8]", "[0,9]", "[8,0]", "[0]", "[0,8,8]", "[-1,8]",
                          "[9223372036854775800,9223372036854775808]"})
    EXPECT_NE(entry(dtype + "," + shape + R"(,"data_offsets":)" + bad), "") << bad;
  std::string ones = "[1";
  for (int i = 0; i < 40; ++i) ones += ",1";
  EXPECT_THAT(entry(R"("dtype":"F64","shape":)" + ones + "]," + offsets), HasSubstr("dimensions"));
}

TEST(Safetensors, RefusesOverlapsHolesDuplicatesAndLeftovers) {
  const auto two = [](const char* first, const char* second, const std::string& data,
                      const char* name = "b") {
    return refusal(with_header(text(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)", first, R"(},")",
                                    name, R"(":{"dtype":"U8","shape":[4],"data_offsets":)", second, "}}"),
                               data));
  };
  ASSERT_EQ(two("[4,8]", "[0,4]", "12345678"), "");
  EXPECT_THAT(two("[0,4]", "[2,6]", "123456"), HasSubstr("inside another tensor"));
  EXPECT_THAT(two("[0,4]", "[0,4]", "1234"), HasSubstr("inside another tensor"));
  EXPECT_THAT(two("[0,4]", "[5,9]", "123456789"), HasSubstr("leaving a hole"));
  EXPECT_THAT(two("[0,4]", "[4,8]", "123456789"), HasSubstr("belong to none"));
  EXPECT_THAT(two("[0,4]", "[4,8]", "12345678", "a"), HasSubstr("twice"));
  EXPECT_THAT(two("[0,4]", "[4,8]", "1234567"), HasSubstr("data_offsets"));
}

TEST(Safetensors, ChecksMetadataAndBooleans) {
  EXPECT_EQ(refusal(with_header(R"({"__metadata__":{"a":"b"}})")), "");
  for (const char* bad :
       {R"({"__metadata__":{"a":1}})", R"({"__metadata__":{"a":{"b":"c"}}})", R"({"__metadata__":"a"})",
        R"({"__metadata__":{"a":"b","a":"c"}})", R"({"__metadata__":{},"__metadata__":{}})"})
    EXPECT_NE(refusal(with_header(bad)), "") << bad;
  EXPECT_THAT(refusal(with_header(R"({"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}})", "\x01\x02")),
              HasSubstr("BOOL"));
}

TEST(Safetensors, ShowsHostileNamesSafely) {
  const std::string name = R"(\u001b[31mred\n\u0000)" + std::string(5000, 'x');
  const std::string message =
      refusal(with_header("{\"" + name + R"(":{"dtype":"U8","shape":[9],"data_offsets":[0,2]}})", "ab"));
  EXPECT_LE(message.size(), 1000u);
  EXPECT_THAT(message, HasSubstr("?[31mred"));
}

TEST(Safetensors, EveryTruncationAndEveryHeaderByteChangeIsRefusedOrHarmless) {
  TemporaryFolder folder;
  const std::string path = folder.path("good.safetensors");
  write_safetensors(path, {{"a", test::normal({2, 3}, 1)}, {"b", at::arange(5, at::kInt)}}, {{"k", "v"}});
  const std::string good = test::read_text(path);
  for (size_t length = 0; length < good.size(); ++length)
    EXPECT_NE(refusal(good.substr(0, length)), "") << length;
  EXPECT_NE(refusal(good + "x"), "");
  const uint64_t header = *reinterpret_cast<const uint64_t*>(good.data());
  for (size_t at = 0; at < 8 + header; ++at)
    for (const char byte : {'\0', '"', '9', '{', '\xFF'}) {
      std::string changed = good;
      changed[at] = byte;
      refusal(changed);  // must return or be refused in one clean line; sanitizers watch the rest
    }
}

TEST(Safetensors, WriterRefusesWhatItCannotStore) {
  TemporaryFolder folder;
  const std::string path = folder.path("x.safetensors");
  EXPECT_THROW(write_safetensors(path, {{"a", at::zeros({1})}, {"a", at::zeros({1})}}), CheckpointError);
  EXPECT_THROW(write_safetensors(path, {{"__metadata__", at::zeros({1})}}), CheckpointError);
  EXPECT_THROW(write_safetensors(path, {{"a", at::Tensor()}}), CheckpointError);
  EXPECT_THROW(write_safetensors(path, {{"a\xFF", at::zeros({1})}}), CheckpointError);
  EXPECT_THROW(write_safetensors(path, {{"a", at::zeros({1}, at::kComplexFloat)}}), CheckpointError);
  EXPECT_NE(::access(path.c_str(), F_OK), 0) << "nothing unfinished stays";
  EXPECT_THROW(write_safetensors("/dev/null", {{"a", at::zeros({1000})}}), CheckpointError);
  EXPECT_EQ(::access("/dev/null", F_OK), 0) << "and nothing that is not a file is removed";
  EXPECT_THROW(write_safetensors(folder.path("no/such/folder"), {}), CheckpointError);
}

TEST(Safetensors, HostileSizesAllocateNothing) {
  // 40,000 metadata entries and a claim of 2^40 elements, with hardly any memory to spare.
  std::string json = "{\"__metadata__\":{";
  for (int i = 0; i < 40'000; ++i) json += text(i ? "," : "", "\"", i, "\":\"\"");
  json += R"(},"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}})";
  const pid_t child = ::fork();
  if (child == 0) {
    struct rlimit limit {};
    ::getrlimit(RLIMIT_DATA, &limit);
    std::ifstream statm("/proc/self/statm");
    long pages[6] = {};
    for (long& page : pages) statm >> page;
    limit.rlim_cur = static_cast<rlim_t>(pages[5]) * 4096 + (rlim_t{48} << 20);
    ::setrlimit(RLIMIT_DATA, &limit);
    ::_exit(refusal(with_header(json, "1234")).find("data_offsets") != std::string::npos ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace longreach
