#!/usr/bin/env python3
"""Verifies an export of the audit trail with Python's standard library: verify_export.py KEYS EXPORT.

The format is described in docs/operations/audit.md. Nothing of Errand is needed."""
import base64
import hashlib
import json
import sys

P, Q = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
decode = lambda text: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
digest = lambda data: base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()

# Ed25519 (RFC 8032 §5.1): the curve in affine coordinates, slow and short.
def add(a, b):
    k = D * a[0] * b[0] * a[1] * b[1] % P
    x, y = (a[0] * b[1] + b[0] * a[1]) * pow(1 + k, -1, P), (a[1] * b[1] + a[0] * b[0]) * pow(1 - k, -1, P)
    return x % P, y % P

def multiply(n, point, total=(0, 1)):
    while n:
        total, point, n = add(total, point) if n & 1 else total, add(point, point), n >> 1
    return total

def point(data):
    sign, y = divmod(int.from_bytes(data, "little"), 2**255)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
    assert x * x % P == square, "not a point of the curve"
    return (x if x & 1 == sign else P - x), y

def is_signed(key, message, signature):
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    h = int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % Q
    base = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
    return s < Q and multiply(s, base) == add(point(r), multiply(h, point(key)))

def verify(keys, lines):
    chains, previous, number, final, pruned = {}, "", 0, None, {}
    for line in map(json.loads, lines):
        if "checkpoint" in line:
            signed, signature = line["checkpoint"].rsplit(".", 1)
            header, final = (json.loads(decode(part)) for part in signed.split("."))
            assert header["typ"] == "errand-audit-checkpoint+jwt" and header["alg"] == "EdDSA", "not a checkpoint"
            assert is_signed(keys[header["kid"]], signed.encode(), decode(signature)), "a signature does not verify"
            assert (final["number"], final["previous"]) == (number + 1, previous), "a checkpoint is missing"
            previous, number = digest(line["checkpoint"].encode()), final["number"]
            pruned = pruned if chains else final.get("pruned", {})
            continue
        row, final = line["record"], None
        body, head = json.loads(row["body"]), {**pruned, **chains}.get(row["writer"], {"n": 0, "hash": ""})
        assert (body["writer"], body["n"], body["prev"]) == (row["writer"], head["n"] + 1, head["hash"]), "broken chain"
        assert digest(row["body"].encode()) == row["hash"], "an edited record"
        digests = {**body["record"], "subject": body["record"].get("requester", {}).get("subject")}
        for member, (salt, value) in json.loads(row["personal"]).items():
            assert len(decode(salt)) == 16, "a salt of another length"
            assert digests[member] == "sha-256:" + digest(decode(salt) + value.encode()), "an edited personal value"
        chains[row["writer"]] = {"n": body["n"], "hash": row["hash"]}
    assert final and final.get("pruned", {}) == pruned, "the last checkpoint names other pruned records"
    assert final["writers"] == {**pruned, **chains}, "the last checkpoint does not cover exactly these records"
    count = sum(head["n"] - pruned.get(writer, {"n": 0})["n"] for writer, head in chains.items())
    return f"{count} records in {len(chains)} chains, {number} checkpoints: intact"

with open(sys.argv[1], encoding="utf-8") as file, open(sys.argv[2], encoding="utf-8") as export:
    print(verify({key["kid"]: decode(key["x"]) for key in json.load(file)["keys"]}, export))
