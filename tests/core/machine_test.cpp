// What the system says of the machine, and what limits leave of its memory.
#include "core/machine.h"

#include <gtest/gtest.h>

#include "core/temporary_folder.h"

namespace longreach {
namespace {

TEST(Machine, KnowsItself) {
  EXPECT_FALSE(cpu_name().empty());
  EXPECT_GE(usable_cores(), 1);
  EXPECT_GT(resident_bytes(), 1 << 20);
  EXPECT_GE(peak_resident_bytes(), resident_bytes() / 2);
  EXPECT_GE(total_memory_bytes(), peak_resident_bytes());
}

TEST(Machine, NamesItsInstructionSets) {
  EXPECT_EQ(InstructionSets{}.names(), "baseline");
  EXPECT_EQ((InstructionSets{.avx2 = true, .avx512_bf16 = true}.names()), "avx2 avx512_bf16");
  EXPECT_FALSE(instruction_sets().names().empty());
}

TEST(Machine, AvailableMemoryIsTheLeastOfMachineAndGroups) {
  const TemporaryFolder root;
  root.write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    4000 kB\nSwapFree:  1000 kB\n");
  EXPECT_EQ(available_memory_bytes(root.path()), 5000 * 1024);
  root.write("proc/self/cgroup", "0::/user/job\n");
  root.write("sys/fs/cgroup/user/job/memory.max", "max\n");
  EXPECT_EQ(available_memory_bytes(root.path()), 5000 * 1024);
  root.write("sys/fs/cgroup/user/memory.max", "3000000\n");
  root.write("sys/fs/cgroup/user/memory.current", "1000000\n");
  root.write("sys/fs/cgroup/user/memory.stat", "anon 800000\ninactive_file 150000\n");
  EXPECT_EQ(available_memory_bytes(root.path()), 2150000);
  root.write("proc/self/cgroup", "3:cpuset:/\n4:memory:/job\n0::/\n");
  root.write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2000000\n");
  root.write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "1990000\n");
  EXPECT_EQ(available_memory_bytes(root.path()), 10000);
  EXPECT_GT(available_memory_bytes(), 0);
}

}  // namespace
}  // namespace longreach
