// The door and its set-up, in a small tree of its own: what waits for whom, what needs no lock, what help
// does. Commands that reach outside (apt-get, dpkg-query) are scripts that write down how they were called.
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
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::EndsWith;
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

  // As CMake configures: the program is a copy of a script, and the globs are checked before everything else.
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
        "build bin/longreach: copy ../program.sh\nbuild longreach: phony bin/longreach\n"
        "build all: phony bin/longreach\nbuild core_test: phony bin/longreach\n");
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

// `./longreach test` with checkers and CTest that only write down how they were called.
class WholeRun : public Door {
 protected:
  WholeRun() {
    configure();
    folder_.write("core/a.cpp", "");
    folder_.write("core/a.h", "");
    folder_.write("tools/interop.sh",
                  "set_up_interop() { echo interop >> " + folder_.path("calls") + "; }\n");
    fs::create_directories(folder_.path("data"));
    fs::create_directories(folder_.path("layers"));
    for (const char* name : {"clang-format-14", "clang-tidy-14", "ctest"}) fake(name, "");
    fake("python3", "case \"$*\" in *changed_tests*) echo 'build core_test'; echo 'test ^core_test.';; esac");
    fake_git("");
  }
  void fake_git(const std::string& status) {
    fake("git", "case \"$*\" in *status*) echo \"" + status +
                    "\";; *tree*) echo 1234;; *rev-parse*) echo 5678;; esac");
  }
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
    "longreach_root=$PWD; source tools/setup.sh; services_policy=$PWD/policy; is_root() { true; }; "
    "set_up_packages build";

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

TEST_F(Door, TestsGoOnWithoutEngines) {
  fake("apt-get", "echo 'E: Unable to locate package slurm-wlm'; exit 100");
  const ProgramResult result =
      run("longreach_root=$PWD; source tools/setup.sh; services_policy=$PWD/policy; is_root() { true; }; "
          "set_up_engines; echo goes on");
  EXPECT_EQ(result.code, 0);
  EXPECT_EQ(result.out, "goes on\n");
  EXPECT_THAT(result.err,
              HasSubstr("tests that start mpirun and Slurm, or cut a cable, go without: iproute2 munge "
                        "nftables openmpi-bin slurm-wlm"));
}

TEST_F(Door, OneCallInstallsForAll) {
  fake("apt-get", "sleep 1.5; cd " + folder_.path() + "; ./policy; echo $? >answer; touch installed");
  const RunningProgram one = start_command(shell(kInstall), folder_),
                       two = start_command(shell(kInstall), folder_);
  const ProgramResult first = wait_program(one), second = wait_program(two);
  EXPECT_EQ(first.code, 0) << first.err;
  EXPECT_EQ(second.code, 0) << second.err;
  const Words lines = calls();
  EXPECT_EQ(std::count_if(lines.begin(), lines.end(), [](auto& line) { return line.starts_with("apt-get"); }),
            1);
  EXPECT_EQ(read_text(folder_.path("answer")), "101\n") << "no service may start";
  EXPECT_FALSE(fs::exists(folder_.path("policy")));
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

TEST_F(WholeRun, NamesTheTreeThatPassed) {
  const std::string passed = folder_.path("build/passed");
  const ProgramResult result = call("test");
  EXPECT_EQ(result.code, 0) << result.out << result.err;
  EXPECT_EQ(read_text(passed), "tree 1234\ncommit 5678\n");
  const Words lines = calls();
  EXPECT_THAT(lines, Contains("interop"));
  EXPECT_THAT(lines, Contains(AllOf(StartsWith("python3 "), HasSubstr("test_times.py"))));
  fake_git(" M core/a.cpp");
  EXPECT_EQ(call("test").code, 0);
  EXPECT_FALSE(fs::exists(passed)) << "what lay there has no name";
  fake_git("");
  fake("ctest", "exit 8");
  EXPECT_EQ(call("test").code, 1);
  EXPECT_FALSE(fs::exists(passed));
}

TEST_F(WholeRun, ChangedBuildsAndRunsWhatIsChosen) {
  ProgramResult result = call("test --changed");
  EXPECT_EQ(result.code, 2);
  EXPECT_THAT(result.err, HasSubstr("no whole run has passed here"));
  folder_.write("build/passed", "tree 1234\ncommit 5678\n");
  calls();
  result = call("test --changed");
  EXPECT_EQ(result.code, 0) << result.out << result.err;
  EXPECT_THAT(result.out, HasSubstr("since 1234: 1 test programs: core_test"));
  const Words lines = calls();
  EXPECT_THAT(lines, Contains(HasSubstr("changed_tests.py " + folder_.path("build") + " 1234")));
  EXPECT_THAT(lines, Contains(EndsWith("-R ^core_test.")));
  EXPECT_THAT(lines, Contains(StartsWith("clang-format-14")));
  EXPECT_THAT(lines, Contains(StartsWith("clang-tidy-14")));
  call("test --changed HEAD~2");
  EXPECT_THAT(calls(), Contains(EndsWith("build HEAD~2")));
  fake("python3", "case \"$*\" in *changed_tests*) exit 1;; esac");
  EXPECT_EQ(call("test --changed nothing").code, 2);
  EXPECT_EQ(call("test --preset asan --changed").code, 2);
}

// A tree of three test programs over two libraries, built by rules that write lists of headers as compilers
// do.
class Changed : public Door {
 protected:
  Changed() {
    fs::create_directories(folder_.path("tools"));
    fs::copy_file(LONGREACH_SOURCE_DIR "/tools/changed_tests.py", folder_.path("tools/changed_tests.py"));
    std::string text =
        "rule CXX_COMPILER__x\n  command = echo \"$out: $in $header\" > $out.d && touch $out\n"
        "  deps = gcc\n  depfile = $out.d\nrule join\n  command = touch $out\n";
    const auto object = [&](const std::string& source, const std::string& header, const std::string& body) {
      folder_.write(source, body);
      folder_.write(header, "");
      text += "build " + source + ".o: CXX_COMPILER__x " + folder_.path(source) +
              " || order\n  header = ../" + header + "\n";
    };
    object("core/a.cpp", "core/a.h", "");
    object("layers/attention/wave/wave.cpp", "core/a.h", "");
    object("layers/basic/b.cpp", "layers/basic/b.h", "");
    object("tests/core/a_test.cpp", "core/a.h", "#include \"core/pages/a.h\"\n\"/docs/page.md\"");
    object("tests/layers/attention/wave/x_test.cpp", "layers/attention/wave/wave.h", "");
    object("tests/train/run_test.cpp", "core/other.h", "TEST(Run, A) { \"wave\"; }\nTEST_F(More, B) {}");
    object("tests/train/rest_test.cpp", "core/other.h", "TEST(Rest, A) {}");
    text +=
        "build order: phony\n"
        "build libcore.a: join core/a.cpp.o\n"
        "build liblayers.a: join layers/attention/wave/wave.cpp.o layers/basic/b.cpp.o || libcore.a\n"
        "build bin/core_test: join tests/core/a_test.cpp.o | libcore.a\n"
        "build bin/layers_attention_wave_test: join tests/layers/attention/wave/x_test.cpp.o | "
        "liblayers.a\n"
        "build bin/train_test: join tests/train/run_test.cpp.o tests/train/rest_test.cpp.o | liblayers.a || "
        "order\n";
    folder_.write("build/build.ninja", text);
    EXPECT_EQ(run("ninja -C build").code, 0);
  }
  // What a change of these files builds and runs.
  Words chosen(const Words& files) {
    fake("git", "case \"$*\" in *diff*) printf '%s\\0' " + files[0] +
                    (files.size() > 1 ? " " + files[1] : "") + ";; esac");
    const ProgramResult result = run("python3 tools/changed_tests.py build HEAD");
    EXPECT_EQ(result.code, 0) << result.err;
    std::istringstream lines(result.out);
    Words all;
    for (std::string line; std::getline(lines, line);)
      if (!line.empty()) all.push_back(line);
    return all;
  }
};

TEST_F(Changed, FollowsObjectsLibrariesAndHeaders) {
  const Words core = {"build core_test", "test ^core_test\\."};
  EXPECT_EQ(chosen({"tests/core/a_test.cpp"}), core);
  EXPECT_THAT(chosen({"layers/basic/b.h"}),
              ElementsAre("build layers_attention_wave_test", "build train_test",
                          "test ^layers_attention_wave_test\\.", "test ^train_test\\."));
  EXPECT_THAT(chosen({"core/a.cpp"}), testing::SizeIs(6)) << "by order alone, too";
  EXPECT_THAT(chosen({"CMakeLists.txt"}), testing::SizeIs(6));
  fs::remove(folder_.path("core/a.h"));
  EXPECT_THAT(chosen({"core/a.h"}), testing::SizeIs(6)) << "a deleted header";
  EXPECT_THAT(chosen({"layers/basic/gone.cpp"}), testing::SizeIs(4)) << "its neighbours' library";
}

TEST_F(Changed, OneMechanismsObjectCountsForTheTestsThatNameIt) {
  const Words expected = {"build layers_attention_wave_test", "build train_test",
                          "test ^layers_attention_wave_test\\.",
                          "test ^train_test\\.(.*/)?(More|Run)(/[^.]*)?\\."};
  EXPECT_EQ(chosen({"layers/attention/wave/wave.cpp"}), expected);
  EXPECT_EQ(chosen({"tests/layers/attention/wave/vectors/a.safetensors"}), expected);
}

TEST_F(Changed, PagesAndDataCountForTheFilesThatNameThem) {
  EXPECT_THAT(chosen({"docs/page.md"}), ElementsAre("build core_test", "test ^core_test\\."));
  EXPECT_THAT(chosen({"README.md", "core/pages/x.md"}), ElementsAre());
}

TEST_F(Changed, WhatWasNeverBuiltCounts) {
  fs::remove(folder_.path("build/.ninja_deps"));
  EXPECT_THAT(chosen({"README.md"}), testing::SizeIs(6));
}

TEST(TestTimes, TheSlowestComeFirst) {
  const TemporaryFolder folder;
  const std::string report = folder.write(
      "tests.xml",
      "<testsuite><testcase name=\"a.B\" time=\"0.5\"/><testcase name=\"c.D\" time=\"12\"/></testsuite>");
  const ProgramResult result =
      run_command({"python3", LONGREACH_SOURCE_DIR "/tools/test_times.py", report, folder.path("slow.xml")});
  EXPECT_EQ(result.out,
            "2 tests took 12 s, side by side or not; the slowest:\n    12.0 s  c.D\n     0.5 s  a.B\n")
      << result.err;
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
