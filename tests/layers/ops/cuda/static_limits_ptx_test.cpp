// Holds every kernel that ships to the checked-in table of limits. Reads the build's static table; no torch,
// no device.
#include <fnmatch.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>

#include "core/error.h"
#include "layers/ops/cuda/static_report.h"
#include "layers/ops/launches/launches.h"

namespace longreach::cuda {
namespace {

struct Limits {
  std::string pattern;
  std::map<std::string, int64_t> registers, blocks;  // most, fewest; by architecture
  int64_t shared = 0, mma = 0;                       // most, fewest
  int kernels = 0;                                   // that it held
};

std::string read_file(const std::string& path) {
  std::ifstream in(path);
  std::ostringstream text;
  text << in.rdbuf();
  check<DataError>(in.good(), path, ": cannot be read");
  return text.str();
}

std::vector<Limits> read_limits() {
  std::vector<Limits> all;
  std::istringstream in(read_file(LONGREACH_SOURCE_DIR "/tests/layers/ops/cuda/static_limits.txt"));
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    Limits l;
    std::istringstream words(line);
    words >> l.pattern >> l.registers["sm_80"] >> l.registers["sm_90"] >> l.shared >> l.blocks["sm_80"] >>
        l.blocks["sm_90"] >> l.mma;
    check<DataError>(!words.fail(), "static_limits.txt: expected a pattern and six numbers: ", line);
    all.push_back(l);
  }
  return all;
}

const DeviceLimits& device_of(const std::string& arch) {
  for (const DeviceLimits& device : kDevices)
    if (arch == device.arch) return device;
  throw DataError(text("no limits of a device of ", arch));
}

void expect_within(const StaticRow& row, const Launch& launch, const Limits& limits) {
  const Resources& r = row.resources;
  SCOPED_TRACE(r.kernel + " " + r.arch);
  const std::string arch = r.arch.substr(0, 5);  // sm_90a belongs to the device of sm_90
  EXPECT_EQ(r.spill_stores, 0);
  EXPECT_EQ(r.spill_loads, 0);
  EXPECT_LE(r.registers, limits.registers.at(arch));
  const int64_t shared = r.static_shared + launch.shared_bytes;
  EXPECT_LE(shared, limits.shared);
  EXPECT_GE(blocks_a_multiprocessor(device_of(arch), launch.block.x, r.registers, shared),
            limits.blocks.at(arch));
  EXPECT_GE(row.code.loop_tensor, limits.mma);
}

TEST(StaticLimits, EveryKernelKeepsThem) {
  std::vector<Limits> limits = read_limits();
  const std::vector<NamedLaunch> launches = named_launches();
  std::map<std::string, const Launch*> by_kernel;
  for (const NamedLaunch& launch : launches) by_kernel[launch.launch.kernel] = &launch.launch;
  const auto rows = read_table(read_file(LONGREACH_CUDA_FOLDER "/static_table.txt"), "static_table.txt");
  EXPECT_GE(rows.size(), launches.size());
  for (const StaticRow& row : rows) {
    const std::string& kernel = row.resources.kernel;
    Limits* held = nullptr;
    for (Limits& l : limits) {
      if (fnmatch(l.pattern.c_str(), kernel.c_str(), 0) != 0) continue;
      EXPECT_EQ(held, nullptr) << kernel << " has two lines in static_limits.txt";
      held = &l;
      ++l.kernels;
    }
    ASSERT_NE(held, nullptr) << kernel << " has no line in static_limits.txt";
    ASSERT_TRUE(by_kernel.contains(kernel)) << kernel << " is in no launch of the operators' launches.cpp";
    expect_within(row, *by_kernel[kernel], *held);
  }
  for (const Limits& l : limits)
    EXPECT_GT(l.kernels, 0) << l.pattern << " in static_limits.txt holds no kernel";
}

}  // namespace
}  // namespace longreach::cuda
