#!/usr/bin/env python3
"""Clients that hang up in the middle of a stream: their pages come back, the server goes on."""
import unittest

import support


class Disconnect(unittest.TestCase):
    def test_pages_return(self):
        with support.serve() as server:
            server.wait_healthy()
            at_start = server.pages_free()
            self.assertTrue(at_start and all(free > 0 for free in at_start.values()), at_start)
            streams = [server.stream(f"Story number {i}: once upon a time", 900, ignore_eos=True) for i in range(3)]
            for _, response in streams:
                for _ in zip(range(3), support.events_of(response)):
                    pass
            support.wait_for(lambda: server.pages_free() != at_start, 10, "open requests hold pages")
            for connection, response in streams:
                response.close()
                connection.close()
            support.wait_for(lambda: server.pages_free() == at_start, 10, "all pages are free again")
            server.complete("Hello", 2)


if __name__ == "__main__":
    support.main()
