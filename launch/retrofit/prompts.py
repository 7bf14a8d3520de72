"""Prompts for sampling the model's own answers and texts (sample.py), made from templates, titles, excerpts and dictionary words of a corpus.

python3 -m retrofit.prompts TRAIN.jsonl --output PROMPTS.jsonl [--count N] [--seed S]
Lines: {"system": text or "", "user": text, "follow": text or ""}, or {"begin": text} that the model goes on with outside of a chat.
"""
import argparse
import json
import random
import re

from retrofit.text import SYSTEM

TOPICS = """the water cycle;photosynthesis;gravity;black holes;the French Revolution;the Roman Empire;inflation;supply and demand;vaccines;sleep
machine learning;the internet;electric cars;renewable energy;climate change;volcanoes;earthquakes;dinosaurs;evolution;DNA;the human heart;the brain
healthy eating;running a marathon;learning a language;playing the guitar;chess;gardening;baking bread;making coffee;houseplants;saving money;job interviews
time management;public speaking;stress;friendship;travelling on a budget;Japan;Italy;Egypt;Brazil;the Amazon rainforest;the ocean;whales;bees;dogs;cats;birds
the moon;Mars;the solar system;stars;light;sound;magnets;electricity;atoms;chemical reactions;acids and bases;the periodic table;fractions;prime numbers
probability;the Pythagorean theorem;percentages;statistics;algorithms;databases;Python programming;sorting a list;version control;operating systems;encryption
passwords;spreadsheets;email;bicycles;trains;aeroplanes;bridges;architecture;painting;photography;jazz;classical music;poetry;novels;film;theatre;democracy
human rights;the printing press;the industrial revolution;ancient Greece;the Middle Ages;the Renaissance;the Cold War;world trade;banks;taxes;insurance
small businesses;marketing;teamwork;leadership;remote work;education;libraries;museums;football;tennis;swimming;yoga;first aid;allergies;the immune system
recycling;plastic;forests;rivers;deserts;the weather;clouds;seasons;calendars;maps;compasses;clocks;glass;steel;paper;cotton;silk;tea;chocolate;spices;rice"""
ASK = """What is {t}?;Explain {t} to a ten-year-old.;Tell me about {t}.;Give me five facts about {t}.;Why is {t} important?;How does {t} work?
What are the advantages and disadvantages of {t}?;Write a short poem about {t}.;Write a short story in which {t} plays a role.;How can I learn more about {t}?
What are common misconceptions about {t}?;Describe the history of {t}.;Write an introduction for an essay about {t}.;Compare {t} and {u}.
Make a list of ten questions about {t}.;I have to give a talk about {t}. Can you suggest an outline?;Write a dialogue between two people who talk about {t}.
Give me three tips about {t}.;Summarize what you know about {t} in one paragraph.;What would happen without {t}?;Is {t} related to {u}?
Write a tweet about {t}.;Explain in two sentences: {t};Write a quiz with answers about {t}.;What should a beginner know about {t}?"""
SMALL = """Hello!;Hi, how are you?;Who are you?;What can you do?;Thank you!;Tell me a joke.;What is your name?;Good morning!;Can you help me?;I am bored. What can I do?
Write an email to my landlord about a broken heater.;Write a thank-you note to my teacher.;Write a cover letter for a job as a cook.;What should I cook tonight?
Plan a day trip for a family with two children.;Write a birthday wish for a friend.;What is 17 + 25?;What is 12 times 8?;How many days are in a leap year?
What is the capital of France?;What is the capital of Australia?;Who wrote Hamlet?;Translate 'good night' into Spanish.;Which planet is the largest?
Write a Python function that reverses a string.;Write a Python program that prints the first ten square numbers.;Write an SQL query that counts rows.
Write an HTML page with a heading and a list.;How do I boil an egg?;How do I tie a tie?;How do I remove a stain from a shirt?;Give me a name for a cat."""
READ = r"""Summarize the following text:\n\n{x};{x}\n\nSummarize the text above in one sentence.;What are the main points of this text?\n\n{x};Explain this in simple words:\n\n{x}
Read this and ask three questions about it.\n\n{x};{x}\n\nWhat is this text about?;Write a title for this text:\n\n{x};Rewrite this text in a friendlier tone:\n\n{x}
List the important terms in this passage and explain them.\n\n{x};Continue this text:\n\n{x};Turn this into bullet points:\n\n{x};Who would need to read this, and why?\n\n{x}"""
FOLLOW = """Can you explain that more simply?;Give me an example.;Why?;Tell me more.;Make it shorter.;Summarize your answer in one sentence.;Thank you! What should I read next?
Are you sure?;Turn that into a list.;What are the exceptions?;How would you say that to a child?;Which part is the most important?;Write it more formally.;What else?"""
WORDS = ["What does the word '{w}' mean?", "Define {w}.", "Use the word '{w}' in three sentences.", "What is the opposite of '{w}'?",
         "Write a limerick with the word '{w}'.", "What is the difference between '{w}' and '{v}'?"]


BEGIN = r"""Once upon a time;It was a;In the year;The old man;When I was a child,;Chapter 1\n\n;Chapter One\n\nThe;"I don't know," she said.;He had never;She opened the door
Dear diary,;My dear friend,;The king;Last summer,;There was once;The village of;Nobody;They walked;It is said that;A long time ago;Why do we
{t}\n\n;# {t}\n\n;{t} is;{t} are;A brief history of {t};Introduction to {t}\n\n;The story of {t};How to;How {t};Everything you need to know about {t};Title: {t}\n\n
Abstract\n\n;In this lesson;In this article, we;Today, we;Scientists have;A new study;The purpose of this;Question:;Q:;Once there lived;Imagine that;Have you ever
By;The first;According to;As the sun;On a cold morning;"Come here,";We were;I remember;My name is;Let's;def ;import ;<html>;1.;-;The;A;In;I;We;It;On;For;With;This"""


def choices(text):
    return [part.strip().replace("\\n", "\n") for line in text.split("\n") for part in line.split(";") if part.strip()]


def excerpt(text, rng):
    """Some whole paragraphs, 300 to 2,500 characters."""
    paragraphs = [p for p in text.split("\n\n") if len(p) > 40]
    if not paragraphs:
        return ""
    at, out, limit = rng.randrange(len(paragraphs)), "", rng.randint(300, 2500)
    for paragraph in paragraphs[at:at + 12]:
        if len(out) + len(paragraph) > limit:
            break
        out += ("\n\n" if out else "") + paragraph
    return out or paragraphs[at][:limit]


def user_text(lists, material, rng):
    titles, texts, words = material
    kind = rng.random()
    if kind < 0.04:
        return rng.choice(lists["small"])
    if kind < 0.45:
        topic = rng.choice(lists["topics"]) if rng.random() < 0.6 or not titles else rng.choice(titles)
        return rng.choice(lists["ask"]).replace("{t}", topic).replace("{u}", rng.choice(lists["topics"]))
    if kind < 0.6 and words:
        return rng.choice(WORDS).replace("{w}", rng.choice(words)).replace("{v}", rng.choice(words))
    return rng.choice(lists["read"]).replace("{x}", excerpt(rng.choice(texts), rng))


def beginning(lists, titles, rng):
    """How a text begins that is no chat."""
    topic = rng.choice(lists["topics"]) if rng.random() < 0.7 or not titles else rng.choice(titles)
    return rng.choice(lists["begin"]).replace("{t}", topic[:1].upper() + topic[1:])


def read_material(path):
    titles, texts, words = [], [], set()
    for line in open(path):
        fields = json.loads(line)
        title = re.sub(r"\s*[|—–-]\s.*$|^\d[\d.]*\s*", "", fields["title"]).strip()
        if 2 <= len(title.split()) <= 6 and title.isascii():
            titles.append(title)
        if fields["title"] == "dictionary":
            words.update(re.findall(r"^([a-z]{4,12})$|^([A-Z]?[a-z]{4,12}) ", fields["text"], re.M) and
                         [a or b for a, b in re.findall(r"^([a-z]{4,12})$|^([A-Z]?[a-z]{4,12}) ", fields["text"], re.M)])
        elif len(fields["text"]) > 600:
            texts.append(fields["text"][:60000])
    return sorted(set(titles)), texts, sorted(words)


def main():
    p = argparse.ArgumentParser(prog="retrofit.prompts")
    p.add_argument("corpus")
    p.add_argument("--output", required=True)
    p.add_argument("--count", type=int, default=40000)
    p.add_argument("--texts", type=float, default=0.4, help="share of texts that are no chats")
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    rng, material = random.Random(a.seed), read_material(a.corpus)
    lists = {"topics": choices(TOPICS), "ask": choices(ASK), "small": choices(SMALL), "read": choices(READ), "follow": choices(FOLLOW), "begin": choices(BEGIN)}
    seen = set()
    with open(a.output, "w") as file:
        for _ in range(a.count):
            if rng.random() < a.texts:
                file.write(json.dumps({"begin": beginning(lists, material[0], rng)}) + "\n")
                continue
            user = user_text(lists, material, rng)
            if user in seen and len(user) > 60:
                continue
            seen.add(user)
            system = SYSTEM if rng.random() < 0.85 else rng.choice(["", "You are a helpful assistant.", "Answer briefly.", "You are a patient teacher."])
            follow = rng.choice(lists["follow"]) if rng.random() < 0.5 else ""
            file.write(json.dumps({"system": system, "user": user, "follow": follow}) + "\n")


if __name__ == "__main__":
    main()
