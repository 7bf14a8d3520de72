// Opens a listening TCP socket by name.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <string>

namespace accrete::net {

// Port 0: any free one. Throws std::runtime_error naming `what`, host and port when the host is unknown or the port is busy.
boost::asio::ip::tcp::acceptor listen_on(boost::asio::io_context& io, const std::string& host, int port, const std::string& what);

}  // namespace accrete::net
