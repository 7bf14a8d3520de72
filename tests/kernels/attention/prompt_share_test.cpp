// How prompts and decodes divide a GPU's multiprocessors.
#include "kernels/attention/prompt_share.h"

#include <gtest/gtest.h>

namespace accrete {
namespace {

DecodePlanShape shape_of(int kv_heads, int group) {
  DecodePlanShape shape;
  shape.layers = 1;
  shape.kv_heads = kv_heads;
  shape.group = group;
  shape.max_sequences = 256;
  shape.multiprocessors = 132;
  return shape;
}
constexpr int64_t kDecodes = 64 * 3072;  // tokens: 800 MB of eight heads

TEST(PromptShare, NothingToDivide) {
  EXPECT_EQ(prompt_share(shape_of(8, 8), {kDecodes, {}}), 0);
  EXPECT_EQ(prompt_share(shape_of(8, 8), {0, {{64, 1024}}}), 0);
  EXPECT_EQ(prompt_share(shape_of(1, 128), {0, {{64, 1024}}}), 0);  // more queries than prompt attention takes
}

TEST(PromptShare, SmallPieceTakesFewBesideManyDecodes) {
  for (const auto& [kv_heads, group] : {std::pair{8, 8}, {32, 1}, {3, 3}}) {
    const int share = prompt_share(shape_of(kv_heads, group), {kDecodes * 8 / kv_heads, {{64, 1024}}});
    EXPECT_GE(share, 1);
    EXPECT_LE(share, 16) << kv_heads;
  }
}

// Each of 48 items takes two thirds of the decodes' time: a round of all beside them, not two.
TEST(PromptShare, LongContextsTakeAsManyAsThereAreItems) {
  EXPECT_EQ(prompt_share(shape_of(8, 8), {9 * 20480, {{96, 10240}}}), 48);
  EXPECT_EQ(prompt_share(shape_of(32, 1), {2 * 20480, {{96, 10240}}}), 32);
}

TEST(PromptShare, ManyItemsTakeAllOneAfterTheOther) { EXPECT_EQ(prompt_share(shape_of(8, 8), {4 * 1024, {{2048, 8192}}}), 0); }

// Whatever comes: never all multiprocessors, nor more than there are items.
TEST(PromptShare, LeavesSomeForDecodes) {
  for (int64_t decodes : {1, 1000, 100'000, 10'000'000}) {
    for (int64_t tokens : {2, 17, 300, 8192}) {
      for (int64_t pieces : {1, 3, 200}) {
        AttentionLoad load{decodes, std::vector<AttentionLoad::Prompt>(static_cast<size_t>(pieces), {tokens, 500})};
        const int share = prompt_share(shape_of(1, 8), load);
        EXPECT_GE(share, 0);
        EXPECT_LT(share, 132);
        EXPECT_LE(share, (tokens + 15) / 16 * pieces);
      }
    }
  }
}

}  // namespace
}  // namespace accrete
