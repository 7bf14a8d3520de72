"""Texts that are hard on tokenizers, made from a seed: the same everywhere."""
import random

RANGES = [  # letters and signs of many scripts
    (0x20, 0x7E), (0xA1, 0x17F), (0x370, 0x3FF), (0x400, 0x4FF), (0x531, 0x586), (0x5D0, 0x5EA), (0x620, 0x6FF), (0x904, 0x97F), (0x985, 0x9E3),
    (0xE01, 0xE5B), (0x10D0, 0x10FF), (0x1200, 0x135A), (0x13A0, 0x13F5), (0x1780, 0x17DD), (0x1E00, 0x1EFF), (0x2010, 0x205E), (0x20A0, 0x20BF),
    (0x2100, 0x218B), (0x2190, 0x23FF), (0x2460, 0x24FF), (0x2500, 0x27BF), (0x3001, 0x303F), (0x3041, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3),
    (0xFF01, 0xFF5E), (0x1D400, 0x1D7CB), (0x1F300, 0x1F64F), (0x1F680, 0x1F6C5), (0x1F900, 0x1F9FF), (0x20000, 0x2A6D6)]
SENTENCES = [
    "The cache grows by one slot a token unless the head decides to accumulate.", "It's 3.14159, isn't it? They'll say we've 1,000,000 of them.",
    "Der Zähler läuft über, sobald die größte Straße fertig ist.", "L'été dernier, nous étions à Besançon près d'une forêt.",
    "Привет, как дела? Всё хорошо, спасибо!", "今日はとても良い天気ですね。明日も晴れるでしょう。", "我们明天去北京大学图书馆看书。", "안녕하세요, 반갑습니다.",
    "مرحبا بالعالم، كيف حالك اليوم؟", "שלום עולם, מה שלומך?", "नमस्ते दुनिया, आप कैसे हैं?", "สวัสดีชาวโลก วันนี้อากาศดี", "Xin chào thế giới, hôm nay trời đẹp.",
    "def f(x):\n    return x ** 2  # square\n\n\tif x:\r\n\t\tpass", "https://example.org/a/b?c=d&e=%20f#g user@host.example", "{\"key\": [1, 2.5e-3, null], \"t\": true}",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 👍🏽 skin, 🇩🇪🇫🇷 flags, e\u0301 combining", "   leading and trailing   \n\n\n  ", "a\u00a0b\u2003c\u3000d\u200be\ufefff\u0085g\u2028h"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>", "<s>", "</s>", "<unk>"]


def random_text(rng):
    low, high = rng.choice(RANGES)
    return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 40)))


def random_bytes(rng):
    return bytes(rng.randrange(256) for _ in range(rng.randint(1, 60))).decode("utf-8", errors="replace")


def one(rng):
    kind = rng.randrange(12)
    if kind == 0:
        return random_bytes(rng)
    if kind == 1:
        return "".join(rng.choice(" \t\n\r\u00a0\u3000ab1") for _ in range(rng.randint(1, 40)))
    if kind == 2:
        return "".join(rng.choice("0123456789.,- ٣४五Ⅷ½²") for _ in range(rng.randint(1, 30)))
    if kind == 3:
        return rng.choice("abcxyzäж漢") * rng.randint(1, 300)
    if kind == 4:
        return rng.choice(SENTENCES) + rng.choice(SPECIAL) + rng.choice(["", " ", "\n"]) + rng.choice(SENTENCES)
    if kind == 5:
        return "".join(chr(rng.randrange(32)) for _ in range(rng.randint(1, 20))) + rng.choice(SENTENCES)
    if kind == 6:
        return " ".join(random_text(rng) for _ in range(rng.randint(1, 6)))
    if kind == 7:
        words = rng.choice(SENTENCES).split(" ")
        rng.shuffle(words)
        return rng.choice([" ", "  ", "\n", "\t "]).join(words)
    if kind == 8:
        return "".join(rng.choice("!?.,;:'\"()[]{}<>|/\\@#$%^&*-+=_~`’“”«»…—") for _ in range(rng.randint(1, 40)))
    if kind == 9:
        return "".join(rng.choice(["'s", "'T", "'re", "'LL", "x", " ", "don", "I"]) for _ in range(rng.randint(1, 20)))
    return "".join(rng.choice([random_text(rng), rng.choice(SENTENCES), " "]) for _ in range(rng.randint(1, 4)))


def corpus(count, seed=1):
    rng = random.Random(seed)
    return SENTENCES + SPECIAL + [one(rng) for _ in range(count - len(SENTENCES) - len(SPECIAL))]
