from itertools import islice
from statistics import mean, median

from loadtest.corpus import tickets
from models.bundle import TOKENIZER, embedded_bundle
from models.tokenizer import Tokenizer


def test_the_same_seed_gives_the_same_tickets_and_no_two_are_alike() -> None:
    first = list(islice(tickets(7), 2000))
    assert first == list(islice(tickets(7), 2000))
    assert len(set(first) | set(islice(tickets(8), 2000))) == 4000


def test_lengths_follow_the_stated_distribution_in_the_model_s_own_tokens() -> None:
    tokenizer = Tokenizer((embedded_bundle() / TOKENIZER).read_bytes(), 256)
    lengths = [len(tokenizer.encode(text)) for text in islice(tickets(1), 3000)]
    assert 22 <= median(lengths) <= 30
    assert 30 <= mean(lengths) <= 40
    assert max(lengths) <= 140
