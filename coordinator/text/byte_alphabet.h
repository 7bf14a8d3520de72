// GPT-2's byte alphabet: each byte as a printable character, so that any bytes can be spelled in a vocabulary file.
// Printable Latin-1 stands for itself; the other 68 bytes are U+0100 onward in order.
#pragma once

#include <array>
#include <string>
#include <string_view>

namespace accrete::coordinator {

const std::array<std::string, 256>& byte_alphabet();  // byte -> UTF-8 of its character

std::string to_byte_alphabet(std::string_view bytes);
// A spelling with a character outside the alphabet stands for its own UTF-8.
std::string from_byte_alphabet(std::string_view spelled);

}  // namespace accrete::coordinator
