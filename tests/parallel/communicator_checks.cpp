#include "tests/parallel/communicator_checks.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

namespace accrete::parallel {

namespace {

std::vector<float> values_of(int rank, size_t count) {
  std::mt19937 random(1000 + rank);
  std::vector<float> values(count);
  // Magnitudes far apart, so that another order of summation gives other bits.
  for (float& value : values)
    value = std::ldexp(static_cast<float>(random()) / 4.0e9f - 0.5f, static_cast<int>(random() % 24));
  return values;
}

std::vector<std::byte> message_of(int from, int to, int number, size_t size) {
  std::vector<std::byte> message(size);
  uint64_t state = static_cast<uint64_t>(from * 7919 + to * 104729 + number) * 0x9E3779B97F4A7C15u + 1;
  for (size_t begin = 0; begin < size; begin += sizeof state) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::memcpy(&message[begin], &state, std::min(sizeof state, size - begin));
  }
  return message;
}

int next_of(const Communicator& group) {
  return (group.rank() + 1) % group.size();
}
int previous_of(const Communicator& group) {
  return (group.rank() + group.size() - 1) % group.size();
}

void sums_in_rank_order(Communicator& group) {
  for (size_t count : {size_t{0}, size_t{1}, size_t{7}, size_t{576}, size_t{16383}, size_t{16384}, size_t{100003}}) {
    std::vector<float> expected = values_of(0, count);
    for (int rank = 1; rank < group.size(); ++rank) {
      const std::vector<float> term = values_of(rank, count);
      for (size_t i = 0; i < count; ++i) expected[i] += term[i];
    }
    std::vector<float> values = values_of(group.rank(), count);
    group.all_reduce_sum(values);
    EXPECT_EQ(std::memcmp(values.data(), expected.data(), count * sizeof(float)), 0) << count << " values";
  }
}

void sums_many_times(Communicator& group) {
  std::vector<float> values(3);
  for (int round = 0; round < 500; ++round) {
    values = {static_cast<float>(group.rank() + round), 1.0f, -2.0f};
    group.all_reduce_sum(values);
    const float ranks = static_cast<float>(group.size());
    ASSERT_EQ(values, (std::vector<float>{ranks * round + ranks * (ranks - 1) / 2, ranks, -2 * ranks})) << round;
  }
}

void gathers(Communicator& group) {
  for (size_t size : {size_t{0}, size_t{1}, size_t{5000}, size_t{1} << 20}) {
    std::vector<std::byte> expected;
    for (int rank = 0; rank < group.size(); ++rank) {
      const auto part = message_of(rank, 0, 1, size);
      expected.insert(expected.end(), part.begin(), part.end());
    }
    const auto mine = message_of(group.rank(), 0, 1, size);
    std::vector<std::byte> everyone(expected.size());
    group.all_gather(mine, everyone);
    EXPECT_TRUE(everyone == expected) << size;
    const int root = group.size() - 1;
    std::vector<std::byte> at_root(group.rank() == root ? expected.size() : 0);
    group.gather(mine, at_root, root);
    EXPECT_TRUE(at_root == (group.rank() == root ? expected : std::vector<std::byte>())) << size;
  }
}

void broadcasts(Communicator& group) {
  for (int root = 0; root < group.size(); ++root) {
    for (size_t size : {size_t{0}, size_t{64}, size_t{300000}}) {
      const auto expected = message_of(root, 0, 2, size);
      std::vector<std::byte> bytes = group.rank() == root ? expected : std::vector<std::byte>(size);
      group.broadcast(bytes, root);
      EXPECT_TRUE(bytes == expected) << size << " from " << root;
    }
  }
}

void moves_large_messages(Communicator& group) {
  constexpr size_t kSize = 16 << 20;
  // Every rank sends before any receives.
  group.send(message_of(group.rank(), next_of(group), 3, kSize), next_of(group), 5);
  EXPECT_TRUE(group.recv(previous_of(group), 5) == message_of(previous_of(group), group.rank(), 3, kSize));
  std::vector<float> values(kSize / sizeof(float), static_cast<float>(group.rank() + 1));
  group.all_reduce_sum(values);
  const float expected = static_cast<float>(group.size() * (group.size() + 1) / 2);
  EXPECT_EQ(std::count(values.begin(), values.end(), expected), static_cast<std::ptrdiff_t>(values.size()));
}

void keeps_tags_apart(Communicator& group) {
  constexpr int kRounds = 50;
  for (int number = 0; number < kRounds; ++number)
    for (int tag = 0; tag < 3; ++tag)
      group.send(message_of(group.rank(), next_of(group), number * 3 + tag, 10 + number), next_of(group), tag);
  // The last tag first; in order within each.
  for (int tag = 2; tag >= 0; --tag)
    for (int number = 0; number < kRounds; ++number)
      ASSERT_TRUE(group.recv(previous_of(group), tag) ==
                  message_of(previous_of(group), group.rank(), number * 3 + tag, 10 + number))
          << "tag " << tag << " message " << number;
}

// Rank 0 waits for a sign that the others give once they have its long message, and does nothing for the message meanwhile.
void flushed_messages_need_no_sender(Communicator& group) {
  constexpr size_t kLong = 3'000'000;
  constexpr int kTag = 5;
  const auto sign_of = [](int token, int rank) { return std::filesystem::temp_directory_path() / fmt::format("accrete-flushed-{}-{}", token, rank); };
  int token = static_cast<int>(getpid());
  group.broadcast(std::as_writable_bytes(std::span(&token, 1)), 0);
  if (group.rank() > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));  // the sender is past its send by then
    EXPECT_EQ(group.recv(0, kTag), message_of(0, group.rank(), 1, kLong));
    std::ofstream(sign_of(token, group.rank())) << "here";
  } else {
    for (int to = 1; to < group.size(); ++to) group.send(message_of(0, to, 1, kLong), to, kTag);
    group.flush([] {});
    for (int to = 1; to < group.size(); ++to) {
      bool seen = false;
      for (int look = 0; look < 2000 && !seen; ++look) {
        seen = std::filesystem::exists(sign_of(token, to));
        if (!seen) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      EXPECT_TRUE(seen) << "rank " << to << " did not get its message";
      std::filesystem::remove(sign_of(token, to));
    }
  }
  group.barrier();
}

void receives_in_place(Communicator& group) {
  for (size_t size : {size_t{0}, size_t{100}, size_t{1} << 20}) {
    group.send(message_of(group.rank(), next_of(group), 4, size), next_of(group), 6);
    std::vector<std::byte> message(size);
    group.recv_into(message, previous_of(group), 6);
    EXPECT_TRUE(message == message_of(previous_of(group), group.rank(), 4, size)) << size;
  }
}

void keeps_messages_and_sums_apart(Communicator& group) {
  group.send(message_of(group.rank(), next_of(group), 9, 100), next_of(group), 0);
  std::vector<float> one{1.0f};
  group.all_reduce_sum(one);
  EXPECT_EQ(one[0], static_cast<float>(group.size()));
  EXPECT_TRUE(group.recv(previous_of(group), 0) == message_of(previous_of(group), group.rank(), 9, 100));
}

void polls(Communicator& group) {
  EXPECT_FALSE(group.poll(previous_of(group), 77));
  group.barrier();
  group.send({}, next_of(group), 77);
  while (!group.poll(previous_of(group), 77)) {
  }
  EXPECT_FALSE(group.poll(previous_of(group), 78));
  EXPECT_TRUE(group.recv(previous_of(group), 77).empty());
  EXPECT_FALSE(group.poll(previous_of(group), 77));
}

void survives_storms(Communicator& group) {
  constexpr int kMessages = 1500;
  const auto size_of_message = [](int number) { return static_cast<size_t>(number * 37 % 6000); };
  for (int number = 0; number < kMessages; ++number)
    for (int to = 0; to < group.size(); ++to)
      group.send(message_of(group.rank(), to, number, size_of_message(number)), to, number % 4);
  for (int from = 0; from < group.size(); ++from)
    for (int number = 0; number < kMessages; ++number)
      ASSERT_TRUE(group.recv(from, number % 4) == message_of(from, group.rank(), number, size_of_message(number)))
          << from << " " << number;
}

void splits(Communicator& group) {
  // Odd and even ranks, each in reverse order.
  const auto half = group.split(group.rank() % 2, -group.rank());
  const int members = (group.size() + 1 - group.rank() % 2) / 2;
  EXPECT_EQ(half->size(), members);
  EXPECT_EQ(half->rank(), members - 1 - group.rank() / 2);
  std::vector<float> ranks{static_cast<float>(group.rank())};
  half->all_reduce_sum(ranks);
  float expected = 0;
  for (int rank = group.rank() % 2; rank < group.size(); rank += 2) expected += static_cast<float>(rank);
  EXPECT_EQ(ranks[0], expected);
  // The part and the whole do not see each other's messages; a part splits again.
  group.send({}, next_of(group), 3);
  EXPECT_FALSE(half->poll(half->rank(), 3));
  EXPECT_TRUE(group.recv(previous_of(group), 3).empty());
  const auto alone = half->split(half->rank(), 0);
  EXPECT_EQ(alone->size(), 1);
  alone->barrier();
  half->barrier();
}

// Rank r reaches the barrier r + 1 messages late; nobody may leave before the last has come.
void barriers_hold(Communicator& group) {
  for (int round = 0; round < 20; ++round) {
    if (group.rank() != 0) group.send({}, 0, round);
    group.barrier();
    if (group.rank() != 0) continue;
    // After a barrier of threads everything sent before it is there. MPI promises that only for messages of one pair,
    // so receive.
    for (int from = 1; from < group.size(); ++from) EXPECT_TRUE(group.recv(from, round).empty());
  }
}

}  // namespace

const std::vector<CommunicatorCheck>& communicator_checks() {
  static const std::vector<CommunicatorCheck> checks{
      {"sums_in_rank_order", sums_in_rank_order},
      {"sums_many_times", sums_many_times},
      {"gathers", gathers},
      {"broadcasts", broadcasts},
      {"moves_large_messages", moves_large_messages},
      {"keeps_tags_apart", keeps_tags_apart},
      {"flushed_messages_need_no_sender", flushed_messages_need_no_sender},
      {"receives_in_place", receives_in_place},
      {"keeps_messages_and_sums_apart", keeps_messages_and_sums_apart},
      {"polls", polls},
      {"survives_storms", survives_storms},
      {"splits", splits},
      {"barriers_hold", barriers_hold},
  };
  return checks;
}

}  // namespace accrete::parallel
