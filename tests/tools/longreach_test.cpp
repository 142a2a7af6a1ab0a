// The door and its set-up, in a small tree of its own: what waits for whom, what needs no lock, what help does. Commands that
// reach outside (apt-get, dpkg-query) are scripts that write down how they were called.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "tests/support/files.h"

namespace longreach::test {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Words = std::vector<std::string>;

class Door : public testing::Test {
 protected:
  Door() {
    for (const char* file : {"longreach", "tools/setup.sh", "tools/test.sh", "cmake/libtorch.lock"}) {
      fs::create_directories(fs::path(folder_.path(file)).parent_path());
      fs::copy_file(fs::path(LONGREACH_SOURCE_DIR) / file, folder_.path(file));
    }
    folder_.write("torch/x", "");
    folder_.write("calls", "");
    folder_.write("program.sh", "#!/bin/sh\necho program \"$@\"\n");
    fake("dpkg-query", "[ ! -e " + folder_.path("installed") + " ] || for p; do echo \"$p ii \"; done");
    fake("apt-get", "exit 100");
  }

  // A command of that name, which comes before the real one.
  void fake(const std::string& name, const std::string& body) {
    const std::string file = folder_.write("bin/" + name, "#!/bin/sh\necho " + name + " \"$@\" >> " +
                                                              folder_.path("calls") + "\n" + body + "\n");
    fs::permissions(file, fs::perms::owner_all);
  }

  // As CMake configures: the program is a copy of program.sh, and the globs are checked before everything else.
  void configure() {
    folder_.write("CMakeLists.txt", "");
    folder_.write("build/CMakeCache.txt", "LONGREACH_TORCH_ROOT:PATH=" + folder_.path("torch") +
                                              "\nCMAKE_HOME_DIRECTORY:INTERNAL=" + folder_.path() + "\n");
    folder_.write("build/CMakeFiles/VerifyGlobs.cmake",
                  "file(GLOB found " + folder_.path() +
                      "/*.src)\nif(found)\n  message(\"-- GLOB mismatch!\")\n"
                      "  file(TOUCH ${CMAKE_CURRENT_LIST_DIR}/cmake.verify_globs)\nendif()\n");
    folder_.write("build/CMakeFiles/cmake.verify_globs", "");
    folder_.write(
        "build/build.ninja",
        "rule copy\n  command = cp $in $out && chmod +x $out && echo built >> ../calls\n"
        "rule RERUN_CMAKE\n  command = echo configured >> ../calls; rm -f ../new.src; touch build.ninja\n  "
        "generator = 1\n"
        "rule VERIFY_GLOBS\n  command = cmake -P CMakeFiles/VerifyGlobs.cmake\n  restat = 1\n  generator = "
        "1\n"
        "build CMakeFiles/force: phony\n"
        "build CMakeFiles/cmake.verify_globs: VERIFY_GLOBS | CMakeFiles/force\n"
        "build build.ninja: RERUN_CMAKE CMakeFiles/cmake.verify_globs | CMakeCache.txt ../CMakeLists.txt\n"
        "build bin/longreach: copy ../program.sh\nbuild longreach: phony bin/longreach\n");
  }

  Words shell(const std::string& script) const {
    return {"env",
            "PATH=" + folder_.path("bin") + ":" + ::getenv("PATH"),
            "HOME=" + folder_.path("home"),
            "LONGREACH_TORCH_ROOT=" + folder_.path("torch"),
            "bash",
            "-c",
            "unset XDG_CACHE_HOME; cd " + folder_.path() + "; " + script};
  }
  ProgramResult run(const std::string& script) const { return run_command(shell(script)); }
  ProgramResult call(const std::string& arguments = "info") const {
    return run("LONGREACH_SKIP_PACKAGES=1 exec ./longreach " + arguments);
  }
  // The lines that commands wrote, and an empty file again.
  Words calls() {
    std::istringstream lines(read_text(folder_.path("calls")));
    Words all;
    for (std::string line; std::getline(lines, line);) all.push_back(line);
    folder_.write("calls", "");
    return all;
  }
  void touch(const std::string& file) {
    fs::last_write_time(folder_.path(file), fs::file_time_type::clock::now() + std::chrono::milliseconds(50));
  }

  const TemporaryFolder folder_;
};

class HeldLock {
 public:
  explicit HeldLock(const std::string& path)
      : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
    EXPECT_EQ(::flock(descriptor_, LOCK_EX), 0);
  }
  ~HeldLock() { ::close(descriptor_); }

 private:
  int descriptor_;
};

TEST_F(Door, BuildsOnceThenRunsWithoutALock) {
  configure();
  const ProgramResult first = call();
  EXPECT_EQ(first.out, "program info\n") << first.err;
  EXPECT_THAT(calls(), ElementsAre("built"));
  const HeldLock other(folder_.path("build/.lock"));
  const ProgramResult second = call();
  EXPECT_EQ(second.out, "program info\n");
  EXPECT_EQ(second.err, "");
  EXPECT_THAT(calls(), ElementsAre());
}

TEST_F(Door, SaysThatItWaitsForAnotherBuild) {
  configure();
  call();
  touch("program.sh");
  auto other = std::make_unique<HeldLock>(folder_.path("build/.lock"));
  calls();
  const RunningProgram waiting =
      start_command(shell("LONGREACH_SKIP_PACKAGES=1 exec ./longreach info"), folder_);
  while (read_text(waiting.err_file).empty()) ::usleep(20000);
  EXPECT_EQ(read_text(waiting.err_file), "longreach: waiting for another build of this tree\n");
  EXPECT_THAT(calls(), ElementsAre());
  other.reset();
  EXPECT_EQ(wait_program(waiting).out, "program info\n");
  EXPECT_THAT(calls(), ElementsAre("built"));
}

TEST_F(Door, SeesNewSourcesFilesAndSettings) {
  configure();
  call();
  calls();
  touch("program.sh");
  EXPECT_EQ(call().code, 0);
  EXPECT_THAT(calls(), ElementsAre("built"));
  touch("CMakeLists.txt");
  call();
  EXPECT_EQ(calls().front(), "configured");
  folder_.write("new.src", "");
  call();
  EXPECT_EQ(calls().front(), "configured");
}

TEST_F(Door, GoesOnWhereThereAreNoLocks) {
  configure();
  fake("flock", "echo 'flock: 9: No locks available' >&2; exit 71");
  const ProgramResult result = call();
  EXPECT_EQ(result.out, "program info\n");
  EXPECT_THAT(result.err, HasSubstr("longreach: warning: the file system of the lock has none"));
  EXPECT_EQ(call().err, "");
}

TEST_F(Door, HelpInstallsAndBuildsNothing) {
  for (const char* arguments : {"--help", "-h", "help", "train --help", "help train", "generate x -h"}) {
    const ProgramResult result = run(std::string("exec ./longreach ") + arguments);
    EXPECT_EQ(result.code, 0) << arguments << result.err;
    EXPECT_THAT(result.out, StartsWith("usage: ./longreach VERB"));
  }
  EXPECT_EQ(run("exec ./longreach").code, 2);
  EXPECT_THAT(calls(), ElementsAre());
  EXPECT_FALSE(fs::exists(folder_.path("build")));
  configure();
  call();
  calls();
  touch("program.sh");
  EXPECT_EQ(run("exec ./longreach train --help").out, "program train --help\n");
  EXPECT_THAT(calls(), ElementsAre()) << "an older program's help is help";
}

TEST_F(Door, PackagesAreLeftAloneOnRequest) {
  configure();
  EXPECT_EQ(call().out, "program info\n");
  EXPECT_THAT(calls(), ElementsAre("built"));
}

constexpr const char* kInstall =
    "longreach_root=$PWD; source tools/setup.sh; is_root() { true; }; set_up_packages build";

TEST_F(Door, WaitsForTheLockOfAptsLists) {
  fake("apt-get", "cd " + folder_.path() +
                      "\ncase \"$*\" in\n"
                      "*install*) [ -e updated ] && touch installed || { echo 'E: Unable to locate package "
                      "x'; exit 100; };;\n"
                      "*update*) [ -e tried ] && touch updated || { touch tried; echo 'E: Could not get lock "
                      "/var/lib/apt/lists/lock. It is held by process 12 (apt-get)'; exit 100; };;\nesac");
  const ProgramResult result = run(kInstall);
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("waiting for another apt-get"));
  Words kinds;
  for (const std::string& line : calls())
    if (line.starts_with("apt-get"))
      kinds.push_back(line.find("install") == std::string::npos ? "update" : "install");
  EXPECT_THAT(kinds, ElementsAre("install", "update", "update", "install"));
}

TEST_F(Door, OneCallInstallsForAll) {
  fake("apt-get", "sleep 1.5; touch " + folder_.path("installed"));
  const RunningProgram one = start_command(shell(kInstall), folder_),
                       two = start_command(shell(kInstall), folder_);
  const ProgramResult first = wait_program(one), second = wait_program(two);
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_EQ(second.code, 0) << second.err;
  const Words lines = calls();
  EXPECT_EQ(std::count_if(lines.begin(), lines.end(), [](auto& line) { return line.starts_with("apt-get"); }),
            1);
}

TEST_F(Door, FailuresSayWhatToDo) {
  fake("apt-get", "echo 'E: No space left'; exit 100");
  const ProgramResult result = run(kInstall);
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, HasSubstr("No space left"));
  const ProgramResult nobody =
      run("longreach_root=$PWD; source tools/setup.sh; is_root() { false; }; set_up_packages build");
  EXPECT_EQ(nobody.code, 2);
  EXPECT_THAT(nobody.err, HasSubstr("as root, run: apt-get install -y"));
  EXPECT_THAT(nobody.err, HasSubstr("docs/setup.md"));
}

TEST(SetUp, TheListOfPackagesIsDocumented) {
  const std::string page = read_text(LONGREACH_SOURCE_DIR "/docs/setup.md");
  const ProgramResult names =
      run_command({"bash", "-c",
                   "source " LONGREACH_SOURCE_DIR
                   "/tools/setup.sh; echo ${build_packages[*]} ${fetch_packages[*]} ${test_packages[*]}"});
  std::istringstream words(names.out);
  for (std::string name; words >> name;) EXPECT_THAT(page, HasSubstr("`" + name + "`"));
}

}  // namespace
}  // namespace longreach::test
