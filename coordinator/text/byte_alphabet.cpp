#include "coordinator/text/byte_alphabet.h"

#include "coordinator/text/utf8.h"

namespace accrete::coordinator {
namespace {

bool stands_for_itself(uint32_t byte) { return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE; }

const std::array<int16_t, 324>& code_points_to_bytes() {
  static const auto kTable = [] {
    std::array<int16_t, 324> table;
    table.fill(-1);
    for (int byte = 0; byte < 256; ++byte) table[utf8_step(byte_alphabet()[byte]).code_point] = static_cast<int16_t>(byte);
    return table;
  }();
  return kTable;
}

}  // namespace

const std::array<std::string, 256>& byte_alphabet() {
  static const auto kAlphabet = [] {
    std::array<std::string, 256> alphabet;
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) append_utf8(stands_for_itself(byte) ? byte : next++, alphabet[byte]);
    return alphabet;
  }();
  return kAlphabet;
}

std::string to_byte_alphabet(std::string_view bytes) {
  std::string out;
  out.reserve(2 * bytes.size());
  for (char c : bytes) out += byte_alphabet()[static_cast<uint8_t>(c)];
  return out;
}

std::string from_byte_alphabet(std::string_view spelled) {
  const auto& table = code_points_to_bytes();
  std::string out;
  for (std::string_view rest = spelled; !rest.empty();) {
    const Utf8Step step = utf8_step(rest);
    const bool known = step.valid && step.code_point < table.size() && table[step.code_point] >= 0;
    if (!known) return std::string(spelled);
    out += static_cast<char>(table[step.code_point]);
    rest.remove_prefix(step.bytes);
  }
  return out;
}

}  // namespace accrete::coordinator
