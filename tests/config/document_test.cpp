#include "config/document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>

#include "temporary_folder.h"

namespace preheat {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

std::string error_of(const std::string& text) {
  try {
    parse_document(text, "f.yaml");
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

TEST(Document, KnowsWhereEverythingStands) {
  const Document d = parse_document("a: 1\nb:\n  c: \"2\"\n  d: [x, {e: ~}]\n", "f.yaml");
  const Node* b = d.root.find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->where.line, 2);
  const Node* c = b->find("c");
  ASSERT_NE(c, nullptr);
  EXPECT_TRUE(c->quoted);
  EXPECT_EQ(c->where.source, "f.yaml");
  EXPECT_EQ(c->where.line, 3);
  EXPECT_EQ(c->where.column, 3);
  EXPECT_EQ(c->where.key, "b.c");
  const Node& e = b->find("d")->items.at(1).keys.at(0).second;
  EXPECT_EQ(e.kind, Node::Kind::null);
  EXPECT_EQ(e.where.key, "b.d.1.e");
  EXPECT_EQ(e.where.line, 4);
  EXPECT_EQ(e.where.column, 11);
}

TEST(Document, EmptyTextIsAnEmptyMap) {
  for (const char* text : {"", "\n\n", "# nothing\n", "---\n", "\xef\xbb\xbf# marked\n", "{}"}) {
    const Document d = parse_document(text, "f.yaml");
    EXPECT_EQ(d.root.kind, Node::Kind::map);
    EXPECT_TRUE(d.root.keys.empty());
  }
}

TEST(Document, RefusesWhatTheFormatIsNotMeantToHave) {
  const struct {
    std::string text, place, message;
  } rows[] = {
      {"a: &x 1\n", "f.yaml:1:", "anchors are not accepted"},
      {"a: &x [1]\n", "f.yaml:1:", "anchors are not accepted"},
      {"a: *x\n", "f.yaml:1:4:", "not valid YAML"},
      {"a: !!int 1\n", "f.yaml:1:", "tags are not accepted"},
      {"a: !mine {b: 1}\n", "f.yaml:1:", "tags are not accepted"},
      {"a:\n  <<: {b: 1}\n", "f.yaml:2:3: a:", "merge keys are not accepted"},
      {"a: 1\n---\nb: 2\n", "f.yaml:2:1:", "a second document"},
      {"a: 1\nb: 2\na: 3\n", "f.yaml:3:1: a:", "given already in line 1; keep one"},
      {"s:\n  a: 1\n  'a': 2\n", "f.yaml:3:3: s.a:", "given already in line 2"},
      {"? [a]\n: 1\n", "f.yaml:1:", "a list or a section where a key should be"},
      {"? {a: 1}\n: 1\n", "f.yaml:1:", "a list or a section where a key should be"},
      {": 1\n", "f.yaml:1:1:", "a value without a key"},
      {"\"\": 1\n", "f.yaml:1:1:", "a key without a name"},
      {std::string(300, 'k') + ": 1\n", "f.yaml:1:1:", "a key is too long"},
      {"- a\n- b\n", "f.yaml:1:1:", "not a configuration; write sections"},
      {"train\n", "f.yaml:1:1:", "not a configuration"},
      {"a: [1, 2\nb: 3\n", "f.yaml:2:", "not valid YAML"},
      {"a:\n\tb: 1\n", "f.yaml:2:", "not valid YAML"},
      {"a: 1\n  b: 2\n", "f.yaml:2:4:", "not valid YAML"},
      {"a: @x\n", "f.yaml:1:4:", "not valid YAML"},
      {"ok: 1\nb: \x01\n", "f.yaml:2:4:", "control character U+0001"},
      {std::string("a\0b", 3), "f.yaml:1:2:", "control character U+0000"},
      {"a: \xc2\x85\n", "f.yaml:1:4:", "control character U+0085"},
      {"a: \xff\n", "f.yaml:1:4:", "byte 0xff is not UTF-8"},
      {"a: \xc0\xaf\n", "f.yaml:1:4:", "byte 0xc0 is not UTF-8"},
      {"a: \xed\xa0\x80\n", "f.yaml:1:4:", "not UTF-8"},
      {"a: \xe2\x82", "f.yaml:1:4:", "not UTF-8"},
      {"\x7f"
       "ELF",
       "f.yaml:1:1:", "control character U+007F"},
  };
  for (const auto& row : rows) {
    EXPECT_THAT(error_of(row.text), AllOf(StartsWith(row.place), HasSubstr(row.message)))
        << row.text;
  }
}

TEST(Document, AcceptsTextOutsideAscii) {
  const Document d = parse_document("a: \xc3\xa4\xe2\x82\xac\xf0\x9f\x94\xa5\r\n", "f.yaml");
  EXPECT_EQ(d.root.find("a")->scalar, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x94\xa5");
}

TEST(Document, RefusesBombs) {
  std::string stairs;
  for (int i = 0; i < 1000; ++i) stairs += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
  for (const std::string& nested :
       {"a: " + repeated("[", 100) + repeated("]", 100),
        "a: " + repeated("{a: ", 100) + repeated("}", 100), repeated("- ", 100'000), stairs}) {
    EXPECT_THAT(error_of(nested), HasSubstr("nested more than 32 deep")) << nested.substr(0, 20);
  }
  for (const char* piece :
       {"[", "{", "{a: ", "[\n", "{a:\n", "? ", ": ", "a: ", "[a: ", "{? ", "]", "!", "&", "*a "}) {
    EXPECT_NE(error_of(repeated(piece, 100'000)), "") << piece;
  }
  EXPECT_THAT(error_of("a: [" + repeated("1,", 100'001) + "1]"),
              HasSubstr("more than 100000 values"));
  EXPECT_THAT(error_of(std::string((1 << 20) + 1, '#')), HasSubstr("longer than 1 MiB"));
  EXPECT_EQ(error_of(std::string(1 << 20, '#')), "");
}

TEST(Document, SaysWhyAFileCannotBeRead) {
  const auto error = [](const std::filesystem::path& path) -> std::string {
    try {
      load_document(path);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error("/no/such/file.yaml"),
            "/no/such/file.yaml: cannot be read: No such file or directory; give the path of a "
            "YAML file");
  EXPECT_THAT(error("/"), HasSubstr("/: cannot be read: Is a directory"));
  EXPECT_THAT(error("/dev/zero"), HasSubstr("longer than 1 MiB"));
}

TEST(Document, LoadsAFile) {
  const TemporaryFolder folder;
  const auto path = folder / "a.yaml";
  put_bytes(path, "a: 1\n");
  const Document d = load_document(path);
  EXPECT_EQ(d.root.find("a")->scalar, "1");
  EXPECT_EQ(d.root.find("a")->where.source, path.string());
}

std::string applied(const std::string& text, const std::vector<std::string>& settings) {
  std::vector<Override> overrides;
  for (const std::string& setting : settings) overrides.push_back(parse_override(setting));
  try {
    return to_flow_text(with_overrides(parse_document(text, "f.yaml"), overrides).root);
  } catch (const ConfigError& error) {
    return error.what();
  }
}

TEST(Override, ReplacesOrMakesTheValue) {
  EXPECT_EQ(applied("a: {b: 1, c: 2}", {"a.b=3"}), "{a: {b: 3, c: 2}}");
  EXPECT_EQ(applied("", {"a.b.c=400 steps"}), "{a: {b: {c: 400 steps}}}");
  EXPECT_EQ(applied("a:\n", {"a.b=1"}), "{a: {b: 1}}");
  EXPECT_EQ(applied("a: 1", {"a={b: [x, \"10\"]}"}), "{a: {b: [x, \"10\"]}}");
  EXPECT_EQ(applied("a: [{b: 1}, {b: 2}]", {"a.1.b=5"}), "{a: [{b: 1}, {b: 5}]}");
  EXPECT_EQ(applied("a: 1", {"a=", "b=x=y"}), "{a: null, b: \"x=y\"}");
  EXPECT_EQ(applied("a: 1", {"a=2", "a=3"}), "{a: 3}");
}

TEST(Override, OfASectionComesBeforeThoseOfItsKeys) {
  EXPECT_EQ(applied("a: {b: 1, c: 2}", {"a={d: 4}", "a.b=3"}), "{a: {d: 4, b: 3}}");
  EXPECT_EQ(applied("a: {b: 1, c: 2}", {"x=1", "a.b=3", "a={d: 4}"}),
            "--set a={d: 4}: a: replaces the section of a.b before it; write the section first, "
            "then a.b");
  EXPECT_THAT(applied("a: {b: {c: 1}}", {"a.b.c=3", "a=null"}),
              HasSubstr("a: replaces the section of a.b.c before it"));
  EXPECT_THAT(applied("a: [{b: 1}, {b: 2}]", {"a.1.b=5", "a=[]"}),
              HasSubstr("a: replaces the section of a.1.b before it"));
  // A name that only begins like another is no section of it.
  EXPECT_EQ(applied("", {"a.bc=1", "a.b={d: 2}", "a.b={d: 3}"}), "{a: {bc: 1, b: {d: 3}}}");
}

TEST(Override, KeepsTheDotsOfAnArm) {
  const std::string arms = "compare: {arms: {v1.5: {schedule.hold: 0 steps}}}";
  EXPECT_EQ(applied(arms, {"compare.arms.v1.5.schedule.hold=2 steps"}),
            "{compare: {arms: {v1.5: {schedule.hold: 2 steps}}}}");
  EXPECT_EQ(applied(arms, {"compare.arms.v1.5.train.length=2 steps"}),
            "{compare: {arms: {v1.5: {schedule.hold: 0 steps, train.length: 2 steps}}}}");
  EXPECT_EQ(applied(arms, {"compare.arms.new.train.length=2 steps"}),
            "{compare: {arms: {v1.5: {schedule.hold: 0 steps}, new: {train.length: 2 steps}}}}");
}

// In every map whose keys are dotted, and in no other.
TEST(Override, KeepsTheDotsOfKeysOfARun) {
  for (const std::string kind : {"compare", "find_lr"}) {
    const std::string set = kind + ".arms.y.schedule.warmup.length=0 steps";
    const std::string arm = "{schedule.warmup.length: 0 steps}";
    EXPECT_EQ(applied("", {set}), "{" + kind + ": {arms: {y: " + arm + "}}}");
    EXPECT_EQ(applied(kind + ": {arms: {x: {}, y: null}}", {set}),
              "{" + kind + ": {arms: {x: {}, y: " + arm + "}}}");
    EXPECT_EQ(
        applied(kind + ": {arms: {y: {diagnostics: {}}}}",
                {kind + ".arms.y.diagnostics.sharpness.every=1 step"}),
        "{" + kind + ": {arms: {y: {diagnostics: {}, diagnostics.sharpness.every: 1 step}}}}");
  }
  EXPECT_EQ(applied("", {"sweep.axes.schedule.base_lr=[0.1, 0.2]"}),
            "{sweep: {axes: {schedule.base_lr: [0.1, 0.2]}}}");
  const std::string grid = "sweep: {axes: {schedule.base_lr: {log: [1, 2, 3]}}}";
  EXPECT_EQ(applied(grid, {"sweep.axes.schedule.base_lr.log.2=5", "sweep.axes.train.length=[1]"}),
            "{sweep: {axes: {schedule.base_lr: {log: [1, 2, 5]}, train.length: [1]}}}");
  EXPECT_EQ(applied("expect: [{boundary_moves: {}}]", {"expect.0.boundary_moves.at.model.init=1"}),
            "{expect: [{boundary_moves: {at: {model.init: 1}}}]}");
  EXPECT_EQ(applied("", {"schedule.decay.at=[1 step]"}), "{schedule: {decay: {at: [1 step]}}}");
}

TEST(Override, SaysWhereAPathEnds) {
  EXPECT_EQ(applied("a: 1", {"a.b=2"}),
            "--set a.b=2: a.b: a is a single value; it has no keys of its own");
  EXPECT_EQ(applied("a: [1, 2]", {"a.2=3"}),
            "--set a.2=3: a.2: a has no item 2; its items are 0 to 1");
  EXPECT_THAT(applied("a: [1, 2]", {"a.x=3"}), HasSubstr("a has no item x"));
  EXPECT_THAT(applied("a: []", {"a.0=3"}), HasSubstr("a has no item 0; it is empty"));
  EXPECT_THAT(applied("a: [1]", {"a.99999999999999999999999=3"}), HasSubstr("a has no item"));
  EXPECT_THAT(applied("", {"a.0.b=3"}), HasSubstr("a is not given as a list; give the whole list"));
  for (const char* key : {"a..b=1", ".a=1", "a.=1"}) {
    EXPECT_THAT(applied("", {key}), HasSubstr("not a key")) << key;
  }
  EXPECT_THAT(applied("", {repeated("a.", 100'000) + "b=1"}), HasSubstr("not a key"));
}

TEST(Override, RefusesBadText) {
  const auto error = [](const std::string& text) -> std::string {
    try {
      parse_override(text);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(error("seed"),
            "--set seed: not of the form key=value; write a key, as in --set "
            "schedule.base_lr=0.1");
  EXPECT_THAT(error("=3"), HasSubstr("not of the form key=value"));
  EXPECT_THAT(error("a.b=\"x"), StartsWith("--set a.b=\"x: a.b: not valid YAML"));
  EXPECT_THAT(error("a={b: 1, b: 2}"), HasSubstr("a.b: the key was given already; keep"));
  EXPECT_THAT(error("a=" + repeated("[", 40) + repeated("]", 40)),
              HasSubstr("nested more than 32 deep"));
}

TEST(FlowText, ReadsBackWhateverTheText) {
  for (const std::string text :
       {"plain words", "null",      "~",           "",         " led",
        "trailed ",    "a: b",      "# c",         "a #b",     "[x",
        "{",           "-",         "- x",         "-1",       "--- a",
        "...",         "?",         "*a",          "&a",       "!t",
        "%",           "@",         "`",           "'",        "\"q\"",
        "back\\slash", "tab\there", "line\nbreak", "\xc2\x85", "\xf0\x9f\x94\xa5",
        "a,b",         "x:y",       "true",        "1e3"}) {
    Node node;
    node.kind = Node::Kind::scalar;
    node.scalar = text;
    Node list;
    list.kind = Node::Kind::sequence;
    list.items = {node, node};
    Node map;
    map.kind = Node::Kind::map;
    map.keys = {{"flow", list}, {"alone", node}};
    const Document read = parse_document(to_block_text(map), "f.yaml");
    for (const Node* back : {&read.root.find("flow")->items.at(1), read.root.find("alone")}) {
      EXPECT_EQ(back->kind, Node::Kind::scalar) << text;
      EXPECT_EQ(back->scalar, text);
    }
  }
}

}  // namespace
}  // namespace preheat
