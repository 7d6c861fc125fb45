from itertools import islice
from statistics import mean, median

from loadtest.corpus import long_tickets, tickets
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


def test_long_texts_have_128_to_256_tokens_and_none_is_cut() -> None:
    tokenizer = Tokenizer((embedded_bundle() / TOKENIZER).read_bytes(), 1000)
    lengths = [len(tokenizer.encode(text)) for text in islice(long_tickets(1), 1000)]
    assert min(lengths) >= 128
    assert max(lengths) <= 256
    assert len(set(islice(long_tickets(1), 100)) | set(islice(long_tickets(2), 100))) == 200
