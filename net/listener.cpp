#include "net/listener.h"

#include <fmt/format.h>

#include <stdexcept>

namespace accrete::net {

using boost::asio::ip::tcp;

tcp::acceptor listen_on(boost::asio::io_context& io, const std::string& host, int port, const std::string& what) {
  boost::system::error_code error;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(host, std::to_string(port), tcp::resolver::passive, error);
  const auto fail = [&](const boost::system::error_code& code) {
    throw std::runtime_error(fmt::format("cannot listen for {} on {}:{}: {}", what, host, port, code.message()));
  };
  if (error || found.empty()) fail(error ? error : boost::asio::error::host_not_found);
  const tcp::endpoint endpoint = found.begin()->endpoint();
  tcp::acceptor acceptor(io);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(boost::asio::socket_base::max_listen_connections, error);
  if (error) fail(error);
  return acceptor;
}

}  // namespace accrete::net
