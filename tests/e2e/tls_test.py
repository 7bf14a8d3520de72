#!/usr/bin/env python3
"""HTTPS with a certificate of one's own: curl gets answers, the careless and the unknown get none, clients that hang up free their pages."""
import contextlib
import http.client
import json
import pathlib
import shutil
import ssl
import subprocess
import sys
import tempfile
import unittest

import support


def make_certificate(folder, name):
    """A key and a certificate for 127.0.0.1 that it signs itself: (key file, certificate file)."""
    key, cert = folder / f"{name}.key", folder / f"{name}.crt"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True)
    return key, cert


class SecureServer(support.Server):
    """Spoken to over HTTPS with the client's certificate, if it has one."""

    def __init__(self, command, port, trusted, shown=None):
        super().__init__(command, port)
        self.context = ssl.create_default_context(cafile=str(trusted))
        if shown:
            self.context.load_cert_chain(shown[1], shown[0])

    def connect(self):
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=self.context)

    def request(self, method, path, body=None, timeout=60):
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, json.loads(text) if "json" in (answer.getheader("Content-Type") or "") else text

    def stream(self, prompt, max_tokens, **fields):
        connection = self.connect()
        connection.request("POST", "/v1/completions", json.dumps(dict(prompt=prompt, max_tokens=max_tokens, stream=True, **fields)),
                           {"Content-Type": "application/json"})
        return connection, connection.getresponse()


def curl(*arguments):
    done = subprocess.run(["curl", "-sS", "--max-time", "60", *map(str, arguments)], capture_output=True, text=True, timeout=90, check=False)
    return done.returncode, done.stdout, done.stderr


class Tls(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.key, self.cert = make_certificate(self.folder, "server")

    def command(self, name, *flags):
        """(command line, port)"""
        port, rpc_port = support.free_ports(2)
        model = [] if name == "coordinator" else [support.MODEL, *support.SMALL]
        return [support.BINARY, name, *model, "--host", "127.0.0.1", "--port", port, "--rpc-port", rpc_port, "--ssl-keyfile", self.key,
                "--ssl-certfile", self.cert, *flags], port

    def test_curl(self):
        command, port = self.command("serve")
        with SecureServer(command, port, self.cert) as server:
            server.wait_healthy()
            url = f"https://127.0.0.1:{port}/v1/completions"
            asked = json.dumps({"prompt": "The capital of France is", "max_tokens": 6, "temperature": 0})
            code, text, errors = curl("--cacert", self.cert, url, "-H", "Content-Type: application/json", "-d", asked)
            self.assertEqual(code, 0, errors)
            self.assertIn("Paris", json.loads(text)["choices"][0]["text"])
            code, text, errors = curl("--cacert", self.cert, url, "-H", "Content-Type: application/json", "-d", asked.replace("{", '{"stream": true, ', 1))
            self.assertEqual((code, text.split()[-1]), (0, "[DONE]"), errors)
            self.assertEqual(curl(url)[0], 60)  # curl's code for a certificate that nobody vouches for
            self.assertNotEqual(curl(f"http://127.0.0.1:{port}/health")[0], 0)

    def test_clients_of_a_worker_alone_must_be_known_and_may_hang_up(self):
        known, stranger = make_certificate(self.folder, "known"), make_certificate(self.folder, "stranger")
        command, port = self.command("worker", "--ssl-ca-certs", known[1])
        with SecureServer(command, port, self.cert, known) as server:
            server.wait_healthy()
            for shown in ([], ["--key", stranger[0], "--cert", stranger[1]]):
                self.assertNotEqual(curl("--cacert", self.cert, *shown, f"https://127.0.0.1:{port}/health")[0], 0)
            at_start = server.pages_free()
            streams = [server.stream(f"Story number {i}: once upon a time", 900, ignore_eos=True) for i in range(3)]
            for _, response in streams:
                for _ in zip(range(3), support.events_of(response)):
                    pass
            support.wait_for(lambda: server.pages_free() != at_start, 10, "open requests hold pages")
            for connection, response in streams:
                response.close()
                connection.close()
            support.wait_for(lambda: server.pages_free() == at_start, 10, "all pages are free again")

    def test_wrong_files_are_told_before_anything_is_loaded(self):
        other, _ = make_certificate(self.folder, "other")
        for files, code, flag in [
            (["--ssl-keyfile", self.key], 2, "--ssl-certfile"),
            (["--ssl-certfile", self.cert], 2, "--ssl-keyfile"),
            (["--ssl-ca-certs", self.cert], 2, "--ssl-ca-certs"),
            (["--ssl-keyfile", other, "--ssl-certfile", self.cert], 1, f"--ssl-keyfile {other}"),
            (["--ssl-keyfile", self.key, "--ssl-certfile", self.folder / "none"], 1, f"--ssl-certfile {self.folder / 'none'}"),
        ]:
            for command in (["serve", "no-such-model"], ["worker", "no-such-model"], ["coordinator"]):
                with self.subTest(f"{command} {files}"):
                    got, _, errors = support.run(*command, *files)
                    self.assertEqual(got, code, errors)
                    self.assertIn(flag, errors)
                    self.assertEqual(len(errors.strip().splitlines()), 1, errors)


if __name__ == "__main__":
    if not shutil.which("openssl") or not shutil.which("curl"):
        print("skipped: openssl and curl are not both here")
        sys.exit(support.SKIPPED)
    support.main()
