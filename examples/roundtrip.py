"""The round trip in thirty lines: text -> activation -> words -> activation."""

from nlakit import NLA

TEXT = (
    "The captain ordered the crew to lower the boats, and the old harpooner "
    "looked once more at the white foam behind the whale"
)

nla = NLA.load("demo")  # the pair in the box; a run folder works as well

# What does layer K hold at the last five tokens?
found = nla.explain(TEXT, positions=[-5, -4, -3, -2, -1])
for item in found:
    print(f"{item.token!r:12} centred cosine {item.centred_cosine:+.2f}  {item.explanation}")

# The building blocks: raw activations, the AR alone, and a score beside its floor.
_, _, vectors = nla.activations(TEXT, positions="last")
real = nla.score([found[-1].explanation], vectors)[0]
floor = nla.score([""], vectors)[0]
print(f"\nthe words score {real.centred_cosine:+.2f}, the empty text {floor.centred_cosine:+.2f}")

# Edit the words and see the reconstruction move.
edited = nla.score(["A passage on tax law. It lists rates and fees."], vectors)[0]
print(f"words about something else score {edited.centred_cosine:+.2f}")
