// What a transport says when an exchange does not come to its end.
#pragma once
#include <chrono>
#include <string>

#include "distributed/communicator.h"
#include "distributed/rendezvous.h"

namespace longreach {

// How often a rank that waits looks whether another has called the roll.
inline constexpr std::chrono::milliseconds kLook{500};

// Calls the roll, and names who does not answer. why: the transport's own words, by which one that is late is
// told from one that is cut off.
RankError lost_exchange(Rendezvous& rendezvous, const std::string& label, const CommConfig& config,
                        const std::string& why);

}  // namespace longreach
