#include "report/line_plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "report/xml.h"

namespace preheat {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

TEST(XmlError, TellsGoodFromBad) {
  EXPECT_EQ(xml_error("<a b=\"1\"><c/>x &amp; y</a>\n"), "");
  EXPECT_NE(xml_error("<a><b></a></b>"), "");
  EXPECT_NE(xml_error("<a>"), "");
  EXPECT_NE(xml_error("<a></a><a></a>"), "");
  EXPECT_NE(xml_error("<a b=1></a>"), "");
  EXPECT_NE(xml_error("<a b=\"1\" b=\"2\"></a>"), "");
  EXPECT_NE(xml_error("<a b=\"<\"></a>"), "");
  EXPECT_NE(xml_error("<a></a>x"), "");
  EXPECT_NE(xml_error("<a>x & y</a>"), "");
  EXPECT_NE(xml_error("<a>\x01</a>"), "");
}

struct Pixel {
  double x;
  double y;
};

bool has_class(const Element& element, const std::string& name) {
  const auto found = element.attributes.find("class");
  return found != element.attributes.end() &&
         (" " + found->second + " ").find(" " + name + " ") != std::string::npos;
}

// The drawn curves, each a list of lines. (The samples of the legend have relative commands.)
std::vector<std::vector<std::vector<Pixel>>> drawn(const std::string& svg) {
  std::vector<std::vector<std::vector<Pixel>>> result;
  for (const Element& element : parse(svg).elements) {
    if (!has_class(element, "lp-line")) continue;
    const std::string& data = element.attributes.at("d");
    if (data.find('h') != std::string::npos) continue;
    auto& lines = result.emplace_back();
    std::istringstream in(data);
    char command = 0;
    Pixel pixel{};
    while (in >> command >> pixel.x >> pixel.y) {
      if (command == 'M') lines.emplace_back();
      lines.back().push_back(pixel);
    }
    EXPECT_TRUE(in.eof()) << data;
  }
  return result;
}

struct TickLabel {
  Pixel at;
  double value;
};

// The tick labels of one axis: those of x are centred, those of y end at the axis.
std::vector<TickLabel> ticks(const std::string& svg, const std::string& anchor) {
  std::vector<TickLabel> result;
  for (const Element& element : parse(svg).elements) {
    if (!has_class(element, "lp-soft") || element.attributes.at("text-anchor") != anchor) continue;
    result.push_back(
        {{std::stod(element.attributes.at("x")), std::stod(element.attributes.at("y"))},
         std::stod(element.text)});
  }
  return result;
}

// Where a value belongs according to two tick labels.
double along(double value, double v0, double p0, double v1, double p1) {
  return p0 + (value - v0) / (v1 - v0) * (p1 - p0);
}

class Ruler {
 public:
  explicit Ruler(const std::string& svg, bool log_y = false)
      : across_(ticks(svg, "middle")), up_(ticks(svg, "end")), log_y_(log_y) {}

  Pixel at(double x, double y) const {
    constexpr double baseline = 4;  // tick labels of y are this far below their line
    const auto f = [&](double v) { return log_y_ ? std::log(v) : v; };
    return {along(x, across_.front().value, across_.front().at.x, across_.back().value,
                  across_.back().at.x),
            along(f(y), f(up_.front().value), up_.front().at.y - baseline, f(up_.back().value),
                  up_.back().at.y - baseline)};
  }

 private:
  std::vector<TickLabel> across_;
  std::vector<TickLabel> up_;
  bool log_y_;
};

LinePlot plot_of(std::vector<Curve> curves) {
  LinePlot plot;
  plot.title = "a title";
  plot.x_label = "update";
  plot.y_label = "loss";
  plot.curves = std::move(curves);
  return plot;
}

class PointsLandWhereTheTicksSay : public testing::TestWithParam<bool> {};

TEST_P(PointsLandWhereTheTicksSay, ForRandomCurves) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 20; ++round) {
    const double scale = std::pow(10.0, std::uniform_real_distribution<>(-6, 5)(random));
    std::lognormal_distribution<> loss(0, 2);
    Curve curve;
    for (int i = 0; i < 137; ++i) {
      curve.x.push_back(3 * i + 5);
      curve.y.push_back(scale * loss(random));
    }
    LinePlot plot = plot_of({curve});
    plot.log_y = GetParam();
    const std::string svg = to_svg(plot, 913, 407);
    ASSERT_EQ(xml_error(svg), "");
    const auto lines = drawn(svg);
    ASSERT_EQ(lines.size(), 1u);
    ASSERT_EQ(lines[0].size(), 1u);
    ASSERT_EQ(lines[0][0].size(), curve.x.size());
    const Ruler ruler(svg, plot.log_y);
    for (std::size_t i = 0; i < curve.x.size(); ++i) {
      const Pixel expected = ruler.at(curve.x[i], curve.y[i]);
      // Labels are at tenths of a pixel, and beyond the outermost two the ruler extrapolates.
      EXPECT_NEAR(lines[0][0][i].x, expected.x, 0.3);
      EXPECT_NEAR(lines[0][0][i].y, expected.y, 2);
      EXPECT_GE(lines[0][0][i].x, 0);
      EXPECT_LE(lines[0][0][i].x, 913);
      EXPECT_GE(lines[0][0][i].y, 0);
      EXPECT_LE(lines[0][0][i].y, 407);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(LinearAndLog, PointsLandWhereTheTicksSay, testing::Bool());

TEST(LinePlotSvg, SmallLearningRatesAreNotPrintedAsZeros) {
  const std::string svg = to_svg(plot_of({{"lr", {0, 1, 2}, {1e-7, 2e-7, 3.2e-7}}}));
  EXPECT_THAT(svg, HasSubstr("e-07</text>"));
  EXPECT_THAT(svg, Not(HasSubstr(">0.0000")));
}

// The labels of an axis, from its lower end.
std::vector<std::string> labels_of(const LinePlot& plot, const std::string& anchor) {
  std::vector<std::string> labels;
  for (const Element& element : parse(to_svg(plot)).elements) {
    if (has_class(element, "lp-soft") && element.attributes.at("text-anchor") == anchor) {
      labels.push_back(element.text);
    }
  }
  return labels;
}

std::vector<std::string> labels_up(const std::vector<double>& y, bool log_y = false) {
  LinePlot plot = plot_of({{"", std::vector<double>(y.size()), y}});
  plot.log_y = log_y;
  return labels_of(plot, "end");
}

TEST(LinePlotSvg, LabelsOfAnAxisDifferAndStandAtItsEnds) {
  for (const double scale : {1e-9, 1e-4, 1e-2, 1.0, 1e3, 1e7, 1e12}) {
    for (const double largest : {1.1, 3.2, 9.9}) {
      std::vector<std::string> labels = labels_up({0, largest * scale});
      EXPECT_GE(labels.size(), 4u);
      std::sort(labels.begin(), labels.end());
      EXPECT_EQ(std::adjacent_find(labels.begin(), labels.end()), labels.end()) << largest * scale;
    }
  }
  // In doubles 6 x 0.05 is more than 0.3, and 0.07 / 0.01 more than 7, by the last bit.
  EXPECT_EQ(labels_of(plot_of({{"", {0, 0.3}, {1, 2}}}), "middle").back(), "0.30");
  EXPECT_EQ(labels_of(plot_of({{"", {0.07, 0.12}, {1, 2}}}), "middle").front(), "0.07");
  EXPECT_EQ(labels_of(plot_of({{"", {0, 1e7}, {1, 2}}}), "middle").back(), "1.0e+07");
}

TEST(LinePlotSvg, ZeroIsInThePictureWhereItIsNear) {
  EXPECT_EQ(labels_up({4, 10}).front(), "0");
  EXPECT_EQ(labels_up({6, 10}).front(), "6");
  EXPECT_EQ(labels_up({-4, -10}).back(), "0");
  EXPECT_EQ(labels_up({-6, -10}).back(), "-6");
}

TEST(LinePlotSvg, LogarithmicAxesAreLabelledByTheirDecades) {
  EXPECT_THAT(labels_up({0.02, 9}, true), testing::ElementsAre("0.1", "1", "10"));
  EXPECT_THAT(labels_up({0.2, 9}, true), testing::ElementsAre("0.2", "0.5", "1", "2", "5", "10"));
  EXPECT_THAT(labels_up({0.1, 0.1}, true), testing::ElementsAre("0.05", "0.1", "0.2"));
  EXPECT_GE(labels_up({1.9, 2.2}, true).size(), 2u);
  // A rate of 0 has no place on a logarithmic axis.
  LinePlot plot = plot_of({{"", {0, 1, 2, 3, 4}, {1, 2, 0, 2, 1}}});
  plot.log_y = true;
  EXPECT_EQ(drawn(to_svg(plot)).at(0).size(), 2u);
  EXPECT_THAT(labels_of(plot, "end"), testing::ElementsAre("1", "2"));
}

TEST(LinePlotSvg, EscapesWhatLabelsBring) {
  LinePlot plot = plot_of({{"<b> & \"c\" \x01 \xff\xfe \xc3\xa9", {0, 1, 2}, {1, nan, 2}}});
  plot.title = "</title><script>alert(1)</script>";
  plot.x_label = plot.y_label = "a<b & c>d";
  plot.bands = {{0, 1, "<warm&up>"}};
  const std::string svg = to_svg(plot);
  EXPECT_EQ(xml_error(svg), "");
  EXPECT_THAT(svg, AllOf(HasSubstr("&lt;b&gt; &amp; &quot;c&quot;"), HasSubstr("\xc3\xa9"),
                         Not(HasSubstr("<script")), Not(HasSubstr("\xff"))));
}

TEST(LinePlotSvg, AccessibleAndInTwoThemes) {
  LinePlot plot = plot_of({{"arm one", {0, 1}, {1, 2}}});
  plot.bands = {{0, 1, "warmup"}};
  const std::string svg = to_svg(plot);
  EXPECT_THAT(svg, AllOf(HasSubstr("role=\"img\""), HasSubstr("<title>a title</title>"),
                         HasSubstr("<title>arm one</title>"), HasSubstr("<title>warmup</title>"),
                         HasSubstr("prefers-color-scheme:dark"),
                         Not(HasSubstr("http://www.w3.org/1")), Not(HasSubstr("href"))));
}

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(LinePlotSvg, OneLegendEntryForTheSeedsOfAnArm) {
  std::vector<Curve> curves;
  for (int seed = 0; seed < 5; ++seed) curves.push_back({"arm", {0, 1}, {1, 2.0 + seed}, 0});
  curves.push_back({"", {0, 1}, {1, 2}, 1});
  const std::string svg = to_svg(plot_of(curves));
  EXPECT_EQ(count(svg, ">arm</text>"), 1);
  EXPECT_EQ(count(svg, "<title>arm</title>"), 5);
}

TEST(LinePlotSvg, ManyArmsDifferInColourAndDashes) {
  std::vector<Curve> curves;
  for (int arm = 0; arm < 35; ++arm) curves.push_back({"", {0, 1}, {1.0 * arm, 2}, arm});
  const std::string svg = to_svg(plot_of(curves));
  std::vector<std::string> styles;
  for (const Element& element : parse(svg).elements) {
    if (!has_class(element, "lp-line")) continue;
    const auto dashes = element.attributes.find("stroke-dasharray");
    styles.push_back(element.attributes.at("class") +
                     (dashes == element.attributes.end() ? "" : dashes->second));
  }
  EXPECT_EQ(styles.size(), 35u);
  std::sort(styles.begin(), styles.end());
  EXPECT_EQ(std::adjacent_find(styles.begin(), styles.end()), styles.end());
}

TEST(LinePlotSvg, NonFiniteValuesBreakTheLineAndAreMarked) {
  const Curve curve{"seed 3", {0, 1, 2, 3, 4, 5, 6, 7}, {1, 2, 3, infinity, nan, 2, 1, nan}};
  const std::string svg = to_svg(plot_of({curve}));
  EXPECT_EQ(xml_error(svg), "");
  const auto lines = drawn(svg);
  ASSERT_EQ(lines.size(), 1u);
  ASSERT_EQ(lines[0].size(), 2u);
  EXPECT_EQ(lines[0][0].size(), 3u);
  EXPECT_EQ(lines[0][1].size(), 2u);
  EXPECT_EQ(count(svg, "<title>seed 3: not finite at 3</title>"), 1);
  EXPECT_EQ(count(svg, "<title>seed 3: not finite at 7</title>"), 1);
  EXPECT_EQ(count(svg, "class=\"lp-mark"), 2);
  for (const Element& element : parse(svg).elements) {
    if (!has_class(element, "lp-mark")) continue;
    std::istringstream in(element.attributes.at("d").substr(1));
    Pixel corner{};
    in >> corner.x >> corner.y;
    const bool first = corner.x < lines[0][1].front().x;
    const Pixel last = lines[0][first ? 0 : 1].back();
    EXPECT_NEAR(corner.x + 4, last.x, 0.02);
    EXPECT_NEAR(corner.y + 4, last.y, 0.02);
  }
}

// The curve has no finite point: its mark is at the upper edge, where the curve would begin.
TEST(LinePlotSvg, ACurveThatIsLostFromTheStartIsMarkedThere) {
  const std::string svg = to_svg(plot_of({{"a", {0, 10}, {1, 2}}, {"b", {5, 10}, {nan, nan}}}));
  const auto line = drawn(svg).at(0).at(0);
  for (const Element& element : parse(svg).elements) {
    if (!has_class(element, "lp-mark")) continue;
    std::istringstream in(element.attributes.at("d").substr(1));
    Pixel corner{};
    in >> corner.x >> corner.y;
    EXPECT_NEAR(corner.x + 4, (line[0].x + line[1].x) / 2, 0.02);
    EXPECT_LT(corner.y + 4, line[1].y);
  }
  EXPECT_EQ(count(svg, "class=\"lp-mark"), 1);
}

TEST(LinePlotSvg, WordsStayInThePicture) {
  LinePlot plot = plot_of({});
  for (int i = 0; i < 12; ++i)
    plot.curves.push_back({"a long label " + std::to_string(i), {0, 60}, {1, 2}, i});
  for (int i = 0; i < 10; ++i) plot.bands.push_back({1.0 * i, i + 1.0, "a phase of its name"});
  std::vector<std::string> rows;  // where names of bands are
  for (const Element& element : parse(to_svg(plot, 560)).elements) {
    if (element.name != "text" || !element.attributes.contains("x")) continue;
    if (element.text.starts_with("a long label")) {
      EXPECT_LE(std::stod(element.attributes.at("x")) + 6 * 14, 560);
    }
    if (element.text.starts_with("a phase")) rows.push_back(element.attributes.at("y"));
  }
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  EXPECT_EQ(rows.size(), 3u);
}

TEST(LinePlotSvg, DrawsWhateverThereIs) {
  const std::vector<Curve> all = {
      {"empty", {}, {}},
      {"one point", {3}, {0.1}},
      {"constant", {0, 1, 2}, {0.1, 0.1, 0.1}},
      {"nearly constant", {0, 1}, {0.1, 0.1 * (1 + 1e-15)}},
      {"zero", {0, 1}, {0, 0}},
      {"negative", {0, 1}, {-3, -3}},
      {"all lost", {0, 1}, {nan, infinity}},
      {"x lost", {nan, infinity, 1}, {1, 2, 3}},
      {"extremes", {-1e308, 1e308}, {-1.7e308, 1.7e308}},
      {"tiny", {0, 1, 2}, {5e-324, 1e-310, 0}},
      {"uneven", {0, 1, 2}, {1}},
      {"far from zero", {1e15, 1e15 + 1}, {1e15, 1e15 + 1}},
  };
  for (const bool log_y : {false, true}) {
    for (std::size_t i = 0; i <= all.size(); ++i) {
      LinePlot plot = plot_of(i < all.size() ? std::vector{all[i]} : all);
      plot.log_y = log_y;
      SCOPED_TRACE(testing::Message() << plot.curves[0].label << (log_y ? ", log" : ""));
      const std::string svg = to_svg(plot);
      EXPECT_EQ(xml_error(svg), "");
      for (const Element& element : parse(svg).elements) {
        for (const auto& [name, value] : element.attributes) {
          EXPECT_EQ(value.find("nan"), std::string::npos) << name;
          EXPECT_EQ(value.find("inf"), std::string::npos) << name;
        }
      }
      EXPECT_GE(count(svg, "text-anchor=\"end\""), 1);
      EXPECT_LE(count(svg, "text-anchor=\"end\""), 30);
      EXPECT_GE(count(svg, "text-anchor=\"middle\""), 3);
      EXPECT_FALSE(to_text(plot).empty());
    }
  }
  EXPECT_EQ(xml_error(to_svg(LinePlot{}, 10, 10)), "");
}

TEST(LinePlotSvg, ASinglePointIsADot) {
  const std::string svg = to_svg(plot_of({{"p", {3}, {0.1}}}));
  EXPECT_EQ(count(svg, "<circle"), 1);
}

TEST(LinePlotSvg, ThinningKeepsEveryExtreme) {
  const auto seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  std::normal_distribution<> noise;
  constexpr int n = 50021;
  Curve curve;
  for (int i = 0; i < n; ++i) {
    curve.x.push_back(i);
    curve.y.push_back(noise(random));
  }
  const auto spike = static_cast<std::size_t>(random() % n);
  curve.y[spike] = 100;
  curve.y[(spike + 7) % n] = -100;

  const std::string svg = to_svg(plot_of({curve}), 800, 400);
  const auto lines = drawn(svg);
  ASSERT_EQ(lines.size(), 1u);
  ASSERT_EQ(lines[0].size(), 1u);
  const std::vector<Pixel>& kept = lines[0][0];
  EXPECT_LE(kept.size(), 4u * 800);
  EXPECT_GE(kept.size(), 2u * 700);
  EXPECT_TRUE(std::is_sorted(kept.begin(), kept.end(),
                             [](const Pixel& a, const Pixel& b) { return a.x < b.x; }));

  // The picture is that of the whole curve: every column has the same lowest and highest value.
  const double left = kept.front().x;
  const double width = kept.back().x - left;
  const Ruler ruler(svg);
  const auto y_at = [&](double y) { return ruler.at(0, y).y; };
  std::vector<double> lowest(static_cast<std::size_t>(width) + 2, -infinity);
  std::vector<double> highest(lowest.size(), infinity);
  for (const Pixel& p : kept) {
    // Rounding to two decimals may have moved a point over the edge of its column.
    for (const double nudge : {-0.02, 0.02}) {
      const auto column = static_cast<std::size_t>(std::max(0.0, p.x - left + nudge));
      lowest[column] = std::max(lowest[column], p.y);
      highest[column] = std::min(highest[column], p.y);
    }
  }
  EXPECT_NEAR(*std::min_element(highest.begin(), highest.end()), y_at(100), 1);
  EXPECT_NEAR(*std::max_element(lowest.begin(), lowest.end()), y_at(-100), 1);
  for (int i = 0; i < n; ++i) {
    const double column = i * width / (n - 1);
    if (column - std::floor(column) < 0.02 || column - std::floor(column) > 0.98) continue;
    const auto c = static_cast<std::size_t>(column);
    const double y = y_at(curve.y[static_cast<std::size_t>(i)]);
    EXPECT_LE(y, lowest[c] + 1);
    EXPECT_GE(y, highest[c] - 1);
  }

  curve.x.resize(2000);
  EXPECT_EQ(drawn(to_svg(plot_of({curve})))[0][0].size(), 2000u);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin);
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

int characters_in(const std::string& line) {
  return static_cast<int>(std::count_if(line.begin(), line.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

TEST(LinePlotText, ARampRisesFromCornerToCorner) {
  LinePlot plot;
  plot.curves = {{"", {}, {}}};
  for (int i = 0; i <= 100; ++i) {
    plot.curves[0].x.push_back(i);
    plot.curves[0].y.push_back(i);
  }
  const auto lines = lines_of(to_text(plot, 60, 10));
  ASSERT_EQ(lines.size(), 12u);
  int previous = 1000;
  for (int row = 0; row < 10; ++row) {
    const auto first = lines[static_cast<std::size_t>(row)].find("\xE2\xA0");
    const auto other = lines[static_cast<std::size_t>(row)].find("\xE2\xA1");
    const auto at = std::min(first, other);
    ASSERT_NE(at, std::string::npos) << "row " << row;
    const int column = characters_in(lines[static_cast<std::size_t>(row)].substr(0, at));
    EXPECT_LT(column, previous);
    previous = column;
  }
  EXPECT_THAT(lines[11], AllOf(HasSubstr("0"), HasSubstr("50"), HasSubstr("100")));
  EXPECT_THAT(lines[9], HasSubstr("0 ┤"));
  // A number is centred below its tick.
  std::vector<std::string> axis;
  for (std::size_t i = 0; i < lines[10].size(); ++i) {
    if ((static_cast<unsigned char>(lines[10][i]) & 0xC0) == 0x80) {
      axis.back() += lines[10][i];
    } else {
      axis.emplace_back(1, lines[10][i]);
    }
  }
  EXPECT_EQ(axis.at(lines[11].find("50") + 1), "┬");
}

TEST(LinePlotText, FitsIntoItsColumns) {
  for (const int columns : {30, 35, 61, 80, 200}) {
    LinePlot plot = plot_of({{"the first arm", {0, 1000}, {1e-7, 3e-7}},
                             {"the second arm", {0, 500, 1000}, {3e-7, 1e-7, nan}, 1}});
    plot.bands = {{0, 300, "warmup"}, {300, 1000, "a decay with a long name that goes on and on"}};
    const std::string text = to_text(plot, columns, 12);
    for (const std::string& line : lines_of(text)) EXPECT_LE(characters_in(line), columns) << text;
    EXPECT_THAT(text, AllOf(HasSubstr("⠶⠶ the first arm"), HasSubstr("oo the second arm"),
                            HasSubstr("×"), HasSubstr("e-07"), HasSubstr("warm"), HasSubstr("┊"),
                            HasSubstr("update"), Not(HasSubstr("\x1b")), Not(HasSubstr("│┊"))));
  }
}

TEST(LinePlotText, ColoursOnlyWhenAsked) {
  const LinePlot plot = plot_of({{"a", {0, 1}, {1, 2}}, {"b", {0, 1}, {2, 1}, 1}});
  EXPECT_THAT(to_text(plot, 80, 10, true), AllOf(HasSubstr("\x1b[36m"), HasSubstr("\x1b[33m")));
  EXPECT_THAT(to_text(plot), Not(HasSubstr("\x1b")));
}

TEST(LinePlotText, LabelsCannotCommandTheTerminal) {
  LinePlot plot = plot_of({{"a\x1b[2Jb\nc", {0, 1}, {1, 2}}});
  plot.title = plot.x_label = plot.y_label = "\x1b]0;owned\x07";
  plot.bands = {{0, 1, "\x1b[31m"}};
  EXPECT_THAT(to_text(plot), AllOf(Not(HasSubstr("\x1b")), Not(HasSubstr("b\nc"))));
}

}  // namespace
}  // namespace preheat
