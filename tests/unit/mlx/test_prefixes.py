"""The byte-bounded prefix cache."""

from espalier_mlx.prefixes import PrefixCache


def test_the_least_recently_used_goes_first():
    cache = PrefixCache(100)
    cache.put("a", 1, 40)
    cache.put("b", 2, 40)
    assert cache.get("a") == 1
    cache.put("c", 3, 40)
    assert list(cache) == ["a", "c"]
    assert cache.nbytes == 80


def test_what_cannot_fit_is_not_kept():
    cache = PrefixCache(100)
    cache.put("a", 1, 50)
    cache.put("big", 2, 101)
    assert list(cache) == ["a"]
    assert cache.get("big") is None
