"""HTML, DocBook and Mallard pages as blocks of text, without what surrounds an article."""
import re

import lxml.etree
import lxml.html

DROPPED = {"script", "style", "nav", "header", "footer", "aside", "form", "button", "select", "svg", "noscript", "iframe", "head", "info"}
SURROUND = re.compile(r"\b(?:nav\w*|sidebar\w*|sphinxsidebar|related|footer|breadcrumbs?|toc|menu|headerlink|search|skip-?nav|copyright|"
                      r"navheader|navfooter|bottomNav|topNav|subNav|linkbutton)\b", re.I)
BLOCKS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "li", "dt", "dd", "tr", "blockquote", "title", "para", "simpara", "screen",
          "programlisting", "caption", "figcaption", "summary", "code-block", "item", "term", "div", "section", "td", "table"}
VERBATIM = {"pre", "screen", "programlisting", "code-block"}


def tag_of(node):
    return node.tag.rsplit("}", 1)[-1].lower() if isinstance(node.tag, str) else ""


def is_surround(node):
    tag = tag_of(node)
    if tag in DROPPED or not tag:
        return True
    label = f"{node.get('class', '')} {node.get('id', '')} {node.get('role', '')}"
    return tag in ("div", "ul", "a", "span", "p", "table", "section") and len(label) > 2 and bool(SURROUND.search(label.replace("_", "-")))


class Collector:
    def __init__(self):
        self.blocks, self.line = [], []

    def flush(self, prefix=""):
        text = re.sub(r"\s+", " ", "".join(self.line)).strip()
        self.line = []
        if text:
            self.blocks.append(prefix + text)

    def walk(self, node, depth=0):
        if is_surround(node) or depth > 80:
            return
        tag = tag_of(node)
        if tag in VERBATIM:
            self.flush()
            code = "".join(node.itertext()).strip("\n")
            if code.strip():
                self.blocks.append(code)
            return
        block = tag in BLOCKS
        if block:
            self.flush()
        self.line.append(node.text or "")
        for child in node:
            self.walk(child, depth + 1)
            self.line.append(child.tail or "")
        if tag == "td" or tag == "br":
            self.line.append(" ")
        if block and tag != "td":
            self.flush("- " if tag == "li" else "")


def article(root):
    """The element that holds the text proper."""
    for path in ("//main", "//article", "//div[@role='main']", "//div[@class='body']", "//div[@id='content']", "//body"):
        found = root.xpath(path)
        if found:
            return found[0]
    return root


def joined_items(blocks):
    """Consecutive list items stand on lines of one block."""
    out = []
    for block in blocks:
        if block.startswith("- ") and out and out[-1].startswith("- "):
            out[-1] += "\n" + block
        else:
            out.append(block)
    return out


def blocks_of(blob):
    """-> title, blocks"""
    try:
        if blob.lstrip()[:5] == b"<?xml" and b"<html" not in blob[:2000]:
            root = lxml.etree.fromstring(blob, lxml.etree.XMLParser(recover=True, no_network=True, resolve_entities=False))
        else:
            root = lxml.html.fromstring(blob, parser=lxml.html.HTMLParser(encoding="utf-8"))
    except (lxml.etree.ParserError, lxml.etree.XMLSyntaxError):
        return "", []
    if root is None:
        return "", []
    title = root.xpath("string(//title)").strip() or root.xpath("string(//*[local-name()='title'])").strip()
    collector = Collector()
    collector.walk(article(root))
    collector.flush()
    return re.sub(r"\s+", " ", title)[:200], joined_items(collector.blocks)
