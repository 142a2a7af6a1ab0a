#include "distributed/lost_exchange.h"

#include "core/error.h"

namespace longreach {
namespace {

// Survivors wait so long for each other before they name who is missing.
constexpr std::chrono::milliseconds kRollCall{2000};

}  // namespace

RankError lost_exchange(Rendezvous& rendezvous, const std::string& label, const CommConfig& config,
                        const std::string& why) {
  const bool late = why.find("imed out") != std::string::npos || why.find("imeout") != std::string::npos;
  const std::string reason =
      late ? text("within ", config.timeout.count() / 1000, " s (comm.train_timeout_seconds)")
           : "(connection lost)";
  const auto roll = rendezvous.roll_call(kRollCall, reason);
  if (!roll)
    return RankError(text(rendezvous.environment().store_is_held ? "the launcher" : "rank 0",
                          " (it kept the store) was lost in \"", label, "\""));
  if (roll->missing.empty())
    return RankError(text("all ranks are alive, but \"", label, "\" did not end ", roll->reason, ": ",
                          why.substr(0, why.find('\n'))));
  return RankError(text(named_ranks(roll->missing), " did not come to \"", label, "\" ", roll->reason));
}

}  // namespace longreach
