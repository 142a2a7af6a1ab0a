#include "distributed/rendezvous.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <future>
#include <memory>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

namespace longreach {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

using Store = c10::intrusive_ptr<c10d::Store>;

constexpr milliseconds kPause{20};
// How long a store that lives needs at most to answer, and how long an exchange that fails may wait for that
// beside its own time.
constexpr milliseconds kAnswer{500}, kGlance{100};
constexpr const char* kRollCalled = "roll-called";

// c10d's errors have a stack trace behind the first line.
std::string first_line(const std::exception& error) {
  const std::string what = error.what();
  return what.substr(0, what.find('\n'));
}

// What ask() gives, or throws. c10d's store waits without end for an answer that a cable which was cut does
// not bring: the thread is left to that, and must own what ask() uses.
template <class Ask>
auto start_asking(Ask ask) {
  std::packaged_task<decltype(ask())()> task(std::move(ask));
  auto answer = task.get_future();
  std::thread(std::move(task)).detach();
  return answer;
}

template <class Answer>
bool came_within(milliseconds time, const std::future<Answer>& answer) {
  return answer.wait_for(time) == std::future_status::ready;
}

// The ranks without the key NAME/RANK after that time.
std::vector<int> absent(const Store& store, const std::string& name, int world, milliseconds patience) {
  const auto end = Clock::now() + patience;
  for (;;) {
    std::vector<int> missing;
    for (int rank = 0; rank < world; ++rank)
      if (!store->check({text(name, "/", rank)})) missing.push_back(rank);
    if (missing.empty() || Clock::now() > end) return missing;
    std::this_thread::sleep_for(kPause);
  }
}

c10::intrusive_ptr<c10d::TCPStore> hold_store(int port) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(port);
  options.isServer = true;
  options.waitWorkers = false;
  try {
    return c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
  } catch (const std::exception& error) {
    throw ConfigError(text("MASTER_PORT = ", port, ": ranks cannot meet there: ", first_line(error)));
  }
}

struct Socket {
  int descriptor = -1;
  ~Socket() {
    if (descriptor >= 0) ::close(descriptor);
  }
};

std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(const std::string& host, int port) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  const int failure = ::getaddrinfo(host.c_str(), text(port).c_str(), &hints, &found);
  check<ConfigError>(failure == 0, "ranks cannot meet at ", host, ": ", ::gai_strerror(failure),
                     "; give every rank MASTER_ADDR=HOST, an address of rank 0's machine that all can reach");
  return {found, ::freeaddrinfo};
}

// Connected, or a descriptor of -1.
void connect(Socket& socket, const std::string& host, int port) {
  const auto list = addresses(host, port);
  for (const addrinfo* a = list.get(); a != nullptr; a = a->ai_next) {
    Socket tried{::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol)};
    if (tried.descriptor < 0 || ::connect(tried.descriptor, a->ai_addr, a->ai_addrlen) != 0) continue;
    std::swap(socket.descriptor, tried.descriptor);
    return;
  }
}

// c10d's own waiting goes on for longer than it is asked for.
void wait_for_store(const Environment& environment, Clock::time_point end) {
  for (;;) {
    Socket socket;
    connect(socket, environment.master_host, environment.master_port);
    if (socket.descriptor >= 0) return;
    check<RankError>(Clock::now() < end, "rank 0 did not come: nobody holds the store at ",
                     environment.master_host, ":", environment.master_port, " (MASTER_ADDR, MASTER_PORT)");
    std::this_thread::sleep_for(kPause);
  }
}

Store reach_store(const Environment& environment, milliseconds timeout) {
  const auto end = Clock::now() + timeout;
  c10::intrusive_ptr<c10d::TCPStore> store;
  if (environment.rank == 0 && !environment.store_is_held) {
    addresses(environment.master_host, environment.master_port);  // else the others alone would fail at once
    store = hold_store(environment.master_port);
  } else {
    wait_for_store(environment, end);
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(environment.master_port);
    options.waitWorkers = false;
    options.timeout = timeout;
    try {
      auto answer = start_asking([host = environment.master_host, options] {
        return c10::make_intrusive<c10d::TCPStore>(host, options);
      });
      const auto left = std::chrono::ceil<milliseconds>(end - Clock::now());
      check<RankError>(came_within(left + kAnswer, answer), "it does not answer");
      store = answer.get();
    } catch (const std::exception& error) {
      throw RankError(text("the store at ", environment.master_host, ":", environment.master_port,
                           " cannot be reached: ", first_line(error)));
    }
  }
  return c10::make_intrusive<c10d::PrefixStore>(text("attempt-", environment.restart), store);
}

}  // namespace

RendezvousServer::RendezvousServer(int port) {
  const auto store = hold_store(port);
  port_ = store->getPort();
  store_ = store;
}

RendezvousServer::~RendezvousServer() = default;

Rendezvous::Rendezvous(const Environment& environment, milliseconds timeout)
    : environment_(environment), store_(reach_store(environment, timeout)) {
  std::vector<int> missing;
  try {
    auto answer =
        start_asking([store = store_, rank = environment_.rank, world = environment_.world, timeout] {
          store->set(text("here/", rank), std::string("1"));
          return absent(store, "here", world, timeout);
        });
    check<RankError>(came_within(timeout + kAnswer, answer), "it does not answer");
    missing = answer.get();
  } catch (const std::exception& error) {
    throw RankError(text("the store of the ranks was lost while they met: ", first_line(error)));
  }
  check<RankError>(missing.empty(), named_ranks(missing), " did not come within ", timeout.count() / 1000,
                   " s (comm.init_timeout_seconds)");
}

Rendezvous::~Rendezvous() = default;

std::optional<Rendezvous::RollCall> Rendezvous::roll_call(milliseconds patience, const std::string& reason) {
  auto answer =
      start_asking([store = store_, rank = environment_.rank, world = environment_.world, patience, reason] {
        store->set(text("alive/", rank), std::string("1"));
        const std::string first = store->compareSet(kRollCalled, std::string(), reason);
        return RollCall{absent(store, "alive", world, patience), first};
      });
  if (!came_within(patience + kAnswer, answer)) return std::nullopt;
  try {
    return answer.get();
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

bool Rendezvous::roll_is_called() {
  if (!look_.valid()) look_ = start_asking([store = store_] { return store->check({kRollCalled}); });
  if (!came_within(kGlance, look_)) return false;
  try {
    return look_.get();
  } catch (const std::exception&) {
    return true;
  }
}

std::string Rendezvous::own_address() const {
  Socket socket;
  connect(socket, environment_.master_host, environment_.master_port);
  sockaddr_storage own{};
  socklen_t size = sizeof(own);
  char host[NI_MAXHOST];
  check<RankError>(socket.descriptor >= 0 &&
                       ::getsockname(socket.descriptor, reinterpret_cast<sockaddr*>(&own), &size) == 0 &&
                       ::getnameinfo(reinterpret_cast<sockaddr*>(&own), size, host, sizeof(host), nullptr, 0,
                                     NI_NUMERICHOST) == 0,
                   "the address of this machine is not known: ", std::strerror(errno));
  return host;
}

}  // namespace longreach
