// The order of machine instructions in the loops of the dense kernels of sm_90a: the exponentials of a tile
// stand before the wait for the product that they are to run beside. PTX does not show it; ptxas decides.
// Reads the shipped cubins through nvdisasm.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"

namespace longreach::cuda {
namespace {

enum class Event { kExponential, kProduct, kWaitForAllButOne, kWaitForAll };

struct Loop {
  size_t first, end;  // of events
};

struct Kernel {
  std::string name;
  std::vector<Event> events;
  std::vector<Loop> loops;
};

bool holds(const std::string& line, const char* words) { return line.find(words) != std::string::npos; }

std::optional<Event> event_of(const std::string& line) {
  if (holds(line, "MUFU.EX2")) return Event::kExponential;
  if (holds(line, "HGMMA")) return Event::kProduct;
  if (!holds(line, "WARPGROUP.DEPBAR.LE gsb0")) return std::nullopt;
  return holds(line, "gsb0, 0x0") ? Event::kWaitForAll : Event::kWaitForAllButOne;
}

// What nvdisasm -c prints: a section .text.KERNEL, labels, instructions, branches `BRA `(LABEL)`.
std::vector<Kernel> read_kernels(const std::string& disassembly) {
  std::vector<Kernel> kernels;
  std::map<std::string, size_t> labels;  // place among the events
  std::istringstream in(disassembly);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(".text.")) {
      kernels.push_back({line.substr(6, line.find(':') - 6), {}, {}});
      labels.clear();
    }
    if (kernels.empty()) continue;
    Kernel& kernel = kernels.back();
    if (line.starts_with(".L_")) labels[line.substr(0, line.find(':'))] = kernel.events.size();
    if (const auto event = event_of(line)) kernel.events.push_back(*event);
    const size_t branch = line.find("BRA"), target = line.find("`(", branch);
    if (branch == std::string::npos || target == std::string::npos) continue;
    const auto found = labels.find(line.substr(target + 2, line.find(')', target) - target - 2));
    if (found != labels.end()) kernel.loops.push_back({found->second, kernel.events.size()});
  }
  return kernels;
}

struct Order {
  int beside = 0, after = 0;  // exponentials between the waits, and after the last
};

// Of the shortest loop that waits for all products but one, then for all.
std::optional<Order> order_of(const Kernel& kernel) {
  std::optional<Order> found;
  size_t shortest = kernel.events.size() + 1;
  for (const Loop& loop : kernel.loops) {
    Order order;
    bool first = false, second = false;
    for (size_t i = loop.first; i < loop.end; ++i) {
      const Event event = kernel.events[i];
      first = first || event == Event::kWaitForAllButOne;
      second = second || (first && event == Event::kWaitForAll);
      if (event == Event::kExponential) ++(second ? order.after : order.beside);
    }
    if (!second || loop.end - loop.first >= shortest) continue;
    shortest = loop.end - loop.first;
    found = order;
  }
  return found;
}

std::string disassemble(const std::string& tool, const std::string& file) {
  const std::string command = tool + " -c '" + file + "' 2>/dev/null";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  check<DataError>(pipe != nullptr, command, ": cannot be run");
  std::string text;
  std::array<char, 1 << 16> buffer;
  while (const size_t count = fread(buffer.data(), 1, buffer.size(), pipe.get()))
    text.append(buffer.data(), count);
  return text;
}

// Exponentials of a tile: of the scores, and in the forward pass of what two rows shrink by.
struct Wanted {
  const char* file;
  std::map<std::string, int> exponentials;
};

TEST(SassOrder, ExponentialsRunBesideProducts) {
  const std::string tool = LONGREACH_NVDISASM;
  if (tool.empty())
    GTEST_SKIP() << "skipped: no nvdisasm; tools/fetch_nvdisasm.py fetches it, then configure again";
  const Wanted all[] = {{"forward", {{"64", 66}, {"128", 66}}},
                        {"query_gradient", {{"64", 64}, {"128", 32}}}};
  for (const Wanted& wanted : all) {
    const std::string stem = std::string("interval_attention_dense_") + wanted.file;
    const auto kernels =
        read_kernels(disassemble(tool, LONGREACH_CUDA_FOLDER "/" + stem + "_sm90a.sm_90a.cubin"));
    EXPECT_EQ(kernels.size(), 4u) << stem;
    for (const Kernel& kernel : kernels) {
      SCOPED_TRACE(kernel.name);
      const auto order = order_of(kernel);
      ASSERT_TRUE(order.has_value()) << "no loop with both waits";
      EXPECT_EQ(order->beside, wanted.exponentials.at(kernel.name.substr(kernel.name.rfind('_') + 1)));
      EXPECT_EQ(order->after, 0);
    }
  }
}

TEST(SassOrder, TellsWhenTheyRunAfter) {
  const auto kernels = read_kernels(
      ".text.kernel:\n"
      "        /*0000*/ MUFU.EX2 R1, R1 ;\n"
      ".L_x_1:\n"
      "        /*0010*/ HGMMA.64x128x16.F32 R24, gdesc[UR8], RZ, !UPT ;\n"
      "        /*0020*/ WARPGROUP.DEPBAR.LE gsb0, 0x1 ;\n"
      "        /*0030*/ MUFU.EX2 R2, R2 ;\n"
      "        /*0040*/ @!P1 BRA `(.L_x_2) ;\n"
      "        /*0050*/ WARPGROUP.DEPBAR.LE gsb0, 0x0 ;\n"
      "        /*0060*/ MUFU.EX2 R3, R3 ;\n"
      "        /*0070*/ MUFU.EX2 R4, R4 ;\n"
      "        /*0080*/ @P0 BRA `(.L_x_1) ;\n"
      ".L_x_2:\n"
      "        /*0090*/ MUFU.EX2 R5, R5 ;\n");
  ASSERT_EQ(kernels.size(), 1u);
  const auto order = order_of(kernels[0]);
  ASSERT_TRUE(order.has_value());
  EXPECT_EQ(order->beside, 1);
  EXPECT_EQ(order->after, 2);
}

}  // namespace
}  // namespace longreach::cuda
