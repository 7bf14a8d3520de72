#include <gtest/gtest.h>

#include "tests/coordinator/front/front.h"

namespace accrete::coordinator {
namespace {

TEST_F(FrontTest, tokenizer_info_says_what_a_client_needs_that_tokenizes_here) {
  start();
  EXPECT_EQ(get("/tokenizer_info").status, 503) << "nobody has joined";
  rpc::Hello hello = small_hello();
  rpc::TokenizerSpec& spec = *hello.mutable_model()->mutable_tokenizer();
  spec.set_bos_token("<s>");
  spec.clear_eos_token();
  spec.set_add_bos_token(true);
  spec.set_chat_template("{{ messages }}");
  const auto leader = join(hello);
  const Answer answer = get("/tokenizer_info");
  ASSERT_EQ(answer.status, 200);
  const json info = answer.value();
  EXPECT_EQ(info["bos_token"], "<s>");
  EXPECT_EQ(info["eos_token"], nullptr);
  EXPECT_EQ(info["add_bos_token"], true);
  EXPECT_EQ(info["chat_template"], "{{ messages }}");
  EXPECT_EQ(info["model_max_length"], hello.model().max_model_len());
  EXPECT_EQ(post("/tokenizer_info", json::object()).status, 405);
}

}  // namespace
}  // namespace accrete::coordinator
