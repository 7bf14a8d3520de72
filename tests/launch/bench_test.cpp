#include <gtest/gtest.h>

#include <algorithm>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "launch/bench/dataset.h"
#include "launch/bench/http_client.h"
#include "launch/bench/load_generator.h"
#include "launch/bench/report.h"
#include "launch/bench/svg_plot.h"

namespace accrete::launch {
namespace {

namespace asio = boost::asio;

RequestRecord record_of(double sent, std::vector<double> times, int64_t output_tokens) {
  RequestRecord record;
  record.sent = sent;
  record.ended = times.back();
  record.token_times = std::move(times);
  record.input_tokens = 10;
  record.output_tokens = output_tokens;
  return record;
}

TEST(Percentile, InterpolatesBetweenNeighbours) {
  EXPECT_DOUBLE_EQ(percentile({1, 2, 3, 4}, 50), 2.5);
  EXPECT_DOUBLE_EQ(percentile({1, 2, 3, 4}, 100), 4);
  EXPECT_DOUBLE_EQ(percentile({5}, 99), 5);
}

TEST(Summarise, ComputesTheUsualFigures) {
  // Two requests, one failed one.
  std::vector<RequestRecord> records{record_of(0.0, {0.1, 0.2, 0.4}, 3), record_of(1.0, {1.3, 1.4}, 2)};
  records.emplace_back().error = "refused";
  const ServingSummary s = summarise(records, 2.0, {50});
  EXPECT_EQ(s.succeeded, 2);
  EXPECT_EQ(s.failed, 1);
  EXPECT_EQ(s.first_error, "refused");
  EXPECT_EQ(s.input_tokens, 20);
  EXPECT_EQ(s.output_tokens, 5);
  EXPECT_DOUBLE_EQ(s.output_throughput, 2.5);
  EXPECT_NEAR(s.ttft.mean, (100 + 300) / 2.0, 1e-9);
  EXPECT_NEAR(s.tpot.mean, (150 + 100) / 2.0, 1e-9);
  EXPECT_NEAR(s.itl.mean, (100 + 200 + 100) / 3.0, 1e-9);
  EXPECT_NEAR(s.e2el.mean, 400, 1e-9);
  EXPECT_EQ(s.peak_output_throughput, 3);
  EXPECT_EQ(s.peak_concurrency, 1);
}

TEST(Summarise, NothingSucceeded) {
  std::vector<RequestRecord> records(2);
  for (RequestRecord& record : records) record.error = "down";
  const ServingSummary s = summarise(records, 0.0, {99});
  EXPECT_EQ(s.failed, 2);
  EXPECT_EQ(s.ttft.mean, 0.0);
  EXPECT_EQ(s.ttft.percentiles.size(), 1u);
}

ServingReport example_report() {
  ServingReport report;
  report.provenance = {.model = "<tiny>", .device = "cpu", .dtype = "bfloat16", .shape = "TP 2 x PP 1, 1 replica", .synthetic_cr = 4};
  report.records = {record_of(0.0, {0.1, 0.2, 0.4}, 3)};
  report.summary = summarise(report.records, 2.0, {99});
  report.backend = "openai";
  report.request_rate = std::numeric_limits<double>::infinity();
  report.metrics = {"ttft", "e2el"};
  return report;
}

TEST(Report, TextBlockHasTheKnownLines) {
  const std::string text = text_block(example_report());
  EXPECT_TRUE(text.starts_with("============ Serving Benchmark Result ============\n")) << text;
  EXPECT_NE(text.find("Successful requests:                     1         \n"), std::string::npos) << text;
  EXPECT_NE(text.find("---------------Time to First Token----------------\n"), std::string::npos) << text;
  EXPECT_NE(text.find("P99 E2EL (ms):                           400.00    \n"), std::string::npos) << text;
  EXPECT_EQ(text.find("TPOT"), std::string::npos) << "not asked for";
  EXPECT_NE(text.find("CR 4 (synthetic decisions)"), std::string::npos);
}

TEST(Report, JsonNamesTheCircumstances) {
  const nlohmann::json json = to_json(example_report());
  EXPECT_EQ(json["completed"], 1);
  EXPECT_EQ(json["synthetic_decisions"], true);
  EXPECT_EQ(json["request_rate"], "inf");
  EXPECT_NEAR(json["p99_ttft_ms"].get<double>(), 100, 1e-9);
}

TEST(Report, HtmlIsSelfContainedAndEscaped) {
  const std::string html = to_html(example_report());
  EXPECT_NE(html.find("&lt;tiny&gt;"), std::string::npos);
  EXPECT_EQ(html.find("<tiny>"), std::string::npos);
  EXPECT_NE(html.find("Synthetic: compression decisions are forced."), std::string::npos);
  EXPECT_NE(html.find("<svg"), std::string::npos);
  EXPECT_EQ(html.find("http"), std::string::npos) << "no external files";
}

TEST(SvgPlot, LimitsAreRound) {
  EXPECT_DOUBLE_EQ(nice_limit(0), 1);
  EXPECT_DOUBLE_EQ(nice_limit(7.2), 8);
  EXPECT_DOUBLE_EQ(nice_limit(100), 100);
  EXPECT_DOUBLE_EQ(nice_limit(0.013), 0.015);
}

TEST(SvgPlot, ManyPointsAreThinnedButTheLastStays) {
  SvgPlot plot{.title = "t", .x_label = "x", .y_label = "y", .points = {}};
  for (int i = 0; i < 100000; ++i) plot.points.emplace_back(i, i);
  const std::string svg = to_svg(plot);
  EXPECT_LT(svg.size(), 20000u);
  EXPECT_NE(svg.find("L466.0 30.0"), std::string::npos) << svg.substr(svg.size() - 100);
}

TEST(RandomPrompts, AreReproducibleAndInRange) {
  const RandomPrompts wanted{.count = 20, .input_len = 100, .output_len = 10, .range_ratio = 0.5, .vocab = 50, .seed = 3};
  const auto first = random_prompts(wanted), second = random_prompts(wanted);
  ASSERT_EQ(first.size(), 20u);
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].tokens, second[i].tokens);
    EXPECT_GE(first[i].tokens.size(), 50u);
    EXPECT_LE(first[i].tokens.size(), 150u);
    EXPECT_GE(first[i].output_len, 5);
    for (int32_t token : first[i].tokens) EXPECT_TRUE(token >= 0 && token < 50);
  }
}

TEST(SharegptPrompts, SkipsWhatDoesNotFitAndNamesTheFile) {
  const std::string path = ::testing::TempDir() + "accrete_bench_test.json";
  std::ofstream(path) << R"([{"conversations":[{"from":"human","value":"abcd"},{"from":"gpt","value":"xy"}]}, {"conversations":[]}, {"x":1},
    {"conversations":[{"from":"human","value":"abcdefghijklmn"},{"from":"gpt","value":"xy"}]}])";
  const TokenizeFn letters = [](const std::string& text) { return std::vector<int32_t>(text.begin(), text.end()); };
  const auto prompts = sharegpt_prompts({.path = path, .count = 3, .max_len = 10}, letters);
  ASSERT_EQ(prompts.size(), 3u);
  EXPECT_EQ(prompts[2].tokens.size(), 4u);
  EXPECT_EQ(prompts[2].output_len, 2);
  EXPECT_THROW(sharegpt_prompts({.path = path, .count = 3, .max_len = 2}, letters), std::runtime_error);
  EXPECT_THROW(sharegpt_prompts({.path = "no-such-file", .count = 1, .max_len = 9}, letters), std::runtime_error);
}

TEST(EventLines, AnyCutGivesTheSameEvents) {
  const std::string stream = "data: {\"a\": 1}\r\n\r\n: comment\ndata:{\"b\"}\n\ndata: [DONE]\n\n";
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    EventLines lines;
    std::vector<std::string> events = lines.feed(stream.substr(0, cut));
    for (std::string& event : lines.feed(stream.substr(cut))) events.push_back(std::move(event));
    EXPECT_EQ(events, (std::vector<std::string>{"{\"a\": 1}", "{\"b\"}", "[DONE]"})) << "cut at " << cut;
  }
}

TEST(ArrivalTimes, FollowTheRate) {
  const auto times = arrival_times(4000, {.request_rate = 100, .burstiness = 1, .max_concurrency = 0, .seed = 1});
  EXPECT_EQ(times.front(), 0.0);
  EXPECT_NEAR(times.back(), 40.0, 4.0);
  EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
  EXPECT_EQ(arrival_times(3, {.request_rate = std::numeric_limits<double>::infinity()}), std::vector<double>(3, 0.0));
}

TEST(RunLoad, KeepsWithinTheConcurrencyLimit) {
  int64_t open = 0, peak = 0;
  const SendFn send = [&](const BenchPrompt&, const BenchClock& clock) -> asio::awaitable<RequestRecord> {
    peak = std::max(peak, ++open);
    RequestRecord record;
    record.sent = clock.now();
    asio::steady_timer timer(co_await asio::this_coro::executor, std::chrono::milliseconds(2));
    co_await timer.async_wait(asio::use_awaitable);
    --open;
    record.ended = clock.now();
    co_return record;
  };
  const LoadResult result = run_load(std::vector<BenchPrompt>(20), {.request_rate = std::numeric_limits<double>::infinity(), .max_concurrency = 3}, send);
  EXPECT_EQ(peak, 3);
  EXPECT_EQ(open, 0);
  EXPECT_EQ(result.records.size(), 20u);
}

}  // namespace
}  // namespace accrete::launch
