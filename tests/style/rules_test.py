#!/usr/bin/env python3
"""The style checker itself: what it must find, and what it must leave alone."""
import pathlib
import tempfile
import unittest

import cpp_scan
import rules


def scan_one(text):
    functions, _ = cpp_scan.scan(text)
    return functions


class Functions(unittest.TestCase):
    def test_length_and_name(self):
        found = scan_one("namespace a {\nint f(int x) {\n  return x;\n}\n}\n")
        self.assertEqual([(f.name, f.line, f.length, f.parameters) for f in found], [("f", 2, 3, 1)])

    def test_long_function_is_found(self):
        body = "void Foo::bar() {\n" + "  x();\n" * 60 + "}\n"
        self.assertEqual(len(list(rules.check_cpp_functions("a.cpp", body))), 1)

    def test_kernel_has_its_own_limit(self):
        body = "template <int D>\n__global__ void __launch_bounds__(256) k(float* x) {\n" + "  x();\n" * 100 + "}\n"
        self.assertEqual(list(rules.check_cpp_functions("a.cu", body)), [])

    def test_class_namespace_and_table_are_no_functions(self):
        text = ("class A : public B {\n public:\n" + "  int x;\n" * 80 + "};\nconst std::map<int, int> kTable = {\n" + "  {1, 2},\n" * 80 +
                "};\nenum class E : uint8_t { a, b };\nstd::vector<int> v{1, 2};\n")
        self.assertEqual(scan_one(text), [])

    def test_methods_and_constructors(self):
        text = "struct A {\n  A(int a, int b) : a_{a}, b_(b) {\n    f();\n  }\n  bool operator()(int x) const { return x; }\n};\n"
        self.assertEqual([(f.name, f.parameters, f.length) for f in scan_one(text)], [("A", 2, 3), ("operator()", 1, 1)])

    def test_six_parameters(self):
        text = "void f(int a, std::map<int, int> b, int c, std::function<void(int, int)> d, int e, int g);\n"
        self.assertEqual(len(list(rules.check_cpp_functions("a.h", text))), 1)
        self.assertEqual(list(rules.check_cpp_functions("a.h", text.replace(", int g", ""))), [])

    def test_comments_and_strings_hide_braces(self):
        text = 'void f() {\n  // }\n  g("{{{", \'{\', R"({{)");  /* { */\n}\nvoid h() {}\n'
        self.assertEqual([f.name for f in scan_one(text)], ["f", "h"])

    def test_digit_separators_are_no_character_literals(self):
        self.assertEqual([f.name for f in scan_one("void f() {\n  x = 1'000'000;\n}\nvoid g() { y = '{'; }\n")], ["f", "g"])

    def test_nesting(self):
        text = "void f() {\n  if (a) {\n    for (;;) {\n      while (b) {\n        if (c) {\n        }\n      }\n    }\n  }\n}\n"
        self.assertEqual(scan_one(text)[0].nesting, 4)

    def test_else_if_and_lambda_do_not_deepen(self):
        text = "void f() {\n  if (a) {\n  } else if (b) {\n  } else {\n    run([&](int x) {\n      for (;;) {\n      }\n    });\n  }\n}\n"
        self.assertEqual(scan_one(text)[0].nesting, 1)

    def test_python_function(self):
        text = "def f(a, b, c, d, e, g):\n" + "    a = 1\n" * 60
        self.assertEqual(len(list(rules.check_python_functions("a.py", text))), 2)


class Words(unittest.TestCase):
    def test_machine_path(self):
        self.assertEqual(len(list(rules.check_words("a.md", "see /ho" + "me/me/x\n"))), 1)
        self.assertEqual(list(rules.check_words("a.md", "see ~/.cache and $HOME/work/x and worker/root/x\n")), [])

    def test_registry_and_unfinished(self):
        self.assertEqual(len(list(rules.check_words("a.md", "https://pypi." + "org/x\n// TO" + "DO later\n// TO" + "DO(#3) later\n"))), 2)


class Includes(unittest.TestCase):
    edges = {"kernels": set(), "net": set(), "cache": {"kernels"}, "worker": {"cache", "kernels"}}

    def test_edges(self):
        text = '#include "net/log.h"\n#include "kernels/view.h"\n#include <vector>\n'
        self.assertEqual(len(list(rules.check_includes("cache/a.cpp", text, self.edges))), 1)
        self.assertEqual(len(list(rules.check_includes("tests/cache/a_test.cpp", text, self.edges))), 1)
        self.assertEqual(list(rules.check_includes("tests/e2e/a.cpp", text, self.edges)), [])

    def test_dots(self):
        self.assertEqual(len(list(rules.check_includes("cache/a.cpp", '#include "../a.h"\n', self.edges))), 1)


class Tree(unittest.TestCase):
    def test_readmes_and_table(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            (root / "docs").mkdir()
            (root / "docs" / "architecture.md").write_text("| kernels | ops | nothing |\n| cache | pages | nothing |\n")
            self.assertEqual(len(list(rules.check_readmes(root, []))), 9)
            self.assertEqual(len(list(rules.check_table(root, {"kernels": set(), "cache": {"kernels"}}))), 1)


if __name__ == "__main__":
    unittest.main()
