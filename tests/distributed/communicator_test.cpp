// Every operation on threads and on Gloo: the same bits, whatever dtype, size and number of ranks.
#include "distributed/communicator.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <thread>

#include "distributed/agreement.h"
#include "distributed/gloo.h"
#include "distributed/threads.h"
#include "tests/distributed/gloo_ranks.h"

namespace longreach {
namespace {

using test::run_gloo_ranks;
using testing::AnyOf;
using testing::HasSubstr;

constexpr at::ScalarType kDtypes[] = {at::kFloat, at::kDouble, at::kBFloat16, at::kLong};

// Other numbers on every rank, of all magnitudes, so that the order of a sum shows in its bits.
at::Tensor numbers(int64_t count, int rank, at::ScalarType dtype) {
  const at::Tensor x = at::empty({count}, at::kDouble);
  uint64_t state = 0x9E3779B97F4A7C15u * static_cast<uint64_t>(rank + 1);
  for (int64_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const auto drawn = static_cast<double>(static_cast<int64_t>(state >> 33)) / (1 << 20) - 1000;
    x.mutable_data_ptr<double>()[i] = drawn * (i % 7 == 0 ? 1e-5 : 1.0);
  }
  return x.to(dtype);
}

// What one process gets that adds one rank's numbers after the other.
at::Tensor sum_by_hand(int64_t count, int ranks, at::ScalarType dtype) {
  const auto wide = dtype == at::kBFloat16 ? at::kFloat : dtype;
  at::Tensor sum = numbers(count, 0, dtype).to(wide);
  for (int rank = 1; rank < ranks; ++rank) sum = sum + numbers(count, rank, dtype);
  return sum.to(dtype);
}

using Body = std::function<void(const Group&)>;

void on_both_transports(int ranks, const Body& body) {
  {
    SCOPED_TRACE("threads");
    run_ranks(ranks, body);
  }
  SCOPED_TRACE("gloo");
  run_gloo_ranks(ranks, body);
}

TEST(Communicator, SumsInTheOrderOfRanks) {
  for (int ranks = 1; ranks <= 4; ++ranks)
    on_both_transports(ranks, [&](const Group& group) {
      for (const at::ScalarType dtype : kDtypes)
        for (const int64_t count : {0, 1, 3, 64, 1001}) {
          at::Tensor x = numbers(count, group->rank(), dtype);
          group->all_reduce(x, "sum");
          EXPECT_TRUE(at::equal(x, sum_by_hand(count, ranks, dtype))) << ranks << " " << count;
          const at::Tensor all = sum_by_hand(count * ranks, ranks, dtype);
          const at::Tensor part = group->reduce_scatter(numbers(count * ranks, group->rank(), dtype), "part");
          EXPECT_TRUE(at::equal(part, all.narrow(0, group->rank() * count, count)));
        }
    });
}

TEST(Communicator, SumsMoreThanOnePiece) {
  constexpr int64_t kCount = (int64_t{9} << 20) + 5;  // float32: 36 MiB and a little
  run_gloo_ranks(3, [&](const Group& group) {
    const at::Tensor x = at::arange(kCount, at::kFloat) + static_cast<double>(group->rank());
    group->all_reduce(x, "sum");
    const at::Tensor first = at::arange(kCount, at::kFloat);
    EXPECT_TRUE(at::equal(x, (first + (first + 1)) + (first + 2)));
  });
}

TEST(Communicator, GathersAndSends) {
  for (int ranks = 1; ranks <= 4; ++ranks)
    on_both_transports(ranks, [&](const Group& group) {
      for (const at::ScalarType dtype : kDtypes)
        for (const int64_t count : {0, 1, 33}) {
          std::vector<at::Tensor> of_ranks;
          for (int rank = 0; rank < ranks; ++rank) of_ranks.push_back(numbers(count, rank, dtype));
          const at::Tensor all = at::empty({ranks * count}, dtype);
          group->all_gather(all, of_ranks[static_cast<size_t>(group->rank())], "gather").wait();
          EXPECT_TRUE(at::equal(all, at::cat(of_ranks)));
          for (int root = 0; root < ranks; ++root) {
            const at::Tensor x = numbers(count, group->rank(), dtype);
            group->broadcast(x, root, "send");
            EXPECT_TRUE(at::equal(x, of_ranks[static_cast<size_t>(root)]));
          }
        }
    });
}

// Rank a sends (a + 2 b) % 4 rows of 3 elements to rank b.
TEST(Communicator, ExchangesUnevenRows) {
  for (int ranks = 1; ranks <= 4; ++ranks)
    on_both_transports(ranks, [&](const Group& group) {
      const int me = group->rank();
      const auto rows = [](int from, int to) { return static_cast<int64_t>((from + 2 * to) % 4); };
      for (const at::ScalarType dtype : kDtypes) {
        Splits in_rows, out_rows;
        std::vector<at::Tensor> in, expected;
        const auto block = [&](int from, int to) {
          return numbers(rows(from, to) * 3, 10 * from + to, dtype).view({rows(from, to), 3});
        };
        for (int other = 0; other < ranks; ++other) {
          in_rows.push_back(rows(me, other));
          out_rows.push_back(rows(other, me));
          in.push_back(block(me, other));
          expected.push_back(block(other, me));
        }
        const at::Tensor wanted = at::cat(expected), out = at::empty_like(wanted);
        auto first = group->all_to_all(out, at::cat(in), out_rows, in_rows, "rows");
        const at::Tensor again = at::empty_like(wanted);
        auto second = group->all_to_all(again, at::cat(in), out_rows, in_rows, "rows");  // two under way
        second.wait();
        first.wait();
        EXPECT_TRUE(at::equal(out, wanted));
        EXPECT_TRUE(at::equal(again, wanted));
      }
    });
}

TEST(Communicator, SplitsIntoGroups) {
  on_both_transports(4, [&](const Group& world) {
    const int me = world->rank();
    const Group pair = world->split(me < 2 ? std::vector<int>{0, 1} : std::vector<int>{2, 3});
    const Group others = world->split(me % 2 == 0 ? std::vector<int>{0, 2} : std::vector<int>{1, 3});
    EXPECT_EQ(pair->rank(), me % 2);
    EXPECT_EQ(others->rank(), me / 2);
    EXPECT_EQ(sum_over(pair, std::vector<int64_t>{me}, "sum")[0], me < 2 ? 1 : 5);
    EXPECT_EQ(sum_over(others, std::vector<int64_t>{me}, "sum")[0], me % 2 == 0 ? 2 : 4);
  });
}

TEST(Communicator, CountsWhatLeaves) {
  on_both_transports(3, [&](const Group& group) {
    group->all_reduce(at::zeros({6}, at::kFloat), "sum");  // two shares of 2 there, the own one to two
    group->all_gather(at::zeros({12}), at::zeros({4}), "all").wait();
    EXPECT_EQ(group->traffic().at("sum").bytes, (2 * 2 + 2 * 2) * 4);
    EXPECT_EQ(group->traffic().at("sum").operations, 2);
    EXPECT_EQ(group->traffic().at("all").bytes, 2 * 4 * 4);
  });
}

TEST(Communicator, RefusesWhatDoesNotFit) {
  run_ranks(1, [](const Group& group) {
    const at::Tensor x = at::zeros({4, 2});
    EXPECT_THROW(group->all_to_all(x, x, {3}, {4}, "x"), ShapeError);
    EXPECT_THROW(group->all_to_all(x.t(), x.t(), {2}, {2}, "x"), ShapeError);
    EXPECT_THROW(group->all_to_all(x, x, {4, 0}, {4, 0}, "x"), ShapeError);
    EXPECT_THROW(group->all_gather(at::zeros({7}), x, "x"), ShapeError);
  });
}

// With `check` a mismatch is the same error on all ranks, and no process ends.
TEST(Communicator, ComparesOperations) {
  CommConfig config;
  config.check = true;
  const auto error_of = [](const std::function<void()>& exchange) -> std::string {
    try {
      exchange();
    } catch (const RankError& error) {
      return error.what();
    }
    return "none";
  };
  const Body body = [&](const Group& group) {
    const int me = group->rank();
    const at::Tensor x = at::zeros({4, 2});
    group->all_reduce(x, "as ever");
    EXPECT_THAT(
        error_of([&] { group->all_gather(at::zeros({6 + 2 * me}), at::zeros({3 + me}), "sizes").wait(); }),
        HasSubstr(
            "ranks disagree about all_gather \"sizes\": rank 0 sends 3 rows to rank 1, which expects 4"));
    EXPECT_THAT(error_of([&] { group->all_gather(at::zeros({6}), at::zeros({3}), me ? "b" : "a").wait(); }),
                HasSubstr("rank 0 calls all_gather \"a\", rank 1 calls all_gather \"b\""));
    EXPECT_THAT(error_of([&] {
                  group->all_to_all(x, x, {2, 2}, {2 + me, 2 - me}, "rows").wait();
                }),
                HasSubstr("which expects 2"));
    group->barrier("all is well");
  };
  run_ranks(2, body, config);
  run_gloo_ranks(2, body, config);
}

TEST(Communicator, AFailedRankEndsTheWaitsOfOthers) {
  try {
    run_ranks(3, [](const Group& group) {
      if (group->rank() == 1) throw TrainingError("rank 1 has had enough");
      group->barrier("end");
    });
    ADD_FAILURE() << "no error";
  } catch (const TrainingError& error) {
    EXPECT_STREQ(error.what(), "rank 1 has had enough");
  }
}

TEST(Communicator, NamesWhoDoesNotCome) {
  CommConfig config;
  config.timeout = std::chrono::milliseconds(200);
  std::mutex mutex;
  std::vector<std::string> errors;
  const Body body = [&](const Group& group) {
    if (group->rank() == 1) return;
    try {
      group->barrier("meeting");
    } catch (const RankError& error) {
      const std::lock_guard lock(mutex);
      errors.emplace_back(error.what());
    }
  };
  run_ranks(3, body, config);
  ASSERT_EQ(errors.size(), 2u);
  EXPECT_THAT(errors[0], HasSubstr("rank 1 did not come to \"meeting\""));
}

// Rank 1 alone exchanges with rank 2, which leaves; rank 0 waits for rank 1 all the while, and must say that
// it is there.
TEST(Communicator, WhoWaitsInAnotherExchangeAnswersTheRoll) {
  std::string errors[3];
  run_gloo_ranks(3, [&](const Group& world) {
    const int me = world->rank();
    const Group left = world->split(me < 2 ? std::vector<int>{0, 1} : std::vector<int>{2}),
                right = world->split(me > 0 ? std::vector<int>{1, 2} : std::vector<int>{0});
    if (me == 2) return;
    try {
      (me == 0 ? left : right)->barrier("meeting");
    } catch (const RankError& error) {
      errors[me] = error.what();
    }
  });
  for (const int rank : {0, 1}) EXPECT_THAT(errors[rank], HasSubstr("rank 2 did not come to \"meeting\""));
}

TEST(Agreement, SumsAndGathers) {
  on_both_transports(3, [](const Group& group) {
    const int me = group->rank();
    EXPECT_EQ(sum_over(group, std::vector<double>{0.1, 1.0 * me}, "x"),
              (std::vector<double>{0.1 + 0.1 + 0.1, 3.0}));
    EXPECT_EQ(largest_over(group, me == 1 ? 7 : -2, "x"), 7);
    EXPECT_EQ(gather(group, std::string(static_cast<size_t>(me), 'a'), "x"),
              (std::vector<std::string>{"", "a", "aa"}));
  });
  EXPECT_EQ(gather(Group(), std::string("alone"), "x"), std::vector<std::string>{"alone"});
}

TEST(Agreement, OthersWaitForTheFirstRank) {
  on_both_transports(3, [](const Group& group) {
    int done = 0;
    on_first_rank(group, [&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(700));  // more than a beat
      done = 1;
    });
    EXPECT_EQ(done, group->rank() == 0 ? 1 : 0);
    EXPECT_EQ(sum_over(group, std::vector<int64_t>{done}, "x")[0], 1);
    EXPECT_THROW(on_first_rank(group, [] { throw ConfigError("model.vocab_size: no"); }), UserError);
    try {
      on_first_rank(group, [] { throw TrainingError("the disk is full"); });
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("the disk is full"));
      EXPECT_EQ(dynamic_cast<const UserError*>(&error), nullptr);
    }
  });
}

TEST(Agreement, AllRanksWorkAndFailAlike) {
  on_both_transports(3, [](const Group& group) {
    const int me = group->rank();
    int done = 0;
    on_every_rank(group, [&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(me * 350));  // the last: more than a beat
      done = 1;
    });
    EXPECT_EQ(sum_over(group, std::vector<int64_t>{done}, "x")[0], 3);
    std::string said;
    try {
      on_every_rank(group, [&] {
        if (me > 0) throw ConfigError(text("no ", me));
      });
    } catch (const UserError& error) {
      said = error.what();
    }
    EXPECT_EQ(said, me == 0 ? "rank 1: no 1" : text("no ", me));
    bool failed = false;
    try {
      on_every_rank(group, [&] {
        if (me == 2) throw TrainingError("no number");
      });
    } catch (const Error& error) {
      failed = dynamic_cast<const UserError*>(&error) == nullptr;
    }
    EXPECT_TRUE(failed);
    EXPECT_EQ(sum_over(group, std::vector<int64_t>{1}, "x")[0], 3) << "the group is of use afterwards";
  });
}

}  // namespace
}  // namespace longreach
