#!/usr/bin/env python3
"""Text for launch/demo.sh: makes its request, prints the server's stream and its cluster page for people.

demo_text.py request PROMPT MAX_TOKENS   the JSON body of a streamed chat request
demo_text.py chat                        a stream on stdin: the text as it comes, then the usage; fails when it is not complete
demo_text.py cluster                     the cluster page on stdin, in lines
demo_text.py port                        a free port
"""
import json
import socket
import sys


def request(prompt, max_tokens):
    print(json.dumps({"messages": [{"role": "user", "content": prompt}], "max_tokens": int(max_tokens), "temperature": 0,
                      "stream": True, "stream_options": {"include_usage": True}}))


def chat():
    pieces, usage, done = 0, None, False
    for line in sys.stdin:
        data = line[5:].strip() if line.startswith("data:") else ""
        if data == "[DONE]":
            done = True
        elif data:
            event = json.loads(data)
            usage = event.get("usage") or usage
            for choice in event.get("choices", []):
                text = choice["delta"].get("content") or ""
                pieces += bool(text)
                print(text, end="", flush=True)
    print(f"\nusage: {json.dumps(usage)}")
    sys.exit(0 if done and pieces > 0 else 1)


def cluster():
    page = json.load(sys.stdin)
    for model in page["models"]:
        dmc = model.get("dmc", {})
        forced, learned = dmc.get("synthetic_cr", 0), dmc.get("target_cr", 0)
        kind = (f"decisions SYNTHETIC at CR {forced:g}" if forced else f"caches compressed by learned decisions, trained for CR {learned:g}" if learned
                else "no compression (a plain Llama)")
        print(f"model {model['name']} on {model['device']}, weights {model['dtype']}, {kind}")
    for replica in page["replicas"]:
        shape, report = replica["shape"], replica["report"]
        tokens = report["counters"]["generation_tokens"]
        print(f"replica {replica['id']} {replica['state']}: TP {shape['tensor_parallel']} x PP {shape['pipeline_parallel']}, {tokens} tokens generated")
        for rank, now in zip(shape["ranks"], report["ranks"]):
            print(f"  rank {rank['rank']}: layers {rank['layer_begin']}-{rank['layer_end'] - 1}, KV heads {rank['kv_head_begin']}-"
                  f"{rank['kv_head_end'] - 1}, {now['pages_free']} of {rank['pages_total']} pages of {rank['page_bytes']} bytes free")


def port():
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        print(chosen.getsockname()[1])


if __name__ == "__main__":
    {"request": request, "chat": chat, "cluster": cluster, "port": port}[sys.argv[1]](*sys.argv[2:])
