// What Jinja makes of random conversations with the templates that models bring (make_chat_golden.py).
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "coordinator/text/chat_template.h"

namespace accrete::coordinator {
namespace {

using nlohmann::json;

TEST(chat_golden, every_conversation_renders_as_the_models_own_template_does) {
  std::ifstream in(ACCRETE_SOURCE_DIR "/tests/golden/chat/conversations.json", std::ios::binary);
  const json golden = json::parse(in);
  std::map<std::string, ChatTemplate> templates;
  for (const auto& [name, brought] : golden["templates"].items()) {
    rpc::TokenizerSpec spec;
    spec.set_chat_template(brought["source"].get<std::string>());
    spec.set_bos_token(brought["bos"].get<std::string>());
    spec.set_eos_token(brought["eos"].get<std::string>());
    templates.emplace(name, ChatTemplate::make(spec));
  }
  std::map<std::string, int> rendered, refused;
  for (const json& one : golden["cases"]) {
    std::vector<Message> messages;
    for (const json& message : one["messages"]) messages.push_back({message[0].get<std::string>(), message[1].get<std::string>()});
    for (const auto& [name, text] : one["texts"].items()) {
      const ChatTemplate& chat = templates.at(name);
      if (text.is_null()) {
        EXPECT_THROW(chat.render(messages, one["generate"]), MessageError) << name << " of " << one["messages"];
        ++refused[name];
      } else {
        EXPECT_EQ(chat.render(messages, one["generate"]), text.get<std::string>()) << name << " of " << one["messages"];
        ++rendered[name];
      }
    }
  }
  EXPECT_GE(golden["cases"].size(), 300u);
  EXPECT_GE(refused["llama-2"], 10);
  for (const auto& [name, chat] : templates) EXPECT_GE(rendered[name], 80) << name;
}

}  // namespace
}  // namespace accrete::coordinator
