#include "distributed/operation.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>

namespace longreach {
namespace {

constexpr int64_t kNameWords = 16;
constexpr size_t kNameBytes = kNameWords * sizeof(int64_t);

// Of one rank, read in place.
struct Packed {
  const int64_t* words;
  int64_t ranks;

  std::string name() const { return reinterpret_cast<const char*>(words); }
  int64_t row_bytes() const { return words[kNameWords]; }
  int64_t to(int64_t rank) const { return words[kNameWords + 1 + rank]; }
  int64_t from(int64_t rank) const { return words[kNameWords + 1 + ranks + rank]; }
};

void expect_same(const Packed& first, const Packed& other, int64_t rank) {
  check<RankError>(first.name() == other.name(), "ranks disagree: rank 0 calls ", first.name(), ", rank ",
                   rank, " calls ", other.name());
  check<RankError>(first.row_bytes() == other.row_bytes(), "ranks disagree about ", first.name(),
                   ": rows have ", first.row_bytes(), " bytes on rank 0, ", other.row_bytes(), " on rank ",
                   rank);
}

}  // namespace

at::Tensor packed(const Operation& operation) {
  const auto ranks = static_cast<int64_t>(operation.in_rows.size());
  const at::Tensor result = at::zeros({kNameWords + 1 + 2 * ranks}, at::kLong);
  auto* words = result.mutable_data_ptr<int64_t>();
  const std::string name = text(operation.name, " \"", operation.label, "\"");
  std::memcpy(words, name.data(), std::min(name.size(), kNameBytes - 1));
  words[kNameWords] = operation.row_bytes;
  std::copy(operation.in_rows.begin(), operation.in_rows.end(), words + kNameWords + 1);
  std::copy(operation.out_rows.begin(), operation.out_rows.end(), words + kNameWords + 1 + ranks);
  return result;
}

void expect_one_operation(const at::Tensor& all) {
  const int64_t ranks = all.size(0);
  const auto of = [&](int64_t rank) {
    return Packed{all.const_data_ptr<int64_t>() + rank * all.size(1), ranks};
  };
  for (int64_t r = 1; r < ranks; ++r) expect_same(of(0), of(r), r);
  for (int64_t from = 0; from < ranks; ++from)
    for (int64_t to = 0; to < ranks; ++to)
      check<RankError>(of(from).to(to) == of(to).from(from), "ranks disagree about ", of(0).name(), ": rank ",
                       from, " sends ", of(from).to(to), " rows to rank ", to, ", which expects ",
                       of(to).from(from));
}

}  // namespace longreach
