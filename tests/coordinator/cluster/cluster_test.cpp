// The cluster with replicas that only remember what they were sent.
#include "coordinator/cluster/cluster.h"

#include <gtest/gtest.h>

namespace accrete::coordinator {
namespace {

struct FakePort : ReplicaPort {
  std::vector<rpc::Frame> sent;
  void send(const rpc::Frame& frame) override { sent.push_back(frame); }
  double seconds_silent() const override { return 0.0; }
};

rpc::Hello hello(const std::string& model, const std::string& hash, uint32_t rows, uint64_t pages) {
  rpc::Hello hello;
  hello.mutable_model()->set_name(model);
  hello.mutable_model()->set_hash(hash);
  hello.mutable_shape()->set_max_num_seqs(rows);
  hello.mutable_shape()->set_page_slots(16);
  rpc::RankShape& rank = *hello.mutable_shape()->add_ranks();
  rank.set_pages_total(pages);
  rank.set_layer_end(2);
  rank.set_kv_head_end(2);
  return hello;
}

rpc::Submit prompt(int tokens) {
  rpc::Submit submit;
  for (int i = 0; i < tokens; ++i) submit.add_prompt(i);
  return submit;
}

rpc::TokenBatch batch(uint64_t id, int32_t token, rpc::FinishReason finish) {
  rpc::TokenBatch batch;
  rpc::TokenChunk& chunk = *batch.add_chunks();
  chunk.set_request_id(id);
  chunk.add_tokens()->set_id(token);
  chunk.set_finish(finish);
  return batch;
}

TEST(cluster, routes_to_the_freest_and_hands_tokens_on) {
  Cluster cluster({});
  auto small = std::make_shared<FakePort>(), large = std::make_shared<FakePort>();
  EXPECT_EQ(cluster.join(hello("m", "h", 4, 100), small).id, "r0");
  const std::string id = cluster.join(hello("m", "h", 4, 1000), large).id;
  std::vector<rpc::TokenChunk> got;
  const Cluster::Open open = cluster.open("m", prompt(10), [&](const rpc::TokenChunk& chunk) { got.push_back(chunk); });
  ASSERT_FALSE(open.refused);
  ASSERT_EQ(large->sent.size(), 1u);
  EXPECT_TRUE(small->sent.empty());
  EXPECT_EQ(large->sent[0].submit().prompt_size(), 10);
  cluster.on_tokens(id, batch(open.id, 7, rpc::FINISH_NONE));
  cluster.on_tokens(id, batch(open.id, 8, rpc::FINISH_LENGTH));
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[1].finish(), rpc::FINISH_LENGTH);
  EXPECT_EQ(cluster.open_requests(), 0u);
}

TEST(cluster, a_lost_replica_ends_its_requests_and_no_others) {
  Cluster cluster({});
  auto a = std::make_shared<FakePort>(), b = std::make_shared<FakePort>();
  cluster.join(hello("m", "h", 1, 100), a);
  cluster.join(hello("m", "h", 1, 100), b);
  std::map<int, rpc::TokenChunk> last;
  for (int i = 0; i < 2; ++i) cluster.open("m", prompt(10), [&, i](const rpc::TokenChunk& chunk) { last[i] = chunk; });
  ASSERT_EQ(a->sent.size(), 1u);
  ASSERT_EQ(b->sent.size(), 1u);
  cluster.leave("r0", "killed");
  ASSERT_EQ(last.size(), 1u);
  EXPECT_EQ(last.begin()->second.error_code(), rpc::ERROR_REPLICA_LOST);
  EXPECT_EQ(cluster.open_requests(), 1u);
  EXPECT_TRUE(cluster.can_serve());
  cluster.leave("r1", "killed");
  EXPECT_EQ(last.size(), 2u);
  EXPECT_FALSE(cluster.can_serve());
}

TEST(cluster, a_full_queue_refuses_and_a_freed_place_takes_the_next) {
  Cluster cluster({.max_queued = 1, .chat_template = ""});
  auto port = std::make_shared<FakePort>();
  cluster.join(hello("m", "h", 1, 100), port);  // two at the replica, one waits here
  std::vector<uint64_t> ids;
  for (int i = 0; i < 3; ++i) {
    const Cluster::Open open = cluster.open("m", prompt(1), [](const rpc::TokenChunk&) {});
    ASSERT_FALSE(open.refused);
    ids.push_back(open.id);
  }
  const Cluster::Open refused = cluster.open("m", prompt(1), [](const rpc::TokenChunk&) {});
  ASSERT_TRUE(refused.refused);
  EXPECT_EQ(refused.refused->code, rpc::ERROR_QUEUE_FULL);
  EXPECT_EQ(port->sent.size(), 2u);
  cluster.on_tokens("r0", batch(ids[0], 1, rpc::FINISH_STOP));
  ASSERT_EQ(port->sent.size(), 3u);
  EXPECT_EQ(port->sent[2].submit().request_id(), ids[2]);
}

TEST(cluster, another_model_under_the_same_name_is_refused) {
  Cluster cluster({});
  cluster.join(hello("m", "h", 1, 100), std::make_shared<FakePort>());
  const Cluster::Joined joined = cluster.join(hello("m", "other", 1, 100), std::make_shared<FakePort>());
  ASSERT_TRUE(joined.refused);
  EXPECT_EQ(joined.refused->code, rpc::ERROR_MODEL_MISMATCH);
}

TEST(cluster, draining_takes_nothing_and_resuming_takes_again) {
  Cluster cluster({});
  auto port = std::make_shared<FakePort>();
  cluster.join(hello("m", "h", 1, 100), port);
  EXPECT_FALSE(cluster.set_draining("r9", true));
  EXPECT_TRUE(cluster.set_draining("r0", true));
  EXPECT_TRUE(port->sent.back().has_drain());
  const Cluster::Open open = cluster.open("m", prompt(1), [](const rpc::TokenChunk&) {});
  ASSERT_TRUE(open.refused);
  EXPECT_EQ(open.refused->code, rpc::ERROR_UNAVAILABLE);
  EXPECT_TRUE(cluster.set_draining("r0", false));
  EXPECT_FALSE(cluster.open("m", prompt(1), [](const rpc::TokenChunk&) {}).refused);
}

TEST(cluster, cancelling_reaches_the_replica_or_the_queue) {
  Cluster cluster({});
  auto port = std::make_shared<FakePort>();
  cluster.join(hello("m", "h", 1, 100), port);
  std::vector<uint64_t> ids;
  std::vector<rpc::FinishReason> ends;
  for (int i = 0; i < 3; ++i) ids.push_back(cluster.open("m", prompt(1), [&](const rpc::TokenChunk& chunk) { ends.push_back(chunk.finish()); }).id);
  cluster.cancel(ids[2]);  // it waits here
  EXPECT_EQ(ends, std::vector<rpc::FinishReason>{rpc::FINISH_ABORT});
  cluster.cancel(ids[0]);
  EXPECT_EQ(port->sent.back().cancel().request_id(), ids[0]);
}

TEST(cluster, what_waits_for_one_model_neither_holds_up_nor_outlives_another) {
  Cluster cluster({});
  auto a = std::make_shared<FakePort>(), b = std::make_shared<FakePort>();
  cluster.join(hello("a", "h", 1, 100), a);
  cluster.join(hello("b", "h", 1, 100), b);
  std::map<uint64_t, rpc::TokenChunk> last;
  std::vector<uint64_t> ids;
  const auto open = [&](const std::string& model) {
    const Cluster::Open made = cluster.open(model, prompt(1), [&](const rpc::TokenChunk& chunk) { last[chunk.request_id()] = chunk; });
    EXPECT_FALSE(made.refused);
    return made.id;
  };
  for (const char* model : {"a", "a", "a", "b", "b", "b"}) ids.push_back(open(model));  // the third of each waits
  EXPECT_EQ(a->sent.size(), 2u);
  EXPECT_EQ(b->sent.size(), 2u);
  cluster.on_tokens("r1", batch(ids[3], 1, rpc::FINISH_STOP));
  ASSERT_EQ(b->sent.size(), 3u);
  EXPECT_EQ(b->sent[2].submit().request_id(), ids[5]);
  cluster.leave("r0", "killed");
  EXPECT_EQ(last.at(ids[0]).error_code(), rpc::ERROR_REPLICA_LOST);
  EXPECT_EQ(last.at(ids[2]).error_code(), rpc::ERROR_UNAVAILABLE);
  EXPECT_EQ(cluster.open_requests(), 2u);
  EXPECT_TRUE(cluster.can_serve("b"));
  EXPECT_FALSE(cluster.can_serve("a"));
  EXPECT_TRUE(cluster.open("a", prompt(1), {}).refused);
}

TEST(cluster, a_client_that_goes_while_its_replica_goes_takes_its_other_requests_along) {
  // As when a client program's connection breaks at the news: the session goes and forgets all its requests, those of the lost replica too.
  Cluster cluster({});
  cluster.join(hello("m", "h", 1, 100), std::make_shared<FakePort>());
  std::vector<uint64_t> ids;
  int news = 0;
  for (int i = 0; i < 3; ++i) {
    ids.push_back(cluster.open("m", prompt(1), [&](const rpc::TokenChunk&) {
      ++news;
      for (uint64_t id : ids) cluster.forget(id);
    }).id);
  }
  cluster.leave("r0", "killed");
  EXPECT_EQ(news, 1);
  EXPECT_EQ(cluster.open_requests(), 0u);
}

}  // namespace
}  // namespace accrete::coordinator
