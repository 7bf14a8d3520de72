"""A small scanner of C++ and CUDA text: finds functions, their length, parameters and nesting, without a compiler.

It blanks comments, literals and preprocessor lines, then walks the braces and decides from the words before each one what it opens.
What it cannot tell it takes for an initialiser: it would rather miss a function than report one that is not there.
"""
import re
from dataclasses import dataclass

CONTROL = {"if", "for", "while", "switch", "catch"}
TRAILING = {"const", "noexcept", "override", "final", "mutable", "volatile", "try"}


@dataclass
class Function:
    name: str
    line: int
    length: int = 0      # lines, signature included
    parameters: int = 0
    nesting: int = 0     # deepest control block inside
    kernel: bool = False


def blank(text):
    """The text with comments, literals and preprocessor lines as spaces; line breaks stay."""
    pattern = re.compile(
        r'//[^\n]*|/\*.*?\*/|R"([^()\\\s]{0,16})\(.*?\)\1"|"(?:\\.|[^"\\\n])*"'
        r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'", re.S)

    def spaces(match):
        found = match.group(0)
        kept = re.sub(r"[^\n]", " ", found)
        return '""' + kept[2:] if found[0] in 'R"' and len(kept) >= 2 and "\n" not in kept[:2] else kept

    text = pattern.sub(spaces, text)
    return re.sub(r"^[ \t]*#(?:[^\n\\]|\\[^\n]|\\\n)*", spaces_only, text, flags=re.M)


def spaces_only(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def split_top(text):
    """Splits at commas outside all brackets; `<` counts as a bracket where a `>` follows."""
    parts, depth, current = [], 0, ""
    for i, c in enumerate(text):
        if c in "([{" or (c == "<" and text[i + 1:i + 2] not in ("=", "<") and text[i - 1:i] != "<"):
            depth += 1
        elif c in ")]}" or (c == ">" and text[i - 1:i] not in ("-", "=")):
            depth -= 1
        if c == "," and depth <= 0:
            parts.append(current)
            current = ""
        else:
            current += c
    return [p for p in parts + [current] if p.strip() and p.strip() != "void"]


def matching(text, start):
    """The index of the bracket that closes the one at `start`, or -1."""
    pairs = {"(": ")", "[": "]", "{": "}"}
    close, depth = pairs[text[start]], 0
    for i in range(start, len(text)):
        if text[i] == text[start]:
            depth += 1
        elif text[i] == close:
            depth -= 1
            if depth == 0:
                return i
    return -1


def strip_template(header):
    """Without leading template<...> clauses and attributes."""
    header = header.strip()
    while True:
        if header.startswith("template"):
            depth = 0
            for i, c in enumerate(header):
                if c == "<":
                    depth += 1
                elif c == ">":
                    depth -= 1
                    if depth == 0:
                        break
            header = re.sub(r"^\s*requires\s*\((?:[^()]|\([^()]*\))*\)", "", header[i + 1:]).strip()
        elif header.startswith("[["):
            header = header[header.index("]]") + 2:].strip()
        else:
            return re.sub(r"__launch_bounds__\s*\([^()]*\)|__attribute__\s*\(\([^()]*\)\)|alignas\s*\([^()]*\)", " ", header)


def signature(header):
    """(name, parameter count) of a function's header, or None when it is no function."""
    header = strip_template(header)
    if re.match(r"(namespace|class|struct|union|enum|extern\s*\"\")\b", header) and "(" not in header.split("{")[0]:
        return None
    if re.match(r"(using|typedef|friend class|static_assert|return|namespace|enum)\b", header):
        return None
    operator = re.search(r"operator\s*\(\s*\)\s*\(", header)
    if operator:
        open_at, name = operator.end() - 1, "operator()"
    else:
        found = re.search(r"([~\w]+(?:\s*::\s*~?\w+)*|operator\s*\S+?|operator\s+[\w:<>*& ]+)\s*\(", header)
        if not found:
            return None
        before = header[:found.start()]
        if "=" in before and "operator" not in header and "[" not in before:
            return None
        open_at, name = found.end() - 1, re.sub(r"\s+", "", found.group(1))
    if name in CONTROL | {"return", "sizeof", "decltype", "noexcept", "requires", "defined"}:
        return None
    close_at = matching(header, open_at)
    if close_at < 0:
        return None
    return name, len(split_top(header[open_at + 1:close_at]))


def opens_member_initialiser(header):
    """In `Foo(int a) : a_{`, the brace belongs to a member's initialiser, not to the body."""
    header = strip_template(header).rstrip()
    close = re.search(r"\)[^():]*(?<!:):(?!:)", header)
    return bool(close and re.search(r"[\w>]$", header) and header.split()[-1] not in TRAILING)


def classify(header, in_function):
    """What a brace opens: scope, function, control, lambda or other."""
    header = header.strip()
    if in_function:
        if re.search(r"\]\s*(\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))?\s*(mutable|noexcept)?\s*(->\s*[\w:<>,*&\s]+)?$", header):
            return "lambda"
        word = re.match(r"(?:\}?\s*else\s+)?(if|for|while|switch|catch)\b", header)
        if word or re.fullmatch(r"(else|do|try)", header):
            return "control"
        return "other"
    if re.search(r"=$|\breturn$", header):
        return "other"
    bare = strip_template(header)
    if re.match(r"(inline\s+)?namespace\b|extern\s*\"\"", bare):
        return "scope"
    if re.match(r"(class|struct|union)\b", bare) and signature_free(bare):
        return "scope"
    return "function" if signature(header) else "other"


def signature_free(header):
    """struct Foo : Bar<int()> { is a scope; struct Foo make() { is a function."""
    return not re.search(r"\w\s*\([^()]*\)\s*(const|noexcept|override)?\s*$", header.split(":")[0] if "::" not in header else header)


class Walk:
    """One pass over a file's blanked text."""

    def __init__(self, text):
        self.text = text
        self.functions = []
        self.declarations = []
        self.stack = []      # (kind, function or None, control depth outside)
        self.header_start = 0
        self.depth = 0

    def in_function(self):
        return any(kind in ("function", "lambda") for kind, _, _ in self.stack)

    def line(self, index):
        return self.text.count("\n", 0, index) + 1

    def open(self, i):
        header = self.text[self.header_start:i]
        inside = self.in_function()
        if not inside and opens_member_initialiser(header):
            return matching(self.text, i) + 1
        kind, function = classify(header, inside), None
        if kind == "function":
            name, parameters = signature(header)
            start = self.header_start + len(header) - len(header.lstrip())
            function = Function(name, self.line(start), parameters=parameters, kernel="__global__" in header)
            self.functions.append(function)
        elif kind == "other" and not inside:
            return matching(self.text, i) + 1
        self.stack.append((kind, function, self.depth))
        if kind in ("function", "lambda"):
            self.depth = 0
        elif kind == "control":
            self.depth += 1
            owner = next(f for k, f, _ in self.stack if k == "function") if any(k == "function" for k, _, _ in self.stack) else None
            if owner:
                owner.nesting = max(owner.nesting, self.depth)
        self.header_start = i + 1
        return i + 1

    def close(self, i):
        if self.stack:
            _, function, self.depth = self.stack.pop()
            if function:
                function.length = self.line(i) - function.line + 1
        self.header_start = i + 1

    def end_statement(self, i):
        header = self.text[self.header_start:i]
        if not self.in_function():
            found = signature(header)
            words = strip_template(header).split("(")[0].split()
            if found and (len(words) > 1 or self.stack[-1:] and self.stack[-1][0] == "scope"):
                start = self.header_start + len(header) - len(header.lstrip())
                self.declarations.append(Function(found[0], self.line(start), parameters=found[1]))
        self.header_start = i + 1

    def run(self):
        i, parens = 0, 0
        while i < len(self.text):
            c = self.text[i]
            if c == "(":
                parens += 1
            elif c == ")":
                parens -= 1
            elif c == "{":
                if parens and not self.in_function():
                    i = matching(self.text, i) + 1 or len(self.text)
                    continue
                i = self.open(i) or len(self.text)
                continue
            elif c == "}":
                self.close(i)
            elif c == ";" and (not parens or self.in_function()):
                if not (parens and self.is_for_header(i)):
                    self.end_statement(i)
            elif c == ":" and self.text[self.header_start:i].strip() in ("public", "private", "protected"):
                self.header_start = i + 1
            i += 1
        return self

    def is_for_header(self, i):
        return re.match(r"\s*for\s*\(", self.text[self.header_start:i]) is not None


def scan(text):
    """(functions with bodies, declarations) of a file's text."""
    walk = Walk(blank(text)).run()
    return walk.functions, walk.declarations
