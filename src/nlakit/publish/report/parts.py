"""What the report calls parts, conditions and measures. What is not here keeps its own name."""

from __future__ import annotations

import re

MEASURES = {"fve": "FVE", "centred_cosine": "Centred cosine", "cosine": "Cosine", "mse": "MSE"}
# Group → condition of the round trip → its name and what the AR is fed.
CONDITIONS = {
    "The pair": {"real": ("AV text", "the explanation the AV wrote for this row")},
    "Ceiling": {"label": ("label", "the teacher's label of the row, which the AR was trained on")},
    "Floors: texts that do not describe the row": {
        "mean": ("mean vector", "ū, the mean direction of the training rows; no AR, no text"),
        "empty": ("empty text", "the empty string"),
        "gibberish": ("gibberish", "random letters in groups as long as words"),
        "unrelated": ("unrelated text", "fixed sentences about nothing in the corpus"),
        "other_row": ("another row's text", "the AV text of a row of another document"),
    },
    "Copy controls: pasted text or topic alone": {
        "last_token": ("last token", "the last token of the source and nothing else"),
        "last_10_tokens": ("last 10 tokens", "the last ten tokens of the source, word by word"),
        "same_document": ("same document", "the AV text of another position of the document"),
        "label_other_row": ("another row's label", "the label of a row of another document"),
    },
}
NAMES = {key: name for group in CONDITIONS.values() for key, (name, _) in group.items()}
ROLES = ("pair", "ceiling", "floor", "control")  # of these groups, in a word
ROLE_OF = {
    key: role for role, group in zip(ROLES, CONDITIONS.values(), strict=True) for key in group
}

# Part → its name in the list of sections, its title, and the question that it answers.
PARTS = {
    "roundtrip": (
        "By group",
        "Round trip by kind of row",
        "Does the pair do equally well on every family of texts, at every position, and at every"
        " norm of the activation? All the rows together stand in the first table.",
    ),
    "ar_reading": (
        "AR reading",
        "Does the reconstructor read?",
        "The same explanations with their order, parts, quotes or names changed. A reconstructor"
        " that reads loses what was taken away; one that reads an opening or loose words does not"
        " notice.",
    ),
    "functional": (
        "Going on",
        "Does the subject go on as before?",
        "The reconstruction is put in the place of the activation that it stands for, and the"
        " subject goes on. How far does its next token move? A text that keeps what the subject"
        " uses moves it less than the mean vector does, which nobody has read.",
    ),
    "attribution": (
        "Words",
        "Which words carry the reconstruction?",
        "Each word and each sentence is deleted in turn; Δ is what the score loses by that. The"
        " floor scores the same reconstructions against another document's vector: what any"
        " deletion does, and the luck of a maximum, are in it.",
    ),
    "recurrence": (
        "Which words",
        "Which words are to be believed?",
        "Each token is explained again, and so are the two before it. Do the words that these texts"
        " repeat stand in the source more often than those that they do not? Guesses at what"
        " comes next, and words that the pair says of random directions too, are left out.",
    ),
    "rewrites": (
        "Rewrites",
        "Does it survive rewording?",
        "Explanations rewritten by a language model. If the meaning carries the score, a faithful"
        " rewording keeps most of it; if hidden wording carries it, the score falls.",
    ),
    "av_reading": (
        "AV reading",
        "Does the verbalizer read its vector?",
        "What the verbalizer (AV) writes when it is given something else than the activation, and"
        " how likely the labels are under their own and under another vector. A text that scores"
        " like the real one here would mean that the vector does not matter.",
    ),
    "av_sweep": (
        "AV sweep",
        "How does the verbalizer follow its vector?",
        "Vectors made longer or shorter, and vectors between two rows: over what range do the"
        " explanations still describe the row?",
    ),
    "layers": (
        "Layers",
        "Over which layers does it read?",
        "The same tokens at other layers of the subject, given to the verbalizer as if they were at"
        " layer K, for which the pair was trained. A reconstruction is scored against the layer's"
        " own vectors, and against those of layer K: a pair that reads a neighbour as its own layer"
        " does well at both.",
    ),
    "retrieval": (
        "Retrieval",
        "Do explanations find their own document?",
        "The source text that an explanation is most like, among all documents and among those of"
        " its own family. Finding the family alone is routing, and not content.",
    ),
    "truth": (
        "Claims looked up",
        "Is what explanations say in the text?",
        "Quotes, numbers, names and words of an explanation, looked up in its source by rule. What"
        " is said in other words counts as not found.",
    ),
    "claims": (
        "Claims judged",
        "Are the claims true?",
        "Claims taken from each explanation by a language model and judged against the source, and"
        " what the reconstruction loses when a claim is deleted. A false claim can help a"
        " reconstructor as much as a true one.",
    ),
    "quality": (
        "Quality",
        "How good are the explanations, as judged?",
        "A language model rates each explanation beside its source. Another row's explanation,"
        " rated in the same words, shows how generous it is.",
    ),
    "baselines": (
        "Baselines",
        "Is an NLA needed for this?",
        "What can be said of an activation without an NLA, scored in the same way. A pair that"
        " does not beat the label of the nearest training vector is a lookup.",
    ),
    "collapse": (
        "Collapse",
        "Are the texts of a kind?",
        "Shared openings, doubles, loops, wrong script and empty or cut texts, counted on whole"
        " texts. The labels are no floor here but a reference: they had the same sources to say.",
    ),
}
# Measure → its name and its meaning in a sentence; "" where the name says it.
MEANINGS = {
    "fve": ("FVE", "share of the variance regained; 0 is the mean of the training rows"),
    "centred_cosine": ("Centred cosine", "cosine after the mean direction is taken away"),
    "cosine": ("Cosine", "plain cosine; it says little, since activations share a direction"),
    "mse": ("MSE", "squared distance of the unit vectors; lower is better"),
    "fve_own_mean": ("FVE, own mean", "against the mean of the evaluated rows themselves"),
    "fve_mean_direction": ("FVE, mean direction", "against ū/‖ū‖; compares with no other FVE"),
    "moves": ("Moves", "how far the text moves the reconstruction from that of the empty text"),
    "moved": ("Moved", "how far the change of the text moves the reconstruction"),
    "fve_lost": ("FVE lost", "score of the real text less that of the changed one"),
    "centred_cosine_lost": ("Centred cosine lost", "real text less changed text"),
    "length_ratio": ("Length", "words of the changed text by words of the real one"),
    "similarity": ("Similarity", "cosine of the sentence embeddings, rewrite and original"),
    "delta_fve_word": ("ΔFVE a word", "mean over the words of a text"),
    "delta_fve_top_word": ("ΔFVE of the strongest word", "the largest of the text"),
    "delta_fve_sentence": ("ΔFVE a sentence", "mean over the sentences of a text"),
    "delta_centred_cosine_word": ("ΔCentred cosine a word", ""),
    "delta_centred_cosine_top_word": ("ΔCentred cosine of the strongest word", ""),
    "delta_centred_cosine_sentence": ("ΔCentred cosine a sentence", ""),
    "share_top5": ("Five strongest words", "their share of the summed positive ΔFVE"),
    "auc": ("AUROC", "chance that a word of the source scores above one that is not; 0.5 is none"),
    "auc_over_deletion": ("AUROC over deletion", "recurrence less deletion, the same words"),
    "supported": ("In the source", "share of the words that the source has, by their stem"),
    "kl": ("KL", "nats, next token, from the untouched run to the patched one; lower is better"),
    "top1_kept": ("Top-1 kept", "the likeliest next token stays the likeliest"),
    "kl_removed": ("KL removed", "share of the mean vector's KL; 1 is all of it, 0 is the mean"),
    "same_text": ("Same text", "the control's text is the row's real text"),
    "empty": ("Empty", "share of empty texts"),
    "unique": ("Unique", "1 by the number of rows with the same text"),
    "duplicate": ("Doubles", "share of texts that another row has too"),
    "loop": ("Loops", "share with a group of one to three words three times in a row"),
    "repeated_items": ("Repeated items", "share of list items that their list has said"),
    "content_words": ("Content words", "different words of five letters or more, no stop words"),
    "other_script": ("Other script", "share with over a fifth of the letters in another one"),
    "cjk": ("CJK", "share with at least one such letter"),
    "cut": ("Cut", "share that stops unfinished at one and the same length"),
    "hit_token_limit": ("At the limit", "share that the limit of new tokens cut"),
    "self_bleu": ("Self-BLEU", "how much of a text others say word by word; lower is better"),
    "words": ("Words", "how many a text has"),
    "over_scale_1": ("Over norm × 1", "centred cosine less that at the norm of training"),
    "centred_cosine_k": ("Centred cosine with layer K", "the same token's vector at layer K"),
    "fve_k": ("FVE of layer K", "of the same token's vector at layer K"),
    "top1_k": ("Top-1 at layer K", "the own one is the most similar of layer K's"),
    "alike": ("Alike", "cosine of the layer's vector and layer K's, each less its mean"),
    "toward_first": ("Towards the first", "centred cosine with the first row's vector"),
    "toward_second": ("Towards the second", "centred cosine with the second row's vector"),
    "agreement": ("Agreement", "shared words of two sampled texts, of all their words"),
    "same_tail_unique": ("Same ending, other text", "rows that end alike have different texts"),
    "same_tail_gain": ("Same ending, gain", "own text less that of a row that ends alike"),
    "nll": ("Loss of the label", "nats a token; lower is better"),
    "gap": ("Gap", "nats a token between another document's vector and the right one"),
    "top1": ("Top-1", "the own one is the most similar"),
    "top5": ("Top-5", "the own one is among the five most similar"),
    "top20": ("Top-20", "the own one is among the twenty most similar"),
    "mrr": ("MRR", "mean reciprocal rank of the own one"),
    "percentile": ("Percentile", "share of the others that are less similar; 0.5 is chance"),
    "family_top1": ("Family", "the most similar document is of the row's family: routing"),
    "quote_precision": ("Quotes found", "share of the quoted strings that the source has"),
    "number_precision": ("Numbers found", "share of the numbers that the source has"),
    "name_precision": ("Names found", "share of the names that the source has"),
    "word_precision": ("Words found", "share of the content words that the source has"),
    "fabricated": ("Fabricated", "claims a text that its source has not, or that are false"),
    "claims": ("Claims", "how many a text makes"),
    "claim_precision": ("Claim precision", "share of the claims judged true"),
    "claim_precision_theme": ("Precision, themes", "subject, genre or tone"),
    "claim_precision_entity": ("Precision, entities", "persons, places, things, works"),
    "claim_precision_detail": ("Precision, details", "quotations, numbers, events, relations"),
    "recurrence": ("Recurrence", "share of the other explanations that make the same claim"),
    "delta_fve_true": ("ΔFVE of true claims", "what deleting a claim judged true loses"),
    "delta_fve_false": ("ΔFVE of false claims", "what deleting a claim judged false loses"),
    "validity": ("Validity", "1 to 5: what it says is right"),
    "specificity": ("Specificity", "1 to 5: it fits this text and few others"),
    "relatedness": ("Relatedness", "1 to 5: it is about what the text is about"),
    "quality": ("Quality", "the product of the three, from 0 to 1"),
}
# Condition → its name and what stands for it; those of the round trip are above.
KINDS = {
    "explanation": ("AV text", "the explanation of this row"),
    "samples": ("recurrence, samples", "share of the sampled texts that say the word"),
    "neighbours": ("recurrence, neighbours", "share of the explanations of tokens before"),
    "both": ("recurrence, both", "share of all these texts"),
    "deletion": ("deletion", "what the centred cosine loses without the word"),
    "repeated": ("words said again", "by at least half of the other texts"),
    "unrepeated": ("words said alone", "fewer than a quarter of the other texts have them"),
    "shuffled": ("shuffled", "explanations of other documents"),
    "chance": ("chance", "a random order"),
    "no_injection": ("no injection", "the marker's own embedding; one text whatever the row"),
    "zero": ("zero vector", "a vector of zeros; one text whatever the row"),
    "random_direction": ("random direction", "random vectors of the same norm as the real ones"),
    "mean_vector": ("mean vector", "the mean activation; one text whatever the row"),
    "right_vector": ("right vector", "the activation of the row"),
    "other_vector": ("another document's vector", ""),
    "own": ("own vector", "the row's activation put back: a control that moves nothing"),
    "labels": ("labels", "another vector's loss less the right one's"),
    "sentence_shuffle": ("sentences shuffled", ""),
    "word_shuffle": ("words shuffled", "keeps what an unordered bag of words says"),
    "word_shuffle_in_sentences": ("words shuffled in their sentences", ""),
    "paraphrase": ("paraphrased by rule", "the same in other words, lists in another order"),
    "sentence_deletion": ("sentences deleted", "some of them, at random"),
    "clause_deletion": ("clauses deleted", "some of them, at random"),
    "other_names": ("other names", "names put in the places of others"),
    "opening_kept_rest_other": ("opening kept, rest of another row", ""),
    "no_quotes": ("without quotes", ""),
    "quotes_only": ("quotes only", ""),
    "no_copied_words": ("without copied words", "less every word that the source has"),
    "light_paraphrase": ("light paraphrase", "a third of the words replaced"),
    "aggressive_paraphrase": ("aggressive paraphrase", "entirely different words"),
    "back_translation": ("translated and back", ""),
    "coherence": ("made coherent", "a control: it repairs, and so may drop"),
    "summary": ("summary", "a control that should lose: one short sentence"),
    "nearest_label": ("nearest label", "that of the nearest training vector"),
    "nearest_vector": ("nearest vector", "the nearest training vector itself, without words"),
    "logit_lens": ("logit lens", "the likeliest words of the activation, listed"),
    "continuation": ("continuation", "how the untrained subject goes on after the source"),
    "patchscopes": ("untrained subject", "what it writes of the vector in the AV's place"),
    "sampled": ("sampled texts", "of one row"),
    "sampled_mean": ("sampled texts, mean", ""),
    "sampled_best": ("sampled texts, best", "high by choice alone: see its floor"),
    "other_rows": ("other rows", "sampled texts of two rows"),
    "pairs": ("pairs of rows", "of different documents that end in the same token"),
    "random_span": ("random words", "as many words deleted from anywhere"),
}
METHODS = {"tfidf": "tf-idf", "embedding": "embedding"}
# Measures that repeat another or explain it, folded away below the others.
FOLDED = re.compile(
    r"cosine|mse|moved|length_ratio|.*_lost|top5|top20|within_family_(top5|top20)"
    r"|delta_centred_cosine_.*|fve_.*|nll|unique_\d+|duplicate|cjk|words"
)
UNIQUE = re.compile(r"unique_(\d+)")
OTHER_ROW = "_other_row"
MIX = re.compile(r"mix_(\d+(?:\.\d+)?)")
PREFIX = re.compile(r"prefix_(\d+)")
SCALE = re.compile(r"scale_(\d+(?:\.\d+)?)")
LAYER = re.compile(r"layer_(\d+)")
LAYER_FLOOR = re.compile(r"(layer_\d+)_(mean|empty)")
OPENING = re.compile(r"(first|after)_(\d+)_words")


def part_words(name: str) -> tuple[str, str, str]:
    """Name in the list of sections, title, question."""
    return PARTS.get(name, (name, name, ""))


def measure_words(name: str) -> tuple[str, str]:
    """Name and meaning of a measure."""
    if found := UNIQUE.fullmatch(name):
        return f"Unique in {found[1]} characters", "1 by the number of rows that begin alike"
    within = name.removeprefix("within_family_")
    title, meaning = MEANINGS.get(within, (within, ""))
    return (title, meaning) if within == name else (f"{title}, within the family", meaning)


def condition_words(name: str) -> tuple[str, str]:
    """Name and meaning of a condition."""
    for known in (KINDS, *CONDITIONS.values()):
        if name in known:
            return known[name]
    method, colon, rest = name.partition(":")
    if colon:
        title, meaning = condition_words(rest)
        return f"{METHODS.get(method, method)}: {title}", meaning
    if name.endswith(OTHER_ROW):
        return f"{condition_words(name.removesuffix(OTHER_ROW))[0]}, another row's", ""
    if name.startswith("real_vs_"):
        return f"AV text over {condition_words(name.removeprefix('real_vs_'))[0]}", "same rows"
    if found := MIX.fullmatch(name):
        return f"mix, {float(found[1]):.0%} of the second", "on the way between two rows' vectors"
    if found := PREFIX.fullmatch(name):
        return f"first {found[1]} tokens", "of the explanation"
    if found := SCALE.fullmatch(name):
        return f"norm × {found[1]}", "of the vector that is injected"
    if found := LAYER.fullmatch(name):
        return f"layer {found[1]}", "what the AV writes for its vectors"
    if found := LAYER_FLOOR.fullmatch(name):
        return ", ".join(condition_words(one)[0] for one in found.groups()), ""
    if found := OPENING.fullmatch(name):
        return {"first": f"first {found[2]} words", "after": f"without the first {found[2]} words"}[
            found[1]
        ], "of the explanation"
    return name, ""
